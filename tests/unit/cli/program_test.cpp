// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <rapidjson/document.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/unit/cli/fake_daemon.h"
#include "tests/unit/cli/program.h"

namespace stackwatch {
namespace {

rapidjson::Document parse(const std::string& text) {
  rapidjson::Document document;
  document.Parse(text.c_str());
  EXPECT_FALSE(document.HasParseError()) << text;
  EXPECT_EQ(std::ranges::count(text, '\n'), 1);
  return document;
}

class ProgramTest : public testing::Test {
 protected:
  void SetUp() override {
    unsetenv("STACKWATCH_SOCKET");
    daemon_.backend.all_alerts = {FakeBackend::make_alert("new", AlertState::kFiring, 1'795'348'800'000'000'000),
                                  FakeBackend::make_alert("old", AlertState::kResolved, 1'700'000'000'000'000'000)};
    daemon_.start();
  }
  Finished ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--socket", daemon_.path});
    return run(std::move(arguments));
  }

  FakeDaemon daemon_;
};

TEST_F(ProgramTest, WrongUseIsTwo) {
  expect_one_line_error(run({}), 2);
  expect_one_line_error(run({"frobnicate"}), 2);
  expect_one_line_error(ask({"status", "--colour"}), 2);
  expect_one_line_error(ask({"top", "--by", "smell"}), 2);
}

TEST_F(ProgramTest, NoDaemonIsFourAndSaysHowToStartIt) {
  const Finished result = run({"status", "--socket", daemon_.dir / "none"});
  expect_one_line_error(result, 4);
  EXPECT_NE(result.err.find("systemctl start"), std::string::npos);
}

TEST_F(ProgramTest, WhatTheDaemonRefusesIsOne) {
  EXPECT_EQ(ask({"stacks", "1"}).exit_code, 1);
  expect_one_line_error(ask({"stacks", "4712"}), 1);
  expect_one_line_error(ask({"show", "nothing"}), 1);
  EXPECT_EQ(ask({"watch", "remove", "nothing"}).exit_code, 1);
  EXPECT_EQ(ask({"watch", "add", "--pid", "1"}).exit_code, 1);
}

TEST_F(ProgramTest, AFullDiskIsAnError) {
  const UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  Program program({"status", "--socket", daemon_.path}, full.get());
  const Finished result = program.finish();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("No space left"), std::string::npos) << result.err;
}

TEST_F(ProgramTest, AReaderThatHasGoneEndsItSilently) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  close(ends[0]);
  Program program({"status", "--socket", daemon_.path}, ends[1]);
  close(ends[1]);
  const Finished result = program.finish();
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(result.exit_code, 0);
}

TEST_F(ProgramTest, EveryVerbAnswersInJson) {
  EXPECT_STREQ(parse(ask({"status", "--json"}).out)["census_method"].GetString(), "fake");
  EXPECT_EQ(parse(ask({"top", "--json", "-n", "1"}).out)["ranking"].Size(), 1U);
  EXPECT_EQ(parse(ask({"attachments", "--json"}).out)["attachments"][0]["process"]["pid"].GetInt(), 4711);
  EXPECT_EQ(parse(ask({"stacks", "4711", "--json"}).out)["stacks"].Size(), 2U);
  EXPECT_EQ(parse(ask({"stacks", "4711", "--format", "json", "--series"}).out)["step_s"].GetDouble(), 1.0);
  EXPECT_EQ(parse(ask({"alerts", "--json"}).out)["alerts"].Size(), 2U);
  EXPECT_EQ(parse(ask({"alerts", "--json", "--state", "firing"}).out)["alerts"].Size(), 1U);
  EXPECT_EQ(parse(ask({"alerts", "--json", "--since", "2026-01-01T00:00:00Z"}).out)["alerts"].Size(), 1U);
  EXPECT_EQ(parse(ask({"top", "--by", "stacks", "--json"}).out)["stacks"].Size(), 1U);
  EXPECT_STREQ(parse(ask({"stacks", "4711", "--json", "--probe", "off_cpu"}).out)["probe"].GetString(), "off_cpu");
  EXPECT_STREQ(parse(ask({"watch", "add", "--name", "x", "--json"}).out)["id"].GetString(), "added-1");
  EXPECT_EQ(parse(ask({"watch", "list", "--json"}).out)["watches"].Size(), 1U);
  EXPECT_STREQ(parse(ask({"watch", "remove", "added-1", "--json"}).out)["id"].GetString(), "added-1");
  EXPECT_STREQ(parse(ask({"show", "old", "--json"}).out)["resolution"].GetString(), "back to its baseline");
}

