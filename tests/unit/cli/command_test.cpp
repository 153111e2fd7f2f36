// SPDX-License-Identifier: Apache-2.0
#include "cli/command.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "cli/signals.h"

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

class CommandTest : public testing::Test {
 protected:
  CommandTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "stackwatch-command-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    sigemptyset(&inherited_.mask);
  }
  ~CommandTest() override { std::filesystem::remove_all(directory_); }

  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }
  [[nodiscard]] std::string content(const std::string& name) const {
    std::ifstream file(path(name));
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  Result<HeldCommand> hold(const std::vector<std::string>& words) { return HeldCommand::fork(words, inherited_); }
  int run(const std::vector<std::string>& words) {
    auto command = hold(words);
    EXPECT_TRUE(command);
    EXPECT_EQ(command->release(), 0);
    return command->wait_end();
  }
  int shell(const std::string& script) { return run({"/bin/sh", "-c", script}); }

  std::string directory_;
  InheritedSignals inherited_;
};

TEST_F(CommandTest, WhatCannotBeExecutedSaysWhyAsAShellDoes) {
  const struct {
    std::string program;
    int error;
    int exit_code;
  } cases[] = {{"/nonexistent/program", ENOENT, 127},
               {"stackwatch-no-such-program", ENOENT, 127},
               {directory_, EACCES, 126},
               {"/etc/passwd", EACCES, 126}};
  for (const auto& expected : cases) {
    auto command = hold({expected.program});
    ASSERT_TRUE(command);
    EXPECT_EQ(command->release(), expected.error) << expected.program;
    EXPECT_EQ(command->wait_end(), expected.exit_code) << expected.program;
    EXPECT_EQ(exec_failure_exit_code(expected.error), expected.exit_code);
  }
}

TEST_F(CommandTest, NothingRunsBeforeItIsReleased) {
  auto command = hold({"/bin/sh", "-c", "echo ran > " + path("ran")});
  ASSERT_TRUE(command);
  usleep(100'000);
  EXPECT_FALSE(std::filesystem::exists(path("ran")));
  EXPECT_FALSE(command->poll_end());
  std::string name;
  std::ifstream("/proc/" + std::to_string(command->pid()) + "/comm") >> name;
  EXPECT_NE(name, "sh");
  EXPECT_EQ(command->release(), 0);
  EXPECT_EQ(command->wait_end(), 0);
  EXPECT_EQ(content("ran"), "ran\n");
}

TEST_F(CommandTest, WhatIsNotReleasedNeverRuns) {
  pid_t pid = 0;
  {
    auto command = hold({"/bin/sh", "-c", "echo ran > " + path("ran")});
    ASSERT_TRUE(command);
    pid = command->pid();
  }
  EXPECT_FALSE(std::filesystem::exists(path("ran")));
  EXPECT_EQ(kill(pid, 0), -1) << "the held child is still there";
}

TEST_F(CommandTest, WhatIsHeldEndsWithItsHolder) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const pid_t holder = fork();
  if (holder == 0) {
    auto command = hold({"/bin/sh", "-c", "echo ran > " + path("ran")});
    const pid_t pid = command->pid();
    static_cast<void>(!write(fds[1], &pid, sizeof(pid)));
    raise(SIGKILL);
  }
  close(fds[1]);
  waitpid(holder, nullptr, 0);
  pid_t held = 0;
  ASSERT_EQ(read(fds[0], &held, sizeof(held)), static_cast<ssize_t>(sizeof(held)));
  char byte = 0;
  EXPECT_EQ(read(fds[0], &byte, 1), 0) << "the held child has our pipe still open";  // until it ends
  close(fds[0]);
  EXPECT_FALSE(std::filesystem::exists(path("ran")));
}

TEST_F(CommandTest, ExitCodesAndSignalsAreTold) {
  EXPECT_EQ(shell("exit 0"), 0);
  EXPECT_EQ(shell("exit 7"), 7);
  EXPECT_EQ(shell("exit 255"), 255);
  EXPECT_EQ(shell("kill -TERM $$"), 128 + SIGTERM);
  EXPECT_EQ(shell("kill -KILL $$"), 128 + SIGKILL);
}

