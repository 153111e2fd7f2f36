// SPDX-License-Identifier: Apache-2.0
#include "detectors/wait.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace stackwatch {
namespace {

constexpr uint64_t kSeeds = 8;
using Frames = std::vector<std::string>;
const Frames kLoop = {"main", "serve", "epoll_wait", "ep_poll_[k]", "schedule_[k]"};
const Frames kPark = {"main", "worker", "syscall", "futex_wait_[k]", "schedule_[k]"};
const Frames kDisk = {"main", "serve", "load_page", "pread64", "io_schedule_[k]", "schedule_[k]"};
const Frames kLock = {"main", "serve", "update_row", "pthread_mutex_lock", "futex_wait_[k]", "schedule_[k]"};

/// A process that a test makes wait.
class Waiter {
 public:
  explicit Waiter(uint64_t seed = 1, WaitSettings settings = {}) : random_(seed), detector_({}, settings) {
    delta_.probe = ProbeKind::kBlocked;
    delta_.interval_s = 1;
    delta_.stacks = &stacks_;
    delta_.functions = &functions_;
  }
  /// Waits of about `threads` on average: durations with heavy tails, cut at the tick as snapshots do.
  double heavy(double threads) {
    double sum = 0;
    for (int i = 0; i < 40; ++i) sum += std::min(1.0, threads / 40 * std::exp(1.5 * normal_(random_) - 1.125));
    return sum;
  }
  void wait(const Frames& frames, double seconds) {
    std::vector<FunctionId> ids;
    for (const std::string& frame : frames) ids.push_back(functions_.intern("p", frame));
    seconds_[stacks_.intern(ids).value] += seconds;
  }
  /// Ends the tick.
  std::optional<Finding> tick(double cores = 0.5) {
    delta_.time_s += delta_.interval_s;
    CensusDelta census;
    census.time_s = delta_.time_s;
    census.interval_s = delta_.interval_s;
    census.on_cpu_s = cores * delta_.interval_s;
    EXPECT_FALSE(detector_.observe_census(census));
    delta_.values.clear();
    for (const auto& [stack, seconds] : seconds_) {
      delta_.values.push_back({StackId{stack}, static_cast<int64_t>(seconds * 1e9)});
    }
    seconds_.clear();
    return detector_.observe(delta_);
  }
  /// A tick of a server at a load: it reads from disk, and is idle for the rest.
  std::optional<Finding> serve(double load, double lock = 0, double disk_factor = 1) {
    wait(kDisk, heavy(0.1 * load * disk_factor));
    wait(kLoop, std::max(0.0, 1 - 0.3 * load));
    wait(kPark, 4 - 0.5 * load);
    if (lock > 0) wait(kLock, heavy(lock));
    return tick(0.3 * load);
  }
  std::string name(const Finding& finding) { return finding.frame ? functions_[*finding.frame].name : ""; }
  NamedDelta& delta() { return delta_; }
  WaitDetector& detector() { return detector_; }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  FunctionTable functions_;
  StackTable stacks_;
  std::map<uint32_t, double> seconds_;
  NamedDelta delta_;
  WaitDetector detector_;
};

TEST(WaitBadInput, NonsenseIsSkipped) {
  Waiter waiter;
  for (int i = 0; i < 600; ++i) {
    ASSERT_FALSE(waiter.serve(1)) << i;
    NamedDelta broken = waiter.delta();
    broken.time_s += 0.1;
    broken.values = {{StackId{1}, -5}};
    ASSERT_FALSE(waiter.detector().observe(broken)) << "counters that go back";
    broken.values = {{StackId{100000}, 5}};
    ASSERT_FALSE(waiter.detector().observe(broken)) << "a stack that is not in the table";
    broken.values = {{StackId{3}, 1'000'000'000'000'000'000}};
    broken.time_s = std::nan("");
    ASSERT_FALSE(waiter.detector().observe(broken));
    broken.time_s = waiter.delta().time_s - 10;
    ASSERT_FALSE(waiter.detector().observe(broken)) << "a clock that goes back";
    broken.time_s = waiter.delta().time_s + 0.2;
    broken.stacks = nullptr;
    ASSERT_FALSE(waiter.detector().observe(broken));
  }
}

TEST(WaitBadInput, DaysAsleepAndEmptyTicksAreQuiet) {
  Waiter waiter;
  for (int i = 0; i < 300; ++i) ASSERT_FALSE(waiter.serve(1));
  waiter.delta().time_s += 3 * 86400;
  for (int i = 0; i < 300; ++i) ASSERT_FALSE(waiter.serve(1));
  for (int i = 0; i < 3000; ++i) ASSERT_FALSE(waiter.tick(0)) << i;
  for (int i = 0; i < 300; ++i) ASSERT_FALSE(waiter.serve(1));
}

TEST(Wait, ALockThatBecomesContendedIsNamed) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Waiter waiter(seed);
    for (int i = 0; i < 400; ++i) ASSERT_FALSE(waiter.serve(1, 0.01)) << seed << " " << i;
    std::optional<Finding> finding;
    int ticks = 0;
    for (; ticks < 120 && !finding; ++ticks) finding = waiter.serve(0.7, 0.6);
    ASSERT_TRUE(finding) << seed;
    EXPECT_GE(ticks, 20) << "no shorter than the persistence";
    EXPECT_LE(ticks, 60) << seed;
    EXPECT_EQ(waiter.name(*finding), "update_row");
    EXPECT_NEAR(finding->onset_s, 400, 6) << seed;
    EXPECT_NEAR(finding->after, 0.6, 0.25) << seed;
    EXPECT_EQ(finding->probe, ProbeKind::kBlocked);
  }
}

