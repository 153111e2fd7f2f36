// SPDX-License-Identifier: Apache-2.0
// The daemon and `count` within pid and mount namespaces of their own, and targets in those below theirs. The kernel
// side only knows the pids of the initial namespace; people are shown those of the namespace that we run in.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <optional>
#include <string>
#include <vector>

#include "daemon/procfs.h"
#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const std::vector<std::string> kContainer = {"unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"};

std::string why_no_namespaces() {
  std::vector<std::string> command = kContainer;
  command.emplace_back("true");
  const Answer answer = run(command);
  return answer.exit_code == 0 ? "" : "namespaces of its own: " + answer.output;
}

#define REQUIRE_NAMESPACES() \
  STACKWATCH_REQUIRE_BPF();  \
  if (const std::string why = why_no_namespaces(); !why.empty()) GTEST_SKIP() << "REQUIRES " << why

/// A shell script in a container.
Answer run_inside(const std::string& script) {
  std::vector<std::string> command = kContainer;
  command.insert(command.end(), {"sh", "-c", script});
  return run(command);
}

std::string count(const std::string& arguments) { return our_program("stackwatch") + " count " + arguments; }

TEST(Namespaces, CountInAContainerTakesItsPids) {
  REQUIRE_NAMESPACES();
  const Answer answer = run_inside(test_program("burn") + " --seconds 20 & echo pid $!; " +
                                   count("-p $! -d 2 --probe on_cpu,off_cpu,memory --format folded") + "; kill $!; " +
                                   count("-p 4000000 -d 1"));
  EXPECT_THAT(answer.output, HasSubstr("burn;"));
  EXPECT_THAT(answer.output, HasSubstr("burn_most"));
  EXPECT_THAT(answer.output, HasSubstr("process 4000000"));
  EXPECT_EQ(answer.exit_code, 1) << "there is no such pid in it";
}

TEST(Namespaces, CountInAContainerFindsTheAllocator) {
  REQUIRE_NAMESPACES();
  const TemporaryDirectory directory;
  const std::string said = directory.path() + "/said";
  const Answer answer = run_inside(test_program("leaker") + " 60 > " + said + " & L=$!; i=0; until grep -q ready " +
                                   said + " || [ $i -ge 100 ]; do sleep 0.1; i=$((i+1)); done; kill -USR1 $L; " +
                                   count("-p $L -d 2 --probe memory --format folded") + "; kill $L");
  EXPECT_THAT(answer.output, HasSubstr("main;leak;site_b "));
}

TEST(Namespaces, CountInAContainerKnowsTheChildrenOfACommandByName) {
  REQUIRE_NAMESPACES();
  const Answer answer = run_inside(count("--format json -- sh -c '" + test_program("burn") + " --seconds 2; exit 3'"));
  EXPECT_EQ(answer.exit_code, 3);
  EXPECT_THAT(answer.output, HasSubstr("burn_most"));
  EXPECT_THAT(answer.output, Not(HasSubstr("\"pid\":0")));
}

TEST(Namespaces, ADaemonInAContainerShowsItsPids) {
  REQUIRE_NAMESPACES();
  const TemporaryDirectory directory;
  const std::string config = directory.write("c.toml",
                                             "[ranking]\nmax_suspects = 0\n[survey]\nenabled = false\n"
                                             "[[watch]]\nname = \"burn\"\nprobes = [\"on_cpu\", \"memory\"]\n");
  const std::string client = our_program("stackwatch");
  // A socket of its own, which the verbs find by the environment.
  const Answer answer =
      run_inside("export STACKWATCH_SOCKET=" + directory.path() + "/s; " + our_program("stackwatchd") +
                 " --foreground --config " + config + " --socket $STACKWATCH_SOCKET --state-dir " + directory.path() +
                 " >/dev/null 2>&1 & D=$!; " + test_program("burn") +
                 " --seconds 60 & T=$!; "
                 "i=0; while [ $i -lt 100 ] && ! " +
                 client + " status >/dev/null 2>&1; do sleep 0.1; i=$((i+1)); done; sleep 6; echo \"target <$T>\"; " +
                 client + " attachments; " + client + " top --once; " + client + " stacks $T; " + client +
                 " run -- sh -c 'echo inner'; kill $T $D; wait");
  EXPECT_THAT(answer.output, HasSubstr("target <"));
  const size_t at = answer.output.find("target <");
  ASSERT_NE(at, std::string::npos) << answer.output;
  const std::string pid = answer.output.substr(at + 8, answer.output.find('>', at) - at - 8);
  EXPECT_LT(pid.size(), 3U) << "a young namespace has small pids";
  EXPECT_THAT(answer.output, ::testing::ContainsRegex("[ \n]" + pid + "  burn +on_cpu,memory"));
  EXPECT_THAT(answer.output, HasSubstr("burn[" + pid + "] on_cpu"));
  EXPECT_THAT(answer.output, HasSubstr("burn_most"));
  EXPECT_THAT(answer.output, HasSubstr("inner"));
}

/// The row of the only attached process that is called so.
std::optional<int32_t> attached_pid(const DaemonUnderTest& daemon, const std::string& comm) {
  const rapidjson::Document rows = daemon.ask({"attachments", "--json"}).json();
  for (const auto& row : rows["attachments"].GetArray()) {
    if (row["process"]["comm"].GetString() == comm) return row["process"]["pid"].GetInt();
  }
  return std::nullopt;
}

// Their files are in a file system that nobody else sees.
TEST(Namespaces, TargetsInAContainerAreShownByTheirOuterPidsAndHaveNames) {
  REQUIRE_NAMESPACES();
  DaemonUnderTest daemon(
      "[ranking]\nmax_suspects = 0\n[[watch]]\nname = \"hidden\"\nprobes = [\"on_cpu\", \"memory\"]\n"
      "[[watch]]\nname = \"leak\"\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  std::vector<std::string> command = kContainer;
  command.insert(command.end(),
                 {"sh", "-c",
                  "mount -t tmpfs none /mnt && cp " + test_program("burn") + " /mnt/hidden && cp " +
                      test_program("leaker") + " /mnt/leak && { /mnt/hidden --seconds 60 & exec /mnt/leak 60; }"});
  Child container(command);
  std::optional<int32_t> burning;
  std::optional<int32_t> leaking;
  ASSERT_TRUE(eventually(15, [&] {
    burning = attached_pid(daemon, "hidden");
    leaking = attached_pid(daemon, "leak");
    return burning && leaking;
  })) << container.output();
  EXPECT_EQ(Procfs().read(*burning, "comm"), "hidden\n") << "it is the pid that our /proc has";
  const std::string text = std::to_string(*burning);
  EXPECT_TRUE(eventually(20, [&] {
    return daemon.ask({"stacks", text}).output.find("burn_most") != std::string::npos;
  })) << daemon.ask({"stacks", text}).output;
  const auto count_one = [](int32_t pid, const std::string& probe) {
    return run({our_program("stackwatch"), "count", "-p", std::to_string(pid), "-d", "1", "--probe", probe, "--format",
                "folded"})
        .output;
  };
  EXPECT_THAT(count_one(*burning, "on_cpu"), AllOf(HasSubstr("hidden;"), HasSubstr("burn_most")));
  ASSERT_TRUE(container.wait_for("ready 0\n", 20)) << container.output();
  ::kill(*leaking, SIGUSR1);
  EXPECT_THAT(count_one(*leaking, "memory"), AllOf(StartsWith("leak;"), HasSubstr("main;leak;site_b ")));
}

}  // namespace
}  // namespace stackwatch