TEST_F(ProgramTest, EveryVerbAnswersInPlainTextWhereNoTerminalIs) {
  for (const auto& arguments : std::vector<std::vector<std::string>>{{"status"},
                                                                     {"top"},
                                                                     {"top", "--once"},
                                                                     {"top", "--by", "stacks"},
                                                                     {"watch", "list"},
                                                                     {"attachments"},
                                                                     {"stacks", "4711"},
                                                                     {"stacks", "4711", "--series"},
                                                                     {"alerts"},
                                                                     {"show", "new"}}) {
    const Finished result = ask(arguments);
    EXPECT_EQ(result.exit_code, 0) << arguments[0] << result.err;
    EXPECT_EQ(result.err, "");
    EXPECT_NE(result.out, "");
    EXPECT_EQ(result.out.find('\x1b'), std::string::npos) << result.out;
  }
  EXPECT_EQ(ask({"stacks", "4711", "--format", "folded"}).out,
            "redis-server;main;work 70\nredis-server;main;idle 30\n");
}

TEST_F(ProgramTest, TheSocketMayComeFromTheEnvironment) {
  setenv("STACKWATCH_SOCKET", daemon_.path.c_str(), 1);
  EXPECT_EQ(run({"status", "--json"}).exit_code, 0);
  unsetenv("STACKWATCH_SOCKET");
}

TEST_F(ProgramTest, FollowingPrintsEachChangeAtOnce) {
  daemon_.announce(FakeBackend::make_alert("fresh", AlertState::kFiring, 1'795'348'800'000'000'000));
  const Program json({"alerts", "--follow", "--json", "--socket", daemon_.path});
  EXPECT_STREQ(parse(json.line())["id"].GetString(), "fresh");
  const Program text({"alerts", "--follow", "--since", "2026-01-01", "--socket", daemon_.path});
  EXPECT_TRUE(text.line().ends_with(" new\n"));  // the past first
  EXPECT_TRUE(text.line().ends_with(" fresh\n"));
}

TEST_F(ProgramTest, FollowingEndsWhenItsReaderHasGoneThoughNothingHappens) {
  daemon_.announce(FakeBackend::make_alert("fresh", AlertState::kFiring, 1'795'348'800'000'000'000));
  Program program({"alerts", "--follow", "--json", "--socket", daemon_.path});
  EXPECT_NE(program.line(), "");
  program.close_output();
  const Finished result = program.finish();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
}

TEST_F(ProgramTest, FollowingADaemonThatEndsIsAnError) {
  daemon_.announce(FakeBackend::make_alert("fresh", AlertState::kFiring, 1'795'348'800'000'000'000));
  Program program({"alerts", "--follow", "--json", "--socket", daemon_.path});
  EXPECT_NE(program.line(), "");
  daemon_.stop();
  const Finished result = program.finish();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("closed the connection"), std::string::npos) << result.err;
}

/// The exit code of `status` as another user: 127 where that user may not even run the program.
int exit_code_as(uid_t uid, gid_t gid, std::string socket_path) {
  const pid_t child = fork();
  if (child == 0) {
    const bool changed = setgroups(0, nullptr) == 0 && setgid(gid) == 0 && setuid(uid) == 0;
    const UniqueFd null(open("/dev/null", O_WRONLY | O_CLOEXEC));
    dup2(null.get(), STDOUT_FILENO);
    dup2(null.get(), STDERR_FILENO);
    std::string words[] = {"stackwatch", "status", "--socket", std::move(socket_path)};
    char* const argv[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), nullptr};
    if (changed) execv(STACKWATCH_PROGRAM, argv);
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(ProgramAccessTest, MembersOfTheGroupMayReadAndStrangersMayNot) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
  constexpr uid_t kNobody = 65534;
  const group* const readers = getgrnam("daemon");
  ASSERT_NE(readers, nullptr);
  const gid_t reader = readers->gr_gid;
  FakeDaemon daemon;
  daemon.start(64, "daemon");
  std::filesystem::permissions(daemon.dir / "", static_cast<std::filesystem::perms>(0755));
  const int member = exit_code_as(kNobody, reader, daemon.path);
  if (member == 127) GTEST_SKIP() << "others may not run programs in the build directory";
  EXPECT_EQ(member, 0);
  EXPECT_EQ(exit_code_as(kNobody, kNobody, daemon.path), 3);
}

