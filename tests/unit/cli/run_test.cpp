// SPDX-License-Identifier: Apache-2.0
// `stackwatch run` against a daemon that watches nothing: what becomes of the command.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include "tests/unit/cli/fake_daemon.h"
#include "tests/unit/cli/program.h"

namespace stackwatch {
namespace {

class RunTest : public testing::Test {
 protected:
  std::vector<std::string> command(std::vector<std::string> words) const {
    words.insert(words.begin(), {"run", "--socket", daemon_.path, "--"});
    return words;
  }
  [[nodiscard]] std::string mark() const { return daemon_.dir / "mark"; }
  [[nodiscard]] bool ran() const { return access(mark().c_str(), F_OK) == 0; }

  FakeDaemon daemon_;
};

TEST_F(RunTest, WithoutADaemonTheCommandDoesNotRun) {
  expect_one_line_error(run(command({"touch", mark()})), 4);
  EXPECT_FALSE(ran());
}

TEST_F(RunTest, WhatTheDaemonRefusesDoesNotRun) {
  daemon_.backend.refuse_watches = Error{ErrorKind::kFailed, "add a watch rule", "no room", "remove some"};
  daemon_.start();
  expect_one_line_error(run(command({"touch", mark()})), 1);
  EXPECT_FALSE(ran());
}

TEST_F(RunTest, WhatCannotBeExecutedIsToldAndItsRuleIsTakenBack) {
  daemon_.start();
  const Finished none = run(command({"/nonexistent/program"}));
  EXPECT_EQ(none.exit_code, 127);
  EXPECT_EQ(none.err, "stackwatch: run /nonexistent/program: No such file or directory\n");
  EXPECT_EQ(run(command({"/etc/passwd"})).exit_code, 126);
  daemon_.stop();
  EXPECT_EQ(daemon_.backend.start_times_ns.size(), 2U);
  EXPECT_TRUE(daemon_.backend.watches_.empty());
}

TEST_F(RunTest, TheCommandIsWatchedWithItsChildrenAndItsOutputAndExitCodeArePassedOn) {
  daemon_.start();
  ASSERT_EQ(mkfifo(mark().c_str(), 0600), 0);
  Program program({"run", "--socket", daemon_.path, "--probe", "on_cpu,off_cpu", "-F", "199", "--", "sh", "-c",
                   "echo $$; read x < " + mark() + "; exit 42"});
  const std::string pid = program.line();
  const Finished listed = run({"watch", "list", "--json", "--socket", daemon_.path});
  EXPECT_NE(listed.out.find("\"pid\":" + pid.substr(0, pid.size() - 1) +
                            ",\"probes\":[\"on_cpu\",\"blocked\",\"run_queue\"],\"frequency\":199.0,"
                            "\"children\":true"),
            std::string::npos)
      << listed.out;
  const UniqueFd go(open(mark().c_str(), O_WRONLY | O_CLOEXEC));
  EXPECT_EQ(write(go.get(), "\n", 1), 1);
  const Finished result = program.finish();
  EXPECT_EQ(result.exit_code, 42);
  EXPECT_EQ(result.err, "");
  daemon_.stop();
  EXPECT_TRUE(daemon_.backend.watches_.empty());
  ASSERT_EQ(daemon_.backend.start_times_ns.size(), 1U);
  EXPECT_TRUE(daemon_.backend.start_times_ns[0]);
}

TEST_F(RunTest, SignalsReachTheCommandAndEndUsOnlyWithIt) {
  daemon_.start();
  Program program(command({"sh", "-c", "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.02; done"}));
  ASSERT_EQ(program.line(), "ready\n");
  program.send(SIGTERM);
  const Finished result = program.finish();
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_EQ(result.out, "got\n");
  EXPECT_EQ(run(command({"sh", "-c", "kill -KILL $$"})).exit_code, 128 + SIGKILL);
}

TEST_F(RunTest, ADaemonThatEndsMeanwhileIsToldAndTheCommandRunsOn) {
  daemon_.start();
  ASSERT_EQ(mkfifo(mark().c_str(), 0600), 0);
  Program program(command({"sh", "-c", "echo ready; read x < " + mark() + "; exit 3"}));
  ASSERT_EQ(program.line(), "ready\n");
  daemon_.stop();
  const UniqueFd go(open(mark().c_str(), O_WRONLY | O_CLOEXEC));
  EXPECT_EQ(write(go.get(), "\n", 1), 1);
  const Finished result = program.finish();
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.err.find("no daemon runs there"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace stackwatch
