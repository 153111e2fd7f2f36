// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <string>
#include <vector>

#include "core/unique_fd.h"

namespace stackwatch {

struct Finished {
  int exit_code = -1;  ///< 128 and the signal where one ended it
  std::string out;
  std::string err;
};

/// The real program, started and not yet waited for.
class Program {
 public:
  /// `stdout_fd` -1: read by finish().
  explicit Program(std::vector<std::string> arguments, int stdout_fd = -1, const char* program = STACKWATCH_PROGRAM) {
    int out[2];
    int err[2];
    EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(err, O_CLOEXEC), 0);
    arguments.insert(arguments.begin(), "stackwatch");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(stdout_fd >= 0 ? stdout_fd : out[1], STDOUT_FILENO);
      dup2(err[1], STDERR_FILENO);
      execv(program, argv.data());
      _exit(127);
    }
    close(out[1]);
    close(err[1]);
    out_.reset(out[0]);
    err_.reset(err[0]);
  }
  ~Program() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  /// The next line of standard output, with its end.
  std::string line() const {
    std::string text;
    char c = 0;
    while (!text.ends_with('\n') && read(out_.get(), &c, 1) == 1) text += c;
    return text;
  }
  void close_output() { out_.reset(); }
  void send(int signal) const { kill(pid_, signal); }
  Finished finish() {
    Finished result;
    if (out_) result.out = rest_of(out_.get());
    result.err = rest_of(err_.get());
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return result;
  }

 private:
  static std::string rest_of(int fd) {
    std::string text;
    char chunk[65536];
    for (ssize_t count = 0; (count = read(fd, chunk, sizeof(chunk))) > 0;)
      text.append(chunk, static_cast<size_t>(count));
    return text;
  }
  pid_t pid_ = 0;
  UniqueFd out_;
  UniqueFd err_;
};

inline Finished run(std::vector<std::string> arguments, const char* program = STACKWATCH_PROGRAM) {
  return Program(std::move(arguments), -1, program).finish();
}

inline void expect_one_line_error(const Finished& result, int exit_code) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(result.err.starts_with("stackwatch: ")) << result.err;
  EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
  EXPECT_TRUE(result.err.ends_with(")\n")) << "no hint: " << result.err;
}

}  // namespace stackwatch
