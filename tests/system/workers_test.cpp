// SPDX-License-Identifier: Apache-2.0
// One cause in several workers of a service: real processes, one alert.
#include <gmock/gmock.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

constexpr int kWorkers = 5;
/// On a busy machine a worker may get so little CPU time that its change is not found in the time of the test.
constexpr size_t kLeastFound = 3;

/// The alert about a function in a state; null where there is none. How many there are goes to `count`.
rapidjson::Document alert_about(const DaemonUnderTest& daemon, const std::string& frame, const char* state,
                                int& count) {
  const auto reply = daemon.ask({"alerts", "--json", "--state", state}).json();
  rapidjson::Document found;
  count = 0;
  for (const auto& alert : reply["alerts"].GetArray()) {
    if (frame != alert["frame"].GetString()) continue;
    if (count++ == 0) found.CopyFrom(alert, found.GetAllocator());
  }
  return found;
}

std::set<int> pids_of(const rapidjson::Document& alert) {
  std::set<int> pids;
  if (!alert.IsObject() || !alert.HasMember("processes")) return pids;
  for (const auto& member : alert["processes"].GetArray()) pids.insert(member["process"]["pid"].GetInt());
  return pids;
}

// In each of five workers look_up_key grows from 10 to 30 % at the same moment.
TEST(Workers, OneCauseInAllIsOneAlertThatListsThemAndOutlivesTheDaemon) {
  STACKWATCH_REQUIRE_BPF();
  std::vector<std::unique_ptr<Child>> workers;
  std::set<int> pids;
  for (int i = 0; i < kWorkers; ++i) {
    workers.push_back(std::make_unique<Child>(std::vector<std::string>{test_program("changer"), "--case", "grow20",
                                                                       "--load", "0.1", "--onset-min", "65",
                                                                       "--onset-max", "65", "--duration", "280"}));
    pids.insert(workers.back()->pid());
  }
  DaemonUnderTest daemon(
      "[ranking]\nmax_suspects = 0\n[detectors.composition]\nlearn = \"30s\"\n[detectors.rate]\nenabled = false\n"
      "[[watch]]\ncmdline = \"*--case grow20 --load 0.1 *\"\nfrequency = 499\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  int count = 0;
  int looked = 0;
  rapidjson::Document alert;
  EXPECT_TRUE(eventually(160, [&] {
    alert = alert_about(daemon, "look_up_key", "firing", count);
    return pids_of(alert) == pids || (pids_of(alert).size() >= kLeastFound && ++looked > 100);
  })) << daemon.ask({"alerts", "--json"}).output;
  EXPECT_EQ(count, 1) << daemon.ask({"alerts"}).output;
  ASSERT_TRUE(alert.IsObject());
  const std::string id = alert["id"].GetString();
  EXPECT_THAT(daemon.ask({"alerts"}).output, HasSubstr(" more"));
  EXPECT_THAT(daemon.ask({"show", id}).output, HasSubstr("STANDS"));

  const std::set<int> told = pids_of(alert_about(daemon, "look_up_key", "firing", count));
  EXPECT_TRUE(std::ranges::includes(pids, told)) << "nobody else has it";
  daemon.process().signal(SIGTERM);  // what stands is on the disk then
  daemon.process().wait();
  daemon.start();
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  EXPECT_TRUE(eventually(
      10, [&] { return std::ranges::includes(pids_of(alert_about(daemon, "look_up_key", "firing", count)), told); }));
  EXPECT_EQ(count, 1);

  // All but the last end: it stands. Then it ends, too.
  for (int i = 0; i < kWorkers; ++i) {
    alert = alert_about(daemon, "look_up_key", "firing", count);
    ASSERT_TRUE(alert.IsObject()) << i << daemon.ask({"alerts", "--json"}).output;
    EXPECT_EQ(alert["id"].GetString(), id);
    workers[static_cast<size_t>(i)]->signal(SIGKILL);
    workers[static_cast<size_t>(i)]->wait();
    usleep(2'500'000);
  }
  EXPECT_TRUE(eventually(20, [&] {
    alert = alert_about(daemon, "look_up_key", "resolved", count);
    return alert.IsObject() && alert["id"].GetString() == id;
  })) << daemon.ask({"alerts", "--json"}).output;
  EXPECT_TRUE(std::ranges::includes(pids_of(alert), told)) << "whom it was about";
  EXPECT_EQ(daemon.stop(), 0);
}

}  // namespace
}  // namespace stackwatch