TEST(Wait, ADiskThatBecomesSlowIsNamed) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Waiter waiter(seed);
    for (int i = 0; i < 400; ++i) ASSERT_FALSE(waiter.serve(1)) << seed << " " << i;
    std::optional<Finding> finding;
    for (int i = 0; i < 120 && !finding; ++i) finding = waiter.serve(1, 0, 6);
    ASSERT_TRUE(finding) << seed;
    EXPECT_EQ(waiter.name(*finding), "load_page");
  }
}

TEST(Wait, IdleWaitsAreNoFindingWhenTheLoadChanges) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Waiter waiter(seed);
    for (int i = 0; i < 400; ++i) ASSERT_FALSE(waiter.serve(1)) << seed;
    for (const double load : {2.0, 0.1, 3.0, 0.0, 1.0}) {
      for (int i = 0; i < 400; ++i) ASSERT_FALSE(waiter.serve(load)) << seed << " load " << load << " tick " << i;
    }
  }
}

TEST(Wait, FiveSecondStallsAreQuiet) {
  Waiter waiter;
  for (int i = 0; i < 3000; ++i) ASSERT_FALSE(waiter.serve(1, i > 300 && i % 97 < 5 ? 3.0 : 0.0)) << i;
}

TEST(Wait, HoursOfHeavyTailsAreQuiet) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Waiter waiter(seed);
    for (int i = 0; i < 7200; ++i) ASSERT_FALSE(waiter.serve(1, 0.15)) << seed << " " << i;
  }
}

TEST(Wait, EndsWhenTheLockIsFreeAgain) {
  Waiter waiter;
  for (int i = 0; i < 400; ++i) ASSERT_FALSE(waiter.serve(1, 0.01));
  std::optional<Finding> finding;
  for (int i = 0; i < 200; ++i) finding = waiter.serve(0.7, 0.6);
  ASSERT_TRUE(finding);
  int ticks = 0;
  while (ticks < 200 && waiter.serve(1, 0.01)) ++ticks;
  EXPECT_GE(ticks, 8);
  EXPECT_LT(ticks, 60);
  for (int i = 0; i < 600; ++i) ASSERT_FALSE(waiter.serve(1, 0.01)) << i;
}

