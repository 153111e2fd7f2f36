// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "store/state_file.h"

namespace stackwatch {

/// A directory for state that goes with the test.
class StoreTest : public testing::Test {
 protected:
  StoreTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "stackwatch-store-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    directory_ = pattern;
  }
  ~StoreTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  [[nodiscard]] std::string path() const { return directory_ + "/" + StateFile::kFileName; }
  [[nodiscard]] std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) names.push_back(entry.path().filename());
    return names;
  }
  [[nodiscard]] std::unique_ptr<StateFile> open(const StoreBounds& bounds = {}) {
    auto opened = StateFile::open(directory_, bounds, kNow);
    if (!opened) {
      ADD_FAILURE() << opened.error().message();
      return nullptr;
    }
    set_aside_ = opened->set_aside;
    return std::move(opened->file);
  }
  static StoredAlert stored(const std::string& id, AlertState state = AlertState::kFiring, uint64_t updated_ns = 100) {
    return {id, state, {4711, 10'000'000}, "boot-1", 50, updated_ns, R"({"id":")" + id + R"("})"};
  }

  static constexpr uint64_t kNow = 1'795'349'000'000'000'000;  // 2026-11-22T12:03:20Z
  std::string directory_;
  std::string set_aside_;
};

}  // namespace stackwatch
