// SPDX-License-Identifier: Apache-2.0
// The main job: a real process changes, and the alert names the function.
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "core/clock.h"
#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

// A shorter form of the demo, with both outcomes at once: one process whose function grows from 10 % to 30 %, one that
// goes on as it was. Which functions, which shares and when is drawn anew in each run.
TEST(Watching, AShiftIsToldWithItsFunctionAndNothingElseIs) {
  STACKWATCH_REQUIRE_BPF();
  // As many samples as two busy cores have at 99 Hz. Other tests have programs of this name, too.
  DaemonUnderTest daemon("[ranking]\nmax_suspects = 0\n[[watch]]\ncmdline = \"*--duration 201\"\nfrequency = 495\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  Child shifting(
      {test_program("shift"), "--load", "0.2", "--onset-min", "60", "--onset-max", "80", "--duration", "201"});
  Child steady({test_program("shift"), "--load", "0.2", "--no-shift", "--duration", "201"});

  rapidjson::Document alert;
  const bool fired = eventually(145, [&] {
    const rapidjson::Document document = daemon.ask({"alerts", "--json", "--state", "firing"}).json();
    for (const auto& candidate : document["alerts"].GetArray()) {
      if (candidate["process"]["pid"].GetInt() != shifting.pid()) continue;
      alert.CopyFrom(candidate, alert.GetAllocator());
      return true;
    }
    return false;
  });
  const double fired_s = static_cast<double>(SystemClock().monotonic_ns()) * 1e-9;
  usleep(15'000'000);  // what else it might tell
  const Answer all = daemon.ask({"alerts", "--json"});
  shifting.signal(SIGTERM);
  shifting.wait();
  rapidjson::Document truth;
  truth.Parse(shifting.output().c_str());
  ASSERT_TRUE(truth.IsObject()) << shifting.output();
  ASSERT_TRUE(fired) << "truth: " << shifting.output() << "\nalerts: " << all.output;

  const double onset_s = truth["onset_monotonic_s"].GetDouble();
  EXPECT_GT(fired_s, onset_s) << "an alarm before anything happened: " << all.output;
  EXPECT_LT(fired_s, onset_s + 60);
  EXPECT_STREQ(alert["frame"].GetString(), truth["function"].GetString()) << shifting.output();
  EXPECT_STREQ(alert["detector"].GetString(), "composition");
  EXPECT_STREQ(alert["probe"].GetString(), "on_cpu");
  EXPECT_NEAR(alert["before"].GetDouble(), 0.10, 0.04);
  EXPECT_NEAR(alert["after"].GetDouble(), 0.30, 0.08);
  // Others of this name may run beside the test, and may really change.
  const auto ours = [&](const auto& each) {
    const int pid = each["process"]["pid"].GetInt();
    return pid == shifting.pid() || pid == steady.pid();
  };
  const rapidjson::Document told = all.json();
  EXPECT_EQ(std::ranges::count_if(told["alerts"].GetArray(), ours), 1)
      << "one cause is one alert, and the steady process has none: " << all.output;
  const Answer shown = daemon.ask({"show", alert["id"].GetString()});
  EXPECT_EQ(shown.exit_code, 0);
  EXPECT_THAT(shown.output, HasSubstr(truth["function"].GetString()));
  EXPECT_EQ(daemon.stop(), 0);
}