TEST(Wait, TruncatingTheInputChangesNoEarlierFinding) {
  const auto run = [](int ticks) {
    Waiter waiter(3);
    std::vector<double> out;
    for (int i = 0; i < ticks; ++i) {
      const auto finding = waiter.serve(1, i >= 300 && i < 420 ? 0.8 : 0.01);
      out.push_back(finding ? finding->score + finding->after + finding->onset_s : 0);
    }
    return out;
  };
  const std::vector<double> whole = run(600);
  EXPECT_GT(*std::max_element(whole.begin(), whole.end()), 0);
  for (const int ticks : {121, 299, 330, 360, 500}) {
    const std::vector<double> part = run(ticks);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << ticks;
  }
}

TEST(WaitKind, TheCLibrarysWayIntoTheKernelExplainsNothing) {
  for (const char* name :
       {"pwrite", "__pwrite64", "__libc_pwrite64", "readv", "ep_poll_[k]", "__GI___pthread_mutex_lock"})
    EXPECT_TRUE(is_wait_primitive(name)) << name;
  for (const char* name : {"append_log", "pwrite_all", "reader", "MyFile::write"})
    EXPECT_FALSE(is_wait_primitive(name)) << name;
}

TEST(WaitKind, TheLeafMostNameThatTellsDecides) {
  FunctionTable functions;
  const auto kind = [&](const Frames& frames) {
    std::vector<FunctionId> ids;
    for (const std::string& frame : frames) ids.push_back(functions.intern("p", frame));
    return wait_kind(ids, functions);
  };
  EXPECT_EQ(kind({}), WaitKind::kUnknown);
  EXPECT_EQ(kind(kLoop), WaitKind::kIdle);
  EXPECT_EQ(kind({"main", "hrtimer_nanosleep.isra.0_[k]"}), WaitKind::kIdle);
  EXPECT_EQ(kind({"main", "__GI___clock_nanosleep", "x_[k]"}), WaitKind::kIdle);
  EXPECT_EQ(kind({"main", "___pthread_cond_wait", "futex_wait_[k]"}), WaitKind::kIdle);
  EXPECT_EQ(kind({"main", "pthread_cond_wait@@GLIBC_2.3.2", "futex_wait_[k]"}), WaitKind::kIdle);
  EXPECT_EQ(kind({"main", "pthread_cond_wait", "__lll_lock_wait", "futex_wait_[k]"}), WaitKind::kWork);
  EXPECT_EQ(kind(kLock), WaitKind::kWork);
  EXPECT_EQ(kind(kDisk), WaitKind::kWork);
  EXPECT_EQ(kind(kPark), WaitKind::kUnknown);
  EXPECT_EQ(kind({"main", "poll_database"}), WaitKind::kUnknown) << "a name that only begins like one";
}

// ---- successors

TEST(WaitHeritage, AnyCutOrFlippedByteCostsThePastAndNothingElse) {
  Waiter waiter;
  for (int i = 0; i < 400; ++i) ASSERT_FALSE(waiter.serve(1, 0.05));
  const std::string saved = waiter.detector().save();
  ASSERT_TRUE(decode_wait_heritage(saved));
  for (size_t length = 0; length < saved.size(); ++length) {
    ASSERT_FALSE(waiter.detector().restore(saved.substr(0, length))) << length;
  }
  EXPECT_FALSE(waiter.detector().restore(saved + "x"));
  EXPECT_FALSE(waiter.detector().is_learning()) << "nothing has changed";
  for (size_t i = 0; i < saved.size(); ++i) {
    std::string damaged = saved;
    damaged[i] = static_cast<char>(damaged[i] ^ 0xff);
    const auto read = decode_wait_heritage(damaged);
    if (!read) continue;
    for (const auto& entry : read->stacks) ASSERT_TRUE(std::isfinite(entry.amount) && entry.amount >= 0) << i;
  }
}

TEST(WaitHeritage, IsBoundedAndKeepsTheLargest) {
  WaitHeritage many;
  many.wall_s = 1000;
  for (uint64_t i = 0; i < 5000; ++i) {
    many.stacks.push_back({i, static_cast<double>(i), {}});
    many.functions.push_back({i, static_cast<double>(i), {}});
    many.parked.push_back(i);
  }
  const std::string saved = encode(many);
  EXPECT_LE(saved.size(), 42'000U);
  const auto read = decode_wait_heritage(saved);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->stacks.size(), WaitHeritage::kMaxEntries);
  EXPECT_EQ(read->stacks.front().amount, 4999);
}

