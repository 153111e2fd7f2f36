// SPDX-License-Identifier: Apache-2.0
// What the survey alone finds: no rules, no suspects, 19 samples a second of a busy core.
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "core/clock.h"
#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kSurveyAlone[] =
    "[ranking]\nmax_suspects = 0\n[survey]\nfrequency = 95\n[detectors.composition]\nlearn = \"30s\"\n";
constexpr char kLoad[] = "0.2";  // a fifth, at five times the usual rate: as many samples as a busy core has

double now_s() { return static_cast<double>(SystemClock().monotonic_ns()) * 1e-9; }

constexpr double kOnsetS = 65;  // behind three seconds of age, 30 of learning, 30 of quarantine

/// A `shift` whose function goes from one share to another at a known time.
struct Changing {
  Changing(const char* from, const char* to, const char* seed)
      : child({test_program("shift"), "--load", kLoad, "--from", from, "--to", to, "--seed", seed, "--onset-min", "65",
               "--onset-max", "65", "--duration", "270"}) {}
  void finish() {
    child.signal(SIGTERM);
    child.wait();
    truth.Parse(child.output().c_str());
    ASSERT_TRUE(truth.IsObject() && truth["shifted"].GetBool()) << child.output();
  }
  [[nodiscard]] std::string function() const { return truth["function"].GetString(); }
  [[nodiscard]] double delay_s() const { return fired_s - truth["onset_monotonic_s"].GetDouble(); }

  Child child;
  double fired_s = 0;
  std::string alerted;  // its first alert's function
  rapidjson::Document truth;
};

bool has_frame(const rapidjson::Value& stack, const std::string& name) {
  const auto frames = stack["frames"].GetArray();
  return std::any_of(frames.begin(), frames.end(), [&](const auto& frame) { return name == frame.GetString(); });
}

void note_alerts(const DaemonUnderTest& daemon, const std::vector<Changing*>& changing) {
  const rapidjson::Document document = daemon.ask({"alerts", "--json"}).json();
  const auto alerts = document["alerts"].GetArray();
  for (const auto& alert : alerts) {
    if (std::string(alert["state"].GetString()) == "pending") continue;
    for (Changing* each : changing) {
      if (each->fired_s > 0 || alert["process"]["pid"].GetInt() != each->child.pid()) continue;
      each->fired_s = now_s();
      each->alerted = alert["frame"].GetString();
    }
  }
}

/// The largest score of a stack with this function that names this process as one where it grew; 0 where none does.
double score_of_growth(const rapidjson::Document& top, const std::string& function, int32_t pid) {
  double score = 0;
  for (const auto& stack : top["stacks"].GetArray()) {
    const auto shares = stack["processes"].GetArray();
    const bool named = std::any_of(shares.begin(), shares.end(), [pid](const auto& share) {
      return share["process"]["pid"].GetInt() == pid &&
             share["now_cores"].GetDouble() > 1.2 * share["before_cores"].GetDouble();
    });
    if (named && has_frame(stack, function)) score = std::max(score, stack["score"].GetDouble());
  }
  return score;
}

TEST(Survey, AProcessWithThreeStacksShowsAllThree) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kSurveyAlone);
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  Child burn({test_program("burn"), "--seconds", "60"});
  Answer stacks;
  EXPECT_TRUE(eventually(40, [&] {
    stacks = daemon.ask({"stacks", std::to_string(burn.pid())});
    return stacks.output.find("burn_most") != std::string::npos && stacks.output.find("burn_few") != std::string::npos;
  })) << stacks.output;
  EXPECT_THAT(stacks.output, AllOf(HasSubstr("burn_most"), HasSubstr("burn_some"), HasSubstr("burn_few")));
  const Answer attachments = daemon.ask({"attachments"});
  EXPECT_THAT(attachments.output, HasSubstr("survey"));
  EXPECT_EQ(attachments.output.find("suspect"), std::string::npos) << attachments.output;
  EXPECT_GT(daemon.ask({"status", "--json"}).json()["surveyed"].GetUint64(), 0U);
}

/// What is known at the end.
struct Seen {
  std::string alerts;
  std::vector<rapidjson::Document> tops;  // of unusual stacks, one in five seconds from the onset on
};

/// Watches until all are alerted, at most as long as a test may last: at so few samples a busy machine needs its time.
Seen watch(const DaemonUnderTest& daemon, const std::vector<Changing*>& all) {
  constexpr double kLongestS = 245;
  constexpr size_t kFewestTops = 5;
  Seen seen;
  const double begun_s = now_s();
  eventually(kLongestS, [&] {
    note_alerts(daemon, all);
    if (now_s() - begun_s > kOnsetS + 5 * static_cast<double>(seen.tops.size() + 1)) {
      seen.tops.push_back(daemon.ask({"top", "--by", "stacks", "-n", "10", "--json"}).json());
    }
    return std::ranges::all_of(all, [](const Changing* each) { return each->fired_s > 0; }) &&
           seen.tops.size() >= kFewestTops;
  });
  seen.alerts = daemon.ask({"alerts", "--json"}).output;
  const std::string attachments = daemon.ask({"attachments"}).output;
  EXPECT_EQ(attachments.find("suspect"), std::string::npos) << attachments;
  const double watched_s = now_s() - begun_s;
  for (Changing* each : all) each->finish();  // only now it is known what each did
  for (const Changing* each : all) {
    EXPECT_GT(each->fired_s, 0) << each->function() << "\n" << seen.alerts;
    if (each->fired_s == 0) continue;
    EXPECT_GT(each->delay_s(), 0) << "before anything happened: " << seen.alerts;
    EXPECT_EQ(each->alerted, each->function()) << seen.alerts;
    std::printf("[ FIGURES  ] survey: %s %.0f %% -> %.0f %%, %.2f cores, told after %.0f s\n", each->function().c_str(),
                100 * each->truth["from"].GetDouble(), 100 * each->truth["to"].GetDouble(),
                each->truth["cpu_s"].GetDouble() / watched_s, each->delay_s());
  }
  return seen;
}

// On the whole machine nothing changes: only each by itself does.
TEST(Survey, TwoProcessesThatSwapHowHotAFunctionIsAreEachNamed) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kSurveyAlone);
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  Changing falling("0.6", "0.2", "11");
  Changing rising("0.2", "0.6", "11");
  watch(daemon, {&falling, &rising});
  EXPECT_EQ(falling.function(), rising.function());
}

TEST(Survey, AFunctionThatDoublesIsToldAndItsStackIsUnusual) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kSurveyAlone);
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  Changing one("0.25", "0.5", "12");
  Changing other("0.25", "0.5", "21");
  const Seen seen = watch(daemon, {&one, &other});
  for (const Changing* each : {&one, &other}) {
    double score = 0;
    for (const auto& top : seen.tops) {
      score = std::max(score, score_of_growth(top, each->function(), each->child.pid()));
    }
    std::printf("[ FIGURES  ] top --by stacks: %s in %d, score %.1f\n", each->function().c_str(), each->child.pid(),
                score);
    EXPECT_GT(score, 2) << "its stack is not among those of unusual frequency";
  }
}

}  // namespace
}  // namespace stackwatch