TEST_F(CommandTest, ASignalBeforeTheReleaseEndsItLikeAnyOther) {
  auto command = hold({"/bin/sleep", "60"});
  ASSERT_TRUE(command);
  command->signal(SIGTERM);
  EXPECT_EQ(command->release(), 0);
  EXPECT_EQ(command->wait_end(), 128 + SIGTERM);
  command->signal(SIGTERM);  // it has ended: whoever has the pid now gets nothing
}

TEST_F(CommandTest, ItInheritsNoDescriptorOfOurs) {
  const int own = open("/dev/null", O_RDONLY | O_CLOEXEC);
  auto held = hold({"/bin/sh", "-c", "ls /proc/self/fd > " + path("held")});
  auto second = hold({"/bin/sh", "-c", "ls /proc/self/fd > " + path("second")});  // while the first is held
  ASSERT_TRUE(held && second);
  ASSERT_EQ(second->release(), 0);
  ASSERT_EQ(second->wait_end(), 0);
  ASSERT_EQ(held->release(), 0);
  ASSERT_EQ(held->wait_end(), 0);
  // What a child of ours gets without any of this.
  ASSERT_EQ(std::system(("ls /proc/self/fd > " + path("plain")).c_str()), 0);
  close(own);
  EXPECT_EQ(content("held"), content("plain"));
  EXPECT_EQ(content("second"), content("plain"));
}

TEST_F(CommandTest, SignalsAreAsTheyWereWhenWeWereStarted) {
  auto inbox = SignalInbox::open();  // blocks and changes what count changes
  ASSERT_TRUE(inbox);
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  inherited_ = inbox->inherited();
  // cp itself: a shell would set its children's signals anew.
  EXPECT_EQ(run({"/bin/cp", "/proc/self/status", path("plain")}), 0);
  EXPECT_THAT(content("plain"), HasSubstr("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"));

  inherited_.pipe_ignored = true;
  sigaddset(&inherited_.mask, SIGUSR1);
  EXPECT_EQ(run({"/bin/cp", "/proc/self/status", path("ignored")}), 0);
  EXPECT_THAT(content("ignored"), HasSubstr("SigBlk:\t0000000000000200\nSigIgn:\t0000000000001000\n"));
  std::signal(SIGPIPE, before);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

class SignalInboxTest : public testing::Test {
 protected:
  ~SignalInboxTest() override {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
  }
};

TEST_F(SignalInboxTest, TellsWhoSentASignal) {
  auto inbox = SignalInbox::open();
  ASSERT_TRUE(inbox);
  EXPECT_FALSE(inbox->next());
  kill(getpid(), SIGTERM);
  const auto signal = inbox->next();
  ASSERT_TRUE(signal);
  EXPECT_EQ(signal->number, SIGTERM);
  EXPECT_FALSE(signal->from_terminal);
  EXPECT_TRUE(asks_to_end(SIGINT) && asks_to_end(SIGHUP) && !asks_to_end(SIGUSR1) && !asks_to_end(SIGWINCH));
}

TEST_F(SignalInboxTest, WhatWasIgnoredStaysIgnored) {
  const auto before = std::signal(SIGHUP, SIG_IGN);  // as nohup does
  {
    auto inbox = SignalInbox::open();
    ASSERT_TRUE(inbox);
    kill(getpid(), SIGHUP);
    EXPECT_FALSE(inbox->next());
  }
  std::signal(SIGHUP, before);
}

TEST_F(SignalInboxTest, PassesSignalsOn) {
  auto inbox = SignalInbox::open();
  ASSERT_TRUE(inbox);
  auto command =
      HeldCommand::fork({"/bin/sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.01; done"}, inbox->inherited());
  ASSERT_TRUE(command);
  ASSERT_EQ(command->release(), 0);
  usleep(200'000);                     // the shell must have set its trap
  pass_on({SIGUSR1, true}, *command);  // a key: the command has it from the terminal
  usleep(100'000);
  EXPECT_FALSE(command->poll_end());
  pass_on({SIGUSR1, false}, *command);
  EXPECT_EQ(command->wait_end(), 5);
}

}  // namespace
}  // namespace stackwatch
