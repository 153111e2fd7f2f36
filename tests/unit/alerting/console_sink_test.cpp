// SPDX-License-Identifier: Apache-2.0
#include "daemon/alerting/console_sink.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "daemon/alerting/message.h"
#include "tests/unit/alerting/sample_alert.h"

namespace stackwatch {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Pipe {
  Pipe() { EXPECT_EQ(pipe2(fds.data(), O_CLOEXEC), 0); }
  ~Pipe() {
    for (const int fd : fds) {
      if (fd >= 0) close(fd);
    }
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_reader() { close(std::exchange(fds[0], -1)); }
  std::array<int, 2> fds{-1, -1};
};

std::string read_some(int fd) {
  std::string buffer(1 << 16, '\0');
  const ssize_t size = read(fd, buffer.data(), buffer.size());
  return size < 0 ? std::strerror(errno) : buffer.substr(0, static_cast<size_t>(size));
}

TEST(ConsoleSink, AClosedDescriptorIsAnError) {
  ConsoleSink sink(-1, false);
  EXPECT_FALSE(sink.publish(sample_alert()));
  EXPECT_EQ(sink.lost(), 1U);
}

TEST(ConsoleSink, APipeWithoutReaderIsAnErrorAndNotTheEnd) {
  Pipe pipe;
  pipe.close_reader();
  ConsoleSink sink(pipe.fds[1], false);
  const auto result = sink.publish(sample_alert());  // SIGPIPE would end the test program here
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().why, HasSubstr(std::strerror(EPIPE)));
  sigset_t pending;
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 0) << "nor a signal that strikes later";
}

