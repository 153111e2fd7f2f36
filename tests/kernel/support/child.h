// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "core/process.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// Path of a program of tests/programs, and of one of our own.
[[nodiscard]] std::string test_program(const std::string& name);
[[nodiscard]] std::string our_program(const std::string& name);

/// A program that a test started: its output is read, and it ends with the test.
class Child {
 public:
  struct Options {
    bool stopped = false;                  ///< stands before its first instruction until go()
    std::vector<std::string> environment;  ///< added to ours: "NAME=value"
  };
  explicit Child(const std::vector<std::string>& command) : Child(command, Options{}) {}
  Child(const std::vector<std::string>& command, Options options);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void go();
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] ProcessKey key() const;
  void signal(int number) const;
  /// Waits for its end. Its exit code, or 128 + the signal that ended it.
  int wait();
  [[nodiscard]] bool running();
  /// What it has written so far, both outputs together; with wait() before it: all.
  [[nodiscard]] std::string output();
  /// Reads until the text appears in the output; false after `seconds`.
  [[nodiscard]] bool wait_for(const std::string& text, double seconds);

 private:
  void read_available(int timeout_ms);
  pid_t pid_ = -1;
  std::optional<int> status_;
  UniqueFd gate_;
  UniqueFd output_fd_;
  std::string output_;
};

/// The key of a live process, from /proc.
[[nodiscard]] ProcessKey key_of(pid_t pid);
/// CPU time of a live process with all its threads, from /proc/PID/schedstat of each: nanoseconds.
[[nodiscard]] uint64_t cpu_time_ns(pid_t pid);

}  // namespace stackwatch