/// A terminal of our own with the program on it.
class Terminal {
 public:
  explicit Terminal(std::vector<std::string> arguments) {
    master_.reset(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    EXPECT_EQ(grantpt(master_.get()), 0);
    EXPECT_EQ(unlockpt(master_.get()), 0);
    const std::string name = ptsname(master_.get());
    // Held open, so that the settings that the program leaves can be read after its end.
    slave_.reset(open(name.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    arguments.insert(arguments.begin(), "stackwatch");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      setsid();
      const int terminal = open(name.c_str(), O_RDWR);  // becomes the controlling one
      for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(terminal, fd);
      setenv("TERM", "xterm", 1);
      execv(STACKWATCH_PROGRAM, argv.data());
      _exit(127);
    }
  }
  ~Terminal() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// Reads until the text appears `times` times in all that was read; false where it does not within 10 s.
  bool shows(const std::string& text, int times = 1) {
    for (;;) {
      int found = 0;
      for (size_t at = 0; (at = seen_.find(text, at)) != std::string::npos; at += text.size()) ++found;
      if (found >= times) return true;
      pollfd entry{master_.get(), POLLIN, 0};
      if (poll(&entry, 1, 10'000) <= 0) return false;
      char chunk[4096];
      const ssize_t count = read(master_.get(), chunk, sizeof(chunk));
      if (count <= 0) return false;
      seen_.append(chunk, static_cast<size_t>(count));
    }
  }
  void type(std::string_view keys) const { static_cast<void>(!write(master_.get(), keys.data(), keys.size())); }
  void send_signal(int signal) const { kill(pid_, signal); }
  int wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  bool echoes() const {
    termios settings{};
    tcgetattr(slave_.get(), &settings);
    return (settings.c_lflag & ECHO) != 0;
  }
  const std::string& seen() const { return seen_; }

 private:
  UniqueFd master_;
  UniqueFd slave_;
  pid_t pid_ = 0;
  std::string seen_;
};

TEST_F(ProgramTest, TopOnATerminalIsRefreshedAndGivesTheScreenBack) {
  Terminal terminal({"top", "--socket", daemon_.path});
  EXPECT_TRUE(terminal.shows("\x1b[?1049h"));
  EXPECT_TRUE(terminal.shows("4711", 2)) << terminal.seen();
  EXPECT_FALSE(terminal.echoes());
  terminal.type("q");
  EXPECT_TRUE(terminal.shows("\x1b[?1049l")) << terminal.seen();
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_TRUE(terminal.echoes());
}

TEST_F(ProgramTest, TopByStacksOnATerminalIsRefreshedToo) {
  Terminal terminal({"top", "--by", "stacks", "--socket", daemon_.path});
  EXPECT_TRUE(terminal.shows("dictFind < aeMain < main", 2)) << terminal.seen();
  terminal.type("q");
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(ProgramTest, TopGivesTheScreenBackWhenItIsInterruptedOrTheDaemonEnds) {
  {
    Terminal terminal({"top", "--socket", daemon_.path});
    EXPECT_TRUE(terminal.shows("4711"));
    terminal.type("\x03");  // ^C
    EXPECT_TRUE(terminal.shows("\x1b[?1049l")) << terminal.seen();
    EXPECT_EQ(terminal.wait(), 0);
    EXPECT_TRUE(terminal.echoes());
  }
  Terminal terminal({"top", "--socket", daemon_.path});
  EXPECT_TRUE(terminal.shows("4711"));
  daemon_.stop();
  EXPECT_TRUE(terminal.shows("\x1b[?1049l")) << terminal.seen();
  EXPECT_TRUE(terminal.shows("stackwatch: ask the daemon")) << terminal.seen();
  EXPECT_EQ(terminal.wait(), 1);
}

TEST_F(ProgramTest, ColourIsForTerminalsAndNotWithNoColor) {
  Terminal coloured({"top", "--once", "--socket", daemon_.path});
  EXPECT_TRUE(coloured.shows("4712"));
  EXPECT_NE(coloured.seen().find("\x1b["), std::string::npos);
  setenv("NO_COLOR", "1", 1);
  Terminal plain({"top", "--once", "--socket", daemon_.path});
  EXPECT_TRUE(plain.shows("4712"));
  EXPECT_EQ(plain.seen().find("\x1b["), std::string::npos) << plain.seen();
  unsetenv("NO_COLOR");
}

}  // namespace
}  // namespace stackwatch