TEST(ConsoleSink, AFullPipeIsAnErrorAndNotAWait) {
  Pipe pipe;
  ConsoleSink sink(pipe.fds[1], false);
  int published = 0;
  while (sink.publish(sample_alert()) && published < 100'000) ++published;
  EXPECT_GT(published, 10);
  EXPECT_EQ(sink.lost(), 1U);
  read_some(pipe.fds[0]);
  EXPECT_TRUE(sink.publish(sample_alert())) << "works again when there is room";
  EXPECT_EQ(fcntl(pipe.fds[1], F_GETFL) & O_NONBLOCK, 0) << "the flags are shared with others and stay";
}

TEST(ConsoleSink, AFullOrClosedSocketIsAnError) {
  std::array<int, 2> fds{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
  ConsoleSink sink(fds[1], false);
  int published = 0;
  while (sink.publish(sample_alert()) && published < 100'000) ++published;
  EXPECT_GT(published, 10);
  close(fds[0]);
  EXPECT_FALSE(sink.publish(sample_alert()));
  close(fds[1]);
}

TEST(ConsoleSink, AStoppedTerminalIsNotAWait) {
  int master = -1;
  int terminal = -1;
  if (openpty(&master, &terminal, nullptr, nullptr, nullptr) != 0) GTEST_SKIP() << "no pseudo-terminals here";
  ConsoleSink sink(terminal, false);
  int published = 0;
  while (sink.publish(sample_alert()) && published < 100'000) ++published;  // nobody reads the master
  EXPECT_GT(published, 2);
  EXPECT_EQ(sink.lost(), 1U);
  close(terminal);
  close(master);
}

TEST(ConsoleSink, ATerminalThatIsReadGetsEverything) {
  int master = -1;
  int terminal = -1;
  if (openpty(&master, &terminal, nullptr, nullptr, nullptr) != 0) GTEST_SKIP() << "no pseudo-terminals here";
  ConsoleSink sink(terminal, false);
  ASSERT_TRUE(sink.publish(sample_alert()));
  EXPECT_THAT(read_some(master), HasSubstr("dictFind takes 4.3 %"));
  EXPECT_EQ(fcntl(terminal, F_GETFL) & O_NONBLOCK, 0);
  close(terminal);
  close(master);
}

TEST(ConsoleSink, WithoutProcItDoesNotWaitEither) {
  std::array<int, 2> ends{-1, -1};
  Pipe pipe;
  if (openpty(&ends[0], &ends[1], nullptr, nullptr, nullptr) != 0) GTEST_SKIP() << "no pseudo-terminals here";
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", "/proc", "tmpfs", 0, nullptr) != 0)
      _exit(77);
    alarm(20);  // ends the child where it waits
    bool good = true;
    for (const int fd : {ends[1], pipe.fds[1]}) {
      ConsoleSink sink(fd, false);
      good = good && sink.publish(sample_alert()).has_value();
      for (int i = 0; i < 100'000 && sink.publish(sample_alert()); ++i) {
      }
      good = good && sink.lost() == 1;
    }
    _exit(good ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  close(ends[0]);
  close(ends[1]);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "needs a mount namespace of its own (root)";
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(ConsoleSink, WritesWholeAlerts) {
  Pipe pipe;
  ConsoleSink sink(pipe.fds[1], false);
  Alert alert = sample_alert();
  alert.stack.assign(30, std::string(300, 'x'));
  ASSERT_TRUE(sink.publish(alert));
  EXPECT_EQ(read_some(pipe.fds[0]), console_text(alert, false));
}

TEST(ConsoleText, ShowsWhatAPersonNeeds) {
  setenv("TZ", "UTC", 1);
  Alert alert = sample_alert();
  alert.contributors = {{"call", 0.5, 0.53}, {"[process, cores]", 0.31, 0.93}};
  alert.lost[LossReason::kMapFull] = 12;
  EXPECT_EQ(console_text(alert, false),
            "12:03:45 firing   redis-server[4711]: dictFind takes 4.3 % of its CPU time, was 1.1 %, since 12:03:20 "
            "(composition)\n"
            "  stack   main → aeMain → call → dictFind\n"
            "  change  before 1.1 %, after 4.3 % (+0.03 cores), since 12:03:20, score 21.4, 12 samples lost\n"
            "  also    call 50.0 % → 53.0 %, the process 0.31 cores → 0.93 cores\n"
            "  alert   0123456789ab\n");
  unsetenv("TZ");
}

TEST(ConsoleText, IsShortWhenItIsOver) {
  Alert alert = sample_alert();
  alert.state = AlertState::kResolved;
  alert.resolution = kBackToBaseline;
  const std::string text = console_text(alert, false);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  EXPECT_THAT(text, HasSubstr(" resolved redis-server[4711]: dictFind is back"));
}

TEST(ConsoleText, HasColourOnlyWhereAskedFor) {
  EXPECT_THAT(console_text(sample_alert(), false), Not(HasSubstr("\x1b")));
  EXPECT_THAT(console_text(sample_alert(), true), HasSubstr("\x1b[1;33mfiring"));
}

TEST(ConsoleText, AFunctionThatIsFoundLaterIsToldAsThatWithWhatOtherProbesSaw) {
  Alert alert = sample_alert();
  alert.named_ns = alert.updated_ns;
  alert.parts = {{ProbeKind::kCensus, "rate", "", alert.onset_ns, 0.31, 0.93, "cores", true},
                 {ProbeKind::kBlocked, "wait", "futex\x1b", alert.onset_ns, 0, 2, "threads waiting", false}};
  const std::string text = console_text(alert, false);
  EXPECT_THAT(text, HasSubstr(" named    redis-server[4711]: dictFind takes"));
  EXPECT_THAT(text, HasSubstr("\n  and     the process 0.31 cores → 0.93 cores (rate on census), "
                              "futex\\x1b 0 threads waiting → 2.00 threads waiting (wait on blocked)\n"));
}

TEST(ConsoleText, HostileNamesDoNotReachTheTerminal) {
  Alert alert = sample_alert();
  alert.process.comm = "\x1b[2J";
  alert.frame = "f\n\r\x9b";
  alert.stack = {"\x1b]0;title\x07", alert.frame};
  alert.contributors = {{"\x1b[0m\n", 0, 1}, {"[process, \x1b]", 0, 1}};
  alert.id = "\n";
  const std::string text = console_text(alert, false);
  EXPECT_EQ(text.find_first_of("\x1b\x07\r\x9b"), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 5) << text;
}

TEST(ConsoleText, LongStacksKeepRootAndLeaf) {
  Alert alert = sample_alert();
  alert.stack.clear();
  for (int i = 0; i < 13; ++i) alert.stack.push_back("f" + std::to_string(i));
  EXPECT_THAT(console_text(alert, false), HasSubstr("f3 → f4 → f5"));
  for (int i = 13; i < 100; ++i) alert.stack.push_back("f" + std::to_string(i));
  EXPECT_THAT(console_text(alert, false),
              HasSubstr("stack   f0 → f1 → f2 → f3 → … 88 more … → f92 → f93 → f94 → f95 → f96 → f97 → f98 → f99\n"));
}

TEST(WantsColour, OnlyOnATerminalAndNotWithNoColor) {
  Pipe pipe;
  unsetenv("NO_COLOR");
  setenv("TERM", "xterm", 1);
  EXPECT_FALSE(wants_colour(pipe.fds[1]));
  int master = -1;
  int terminal = -1;
  if (openpty(&master, &terminal, nullptr, nullptr, nullptr) != 0) GTEST_SKIP() << "no pseudo-terminals here";
  EXPECT_TRUE(wants_colour(terminal));
  setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(wants_colour(terminal));
  setenv("NO_COLOR", "", 1);
  EXPECT_TRUE(wants_colour(terminal));
  setenv("TERM", "dumb", 1);
  EXPECT_FALSE(wants_colour(terminal));
  unsetenv("NO_COLOR");
  close(terminal);
  close(master);
}

}  // namespace
}  // namespace stackwatch