/// A program of its own tables, as after a restart: ids differ, names do not.
void warm_up(Waiter& successor, const std::string& saved, double lock) {
  for (int i = 0; i < 3; ++i) successor.wait({"init", "open", "io_schedule_[k]"}, 0.1), (void)successor.tick();
  ASSERT_TRUE(successor.detector().restore(saved));
  for (int i = 0; i < 125; ++i) ASSERT_FALSE(successor.serve(1, lock)) << "its start-up is not judged";
}

TEST(WaitHeritage, ASuccessorIsJudgedByWhatItsPredecessorWaited) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Waiter before(seed);
    for (int i = 0; i < 1500; ++i) ASSERT_FALSE(before.serve(1, 0.05)) << seed;
    const std::string saved = before.detector().save();
    Waiter same(seed + 100);
    warm_up(same, saved, 0.05);
    EXPECT_TRUE(same.detector().remembers());
    for (int i = 0; i < 1500; ++i) ASSERT_FALSE(same.serve(1, 0.05)) << seed << ' ' << i;
    Waiter slower(seed + 200);
    warm_up(slower, saved, 0.6);
    std::optional<Finding> finding;
    int ticks = 0;
    for (; ticks < 200 && !finding; ++ticks) finding = slower.serve(1, 0.6);
    ASSERT_TRUE(finding) << seed;
    EXPECT_EQ(slower.name(*finding), "update_row") << seed;
    EXPECT_NEAR(finding->before, 0.05, 0.03) << seed;
    EXPECT_NEAR(finding->after, 0.6, 0.2) << seed;
  }
}

// A wait whose names say nothing, as on a pipe: were it parked at the end of the start-up because it is long now, the
// regression that came with a restart would never be told.
TEST(WaitHeritage, AWaitThatThePredecessorKnewIsNotParkedBecauseItIsLong) {
  const Frames pipe = {"main", "serve", "fetch", "read", "pipe_read_[k]", "schedule_[k]"};
  const auto serve = [&pipe](Waiter& waiter, double threads) {
    waiter.wait(pipe, waiter.heavy(threads));
    return waiter.serve(1);
  };
  Waiter before(1);
  for (int i = 0; i < 1500; ++i) ASSERT_FALSE(serve(before, 0.05));
  Waiter after(2);
  for (int i = 0; i < 3; ++i) after.wait({"init", "open", "io_schedule_[k]"}, 0.1), (void)after.tick();
  ASSERT_TRUE(after.detector().restore(before.detector().save()));
  std::optional<Finding> finding;
  for (int i = 0; i < 400 && !finding; ++i) finding = serve(after, 0.6);
  ASSERT_TRUE(finding);
  EXPECT_EQ(after.name(*finding), "fetch");
  EXPECT_NEAR(finding->before, 0.05, 0.03);
  EXPECT_NEAR(finding->after, 0.6, 0.2);
}

TEST(WaitHeritage, SavedAndRestoredIsNeverRestarted) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    // The same program twice, drawing the same numbers; one is saved and restored, as over a restart of the daemon.
    Waiter on(seed);
    Waiter restarted(seed);
    for (int i = 0; i < 2000; ++i) {
      ASSERT_FALSE(on.serve(1, 0.05));
      ASSERT_FALSE(restarted.serve(1, 0.05));
    }
    ASSERT_TRUE(restarted.detector().restore(restarted.detector().save()));
    for (int i = 0; i < 125; ++i) {
      ASSERT_FALSE(on.serve(1, 0.05));
      ASSERT_FALSE(restarted.serve(1, 0.05));
    }
    int found_on = 0;
    int found_restarted = 0;
    for (int i = 1; i < 300 && (found_on == 0 || found_restarted == 0); ++i) {
      if (on.serve(1, 0.5) && found_on == 0) found_on = i;
      if (restarted.serve(1, 0.5) && found_restarted == 0) found_restarted = i;
    }
    ASSERT_GT(found_on, 0) << seed;
    EXPECT_NEAR(found_restarted, found_on, 3) << seed;
  }
}

}  // namespace
}  // namespace stackwatch
