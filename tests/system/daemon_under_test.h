// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <rapidjson/document.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"

namespace stackwatch {

/// A directory that goes with the test.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  /// Writes a file into it; its path.
  std::string write(const std::string& name, const std::string& content) const;

 private:
  std::string path_;
};

/// What a program said and how it ended.
struct Answer {
  int exit_code = -1;
  std::string output;  // both outputs together
  [[nodiscard]] rapidjson::Document json() const;
  [[nodiscard]] size_t lines() const;
};
/// Runs a program to its end.
[[nodiscard]] Answer run(const std::vector<std::string>& command);

/// The real daemon with its own configuration and socket.
class DaemonUnderTest {
 public:
  explicit DaemonUnderTest(const std::string& config, std::vector<std::string> environment = {});
  /// Waits until it answers on its socket.
  [[nodiscard]] bool ready() const;
  [[nodiscard]] Answer ask(std::vector<std::string> arguments) const;
  /// Without the survey unless `config` has a [survey]: a test counts who is attached, and other things run beside it.
  /// Without a limit of its CPU time unless it has [limits]: sanitizers cost many times what it may use.
  void configure(const std::string& config) const {
    const bool survey = config.find("[survey]") != config.npos;
    const bool limits = config.find("[limits]") != config.npos;
    directory_.write("stackwatch.toml", config + (survey ? "" : "\n[survey]\nenabled = false\n") +
                                            (limits ? "" : "\n[limits]\ncpu_percent = 100\n"));
  }
  [[nodiscard]] std::string socket() const { return directory_.path() + "/socket"; }
  [[nodiscard]] std::string config_file() const { return directory_.path() + "/stackwatch.toml"; }
  [[nodiscard]] const TemporaryDirectory& directory() const { return directory_; }
  [[nodiscard]] std::vector<std::string> command() const;
  /// SIGTERM; its exit code.
  int stop();
  /// Another one on the same socket and state, after stop().
  void start();
  /// SIGKILL, then another one on the same socket.
  void restart_after_kill();

  [[nodiscard]] Child& process() { return *process_; }

 private:
  TemporaryDirectory directory_;
  std::vector<std::string> environment_;
  std::unique_ptr<Child> process_;
};

/// Calls `done` every 100 ms until it holds; false after `seconds`.
template <class Function>
bool eventually(double seconds, Function&& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < deadline) {
    if (done()) return true;
    usleep(100'000);
  }
  return done();
}

/// Programs of ours in the kernel, by name of the program.
[[nodiscard]] int bpf_programs_loaded();

}  // namespace stackwatch
