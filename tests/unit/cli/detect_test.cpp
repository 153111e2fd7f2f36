// SPDX-License-Identifier: Apache-2.0
// `stackwatch detect`, the program itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "core/unique_fd.h"
#include "program.h"

namespace stackwatch {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// The program with a pipe to write to, and what it answers.
class Detect {
 public:
  explicit Detect(std::vector<std::string> arguments = {}) {
    std::signal(SIGPIPE, SIG_IGN);
    arguments.insert(arguments.begin(), {"stackwatch", "detect"});
    int in[2];
    int out[2];
    int err[2];
    EXPECT_EQ(pipe2(in, O_CLOEXEC) + pipe2(out, O_CLOEXEC) + pipe2(err, O_CLOEXEC), 0);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      dup2(err[1], STDERR_FILENO);
      execv(STACKWATCH_PROGRAM, argv.data());
      _exit(127);
    }
    for (const int fd : {in[0], out[1], err[1]}) close(fd);
    in_.reset(in[1]);
    out_.reset(out[0]);
    err_.reset(err[0]);
  }
  ~Detect() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Detect(const Detect&) = delete;
  Detect& operator=(const Detect&) = delete;

  void say(const std::string& text) const {
    EXPECT_EQ(write(in_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  /// The next line, if it comes without more input; with a deadline for a program that waits for ever.
  [[nodiscard]] std::string answer() const {
    std::string text;
    char c = 0;
    pollfd entry{out_.get(), POLLIN, 0};
    while (!text.ends_with('\n') && poll(&entry, 1, 30'000) == 1 && read(out_.get(), &c, 1) == 1) text += c;
    return text;
  }
  Finished finish(bool close_input = true) {
    if (close_input) in_.reset();
    Finished result{-1, rest(out_.get()), rest(err_.get())};
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return result;
  }

 private:
  static std::string rest(int fd) {
    std::string text;
    char chunk[4096];
    for (ssize_t count = 0; (count = read(fd, chunk, sizeof(chunk))) > 0;)
      text.append(chunk, static_cast<size_t>(count));
    return text;
  }
  pid_t pid_ = 0;
  UniqueFd in_;
  UniqueFd out_;
  UniqueFd err_;
};

Finished detect(const std::string& csv, std::vector<std::string> arguments = {}) {
  Detect program(std::move(arguments));
  program.say(csv);
  return program.finish();
}

TEST(Detect, AnUnreadableLineEndsItWithTheEarlierOnesAnswered) {
  const Finished result = detect("timestamp,value\n2026-11-22 12:00:00,1\n2026-11-22 12:05:00,one\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, StartsWith("2026-11-22 12:00:00,0."));
  EXPECT_EQ(std::ranges::count(result.out, '\n'), 1);
  EXPECT_THAT(result.err, StartsWith("stackwatch: line 3"));
  EXPECT_EQ(std::ranges::count(result.err, '\n'), 1);
}

TEST(Detect, ItEndsAtTheBadLineAndDoesNotWaitForMore) {
  Detect program;
  program.say("timestamp,value\n1,x\n");
  EXPECT_EQ(program.finish(false).exit_code, 1);
}

TEST(Detect, AnEmptyInputAndAnEndlessLineAreErrors) {
  EXPECT_EQ(detect("").exit_code, 1);
  Detect program;
  program.say("timestamp,value\n");
  const std::string part(60'000, '1');
  for (int i = 0; i < 18; ++i) program.say(part);
  const Finished result = program.finish();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("1048576"));
}

TEST(Detect, WrongUseIsTwo) {
  EXPECT_EQ(detect("timestamp,value\n1,2\n", {"--columns", "other"}).exit_code, 2);
  EXPECT_EQ(detect("", {"--colums", "a"}).exit_code, 2);
}

TEST(Detect, EachLineIsAnsweredBeforeTheNextIsRead) {
  Detect program;
  program.say("timestamp,value\n");
  for (int i = 0; i < 50; ++i) {
    program.say(std::to_string(i) + ",5\n");
    EXPECT_THAT(program.answer(), StartsWith(std::to_string(i) + ",0."));
  }
  program.say("50,");  // incomplete: no answer yet
  program.say("5\n");
  EXPECT_THAT(program.answer(), StartsWith("50,"));
  EXPECT_EQ(program.finish().exit_code, 0);
}

TEST(Detect, ALastLineWithoutAnEndIsALine) {
  const Finished result = detect("timestamp,value\r\n1,2\r\n\r\n2,nan\r\n3,");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(std::ranges::count(result.out, '\n'), 3);
  EXPECT_THAT(result.out, HasSubstr("\n3,0."));
}

TEST(Detect, AnswersDoNotDependOnHowTheInputIsCutOrHowItGoesOn) {
  std::string csv = "timestamp,a,b\n";
  for (int i = 0; i < 300; ++i) {
    csv += std::to_string(i) + "," + std::to_string(i * 7919 % 13) + "," + (i == 250 ? "900" : "1") + "\n";
  }
  const std::string whole = detect(csv).out;
  Detect program;
  for (size_t at = 0; at < csv.size(); at += 7) program.say(csv.substr(at, 7));
  EXPECT_EQ(program.finish().out, whole);
  const std::string half = detect(csv.substr(0, csv.find("\n200,") + 1)).out;
  EXPECT_TRUE(whole.starts_with(half));
  EXPECT_EQ(std::ranges::count(half, '\n'), 200);
}

TEST(Detect, ColumnsThatAreNotAskedForAreNotRead) {
  std::string csv = "timestamp,a,b\n";
  std::string text = "timestamp,a,b\n";
  for (int i = 0; i < 100; ++i) {
    csv += std::to_string(i) + "," + std::to_string(i % 5) + ",1\n";
    text += std::to_string(i) + "," + std::to_string(i % 5) + ",words\n";
  }
  EXPECT_EQ(detect(text, {"--columns", "a"}).out, detect(csv, {"--columns", "a"}).out);
  EXPECT_EQ(detect(text).exit_code, 1);
}

}  // namespace
}  // namespace stackwatch