TEST(Watching, ARealServerUnderLoad) {
  STACKWATCH_REQUIRE_BPF();
  if (run({"sh", "-c", "command -v redis-server && command -v redis-benchmark && command -v stress-ng"}).exit_code !=
      0) {
    GTEST_SKIP() << "REQUIRES redis-server, redis-tools and stress-ng";
  }
  const TemporaryDirectory directory;
  const std::string socket = directory.path() + "/redis";
  Child redis({"redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", directory.path()});
  Child stress({"stress-ng", "--cpu", "1", "--timeout", "60"});
  ASSERT_TRUE(eventually(10, [&] { return access(socket.c_str(), F_OK) == 0; }));
  Child load({"redis-benchmark", "-s", socket, "-l", "-q", "-t", "set,get"});
  DaemonUnderTest daemon("[[watch]]\nname = \"redis-server\"\n[[watch]]\nname = \"stress-ng\"\nchildren = true\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();

  Answer stacks;
  EXPECT_TRUE(eventually(20, [&] {
    stacks = daemon.ask({"stacks", std::to_string(redis.pid()), "--format", "folded"});
    return stacks.exit_code == 0 && stacks.lines() >= 20;
  })) << stacks.output;
  std::istringstream lines(stacks.output);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_THAT(line, ::testing::StartsWith("redis-server;"));
    const size_t blank = line.rfind(' ');
    ASSERT_NE(blank, std::string::npos);
    EXPECT_GT(std::atoll(line.c_str() + blank + 1), 0) << line;
  }
  EXPECT_THAT(stacks.output, HasSubstr("_[k] ")) << "kernel frames are joined to the user frames that led to them";

  const rapidjson::Document attachments = daemon.ask({"attachments", "--json"}).json();
  const auto attached = [&](const char* comm) {
    return std::ranges::any_of(attachments["attachments"].GetArray(), [&](const auto& row) {
      return std::string(row["process"]["comm"].GetString()).starts_with(comm) && row["samples"].GetUint64() > 20;
    });
  };
  EXPECT_TRUE(attached("redis-server"));
  EXPECT_TRUE(attached("stress-ng"));
  const rapidjson::Document ranking = daemon.ask({"top", "--json", "--once", "-n", "5"}).json();
  ASSERT_GE(ranking["ranking"].Size(), 3U);
  EXPECT_GE(ranking["ranking"][0]["score"].GetDouble(), ranking["ranking"][1]["score"].GetDouble());
  const rapidjson::Document status = daemon.ask({"status", "--json"}).json();
  EXPECT_GE(status["attachments"].GetUint64(), 2U);
  EXPECT_EQ(status["lost"]["map_full"].GetUint64(), 0U);
  EXPECT_EQ(daemon.ask({"alerts", "--json"}).exit_code, 0);
}

TEST(Watching, ManyProcessesThatEndWhileTheyAreAttached) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon("[ranking]\nmax_suspects = 0\n[[watch]]\nname = \"threads\"\n");
  ASSERT_TRUE(daemon.ready());
  const auto number = [&](const char* name) { return daemon.ask({"status", "--json"}).json()[name].GetUint64(); };
  uint64_t fds = 0;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < 200; ++i) {
      children.push_back(std::make_unique<Child>(
          std::vector<std::string>{test_program("threads"), "--count", "2", "--cores", "0.004", "--seconds", "120"}));
    }
    ASSERT_TRUE(eventually(30, [&] { return number("attachments") == 200; })) << number("attachments");
    usleep(1'500'000);
    for (const auto& child : children) child->signal(SIGKILL);
    children.clear();
    ASSERT_TRUE(eventually(30, [&] { return number("attachments") == 0; })) << number("attachments");
    if (round == 0) fds = number("open_fds");
  }
  EXPECT_LE(number("open_fds"), fds + 2) << "descriptors leak";
  EXPECT_TRUE(daemon.process().running());
}

TEST(Watching, ChildrenOfARuleAreWatched) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon("[ranking]\nmax_suspects = 0\n[[watch]]\nname = \"burn\"\nchildren = true\n");
  ASSERT_TRUE(daemon.ready());
  Child burn({test_program("burn"), "--where", "late-child", "--delay", "3", "--seconds", "20"});
  EXPECT_TRUE(eventually(20, [&] {
    const rapidjson::Document rows = daemon.ask({"attachments", "--json"}).json();
    return rows["attachments"].Size() == 2 && std::ranges::any_of(rows["attachments"].GetArray(), [&](const auto& row) {
             return row["process"]["pid"].GetInt() != burn.pid() && row["samples"].GetUint64() > 50;
           });
  }));
}

}  // namespace
}  // namespace stackwatch
