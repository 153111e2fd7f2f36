// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "core/unique_fd.h"

namespace stackwatch {

/// Debug files as packagers make them, with the tools that they use, in a directory that goes with the test.
class DebugFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/stackwatch-debug-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }
  /// Runs a command in the directory; false where it fails.
  [[nodiscard]] bool run(const std::string& command) const {
    return std::system(("cd " + directory_ + " && { " + command + "; } >log 2>&1").c_str()) == 0;
  }
  [[nodiscard]] static bool has(const std::string& program) {
    return std::system(("command -v " + program + " >/dev/null 2>&1").c_str()) == 0;
  }
  [[nodiscard]] UniqueFd open(const std::string& name) const {
    return UniqueFd(::open(path(name).c_str(), O_RDONLY | O_CLOEXEC));
  }

  std::string directory_;
};

}  // namespace stackwatch
