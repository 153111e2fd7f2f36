// SPDX-License-Identifier: Apache-2.0
#include "detectors/peers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

namespace stackwatch {
namespace {

constexpr uint64_t kSeeds = 6;

/// Ten workers of one service; a test says what each wants.
class Service {
 public:
  explicit Service(uint64_t seed, size_t workers = 10, PeersSettings settings = {})
      : random_(seed), samples_(workers), detector_({}, settings) {
    for (size_t i = 0; i < workers; ++i) samples_[i].process = {static_cast<int32_t>(100 + i), 10'000'000};
    for (PeerSample& sample : samples_) sample.service = 7;
  }
  double noisy(double cores) { return std::max(0.0, cores * (1 + 0.15 * normal_(random_))); }
  std::vector<std::pair<ProcessKey, Finding>> tick(const std::function<double(size_t)>& cores) {
    ++time_s_;
    for (size_t i = 0; i < samples_.size(); ++i) {
      samples_[i].time_s = time_s_;
      samples_[i].interval_s = 1;
      samples_[i].on_cpu_s = cores(i);
    }
    return detector_.observe(samples_);
  }
  std::vector<PeerSample>& samples() { return samples_; }
  PeersDetector& detector() { return detector_; }
  double time_s() const { return time_s_; }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  std::vector<PeerSample> samples_;
  PeersDetector detector_;
  double time_s_ = 0;
};

TEST(PeersBadInput, NonsenseIsSkipped) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  Service service(1);
  for (int t = 0; t < 600; ++t) {
    ASSERT_TRUE(service.tick([&](size_t) { return service.noisy(0.3); }).empty());
    std::vector<PeerSample> broken = service.samples();
    broken[0].on_cpu_s = kNan;
    broken[1].on_cpu_s = -1;
    broken[2].interval_s = 0;
    broken[3].weight = 0;
    broken[4].run_queue_s = 1e300;
    broken[5].time_s = kNan;
    ASSERT_TRUE(service.detector().observe(broken).empty());
  }
  EXPECT_TRUE(service.detector().observe({}).empty());
  EXPECT_EQ(service.detector().streams(), 0U) << "who is gone is forgotten";
}

TEST(PeersBadInput, MoreWorkersThanPlacesAreCounted) {
  Service service(1, PeersDetector::kMaxWorkers + 5);
  service.tick([](size_t) { return 0.1; });
  EXPECT_EQ(service.detector().streams(), PeersDetector::kMaxWorkers);
  EXPECT_EQ(service.detector().left_out(), 5U);
}

TEST(Peers, ABusyLoopInOneWorkerIsFoundAndNobodyElseIsBlamed) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Service service(seed);
    for (int t = 0; t < 400; ++t) ASSERT_TRUE(service.tick([&](size_t) { return service.noisy(0.3); }).empty()) << seed;
    int found = -1;
    for (int t = 0; t < 200; ++t) {
      for (const auto& [process, finding] :
           service.tick([&](size_t i) { return i == 3 ? 0.95 : service.noisy(0.3); })) {
        ASSERT_EQ(process.pid, 103) << seed;
        if (found < 0) found = t;
        EXPECT_NEAR(finding.after, 0.65, 0.1);
        EXPECT_EQ(finding.detector, "peers");
      }
    }
    EXPECT_GE(found, 19) << seed;
    EXPECT_LE(found, 60) << seed;
  }
}

TEST(Peers, LoadThatChangesForAllIsNoFinding) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Service service(seed);
    for (const double load : {0.2, 0.6, 0.05, 0.8}) {
      for (int t = 0; t < 400; ++t) {
        ASSERT_TRUE(service.tick([&](size_t) { return service.noisy(load); }).empty()) << seed << " " << load;
      }
    }
  }
}

TEST(Peers, WhoIsOwedHalfIsExpectedToUseHalf) {
  Service service(1);
  service.samples()[0].weight = 0.5;
  for (const double load : {0.2, 0.8}) {
    for (int t = 0; t < 400; ++t) {
      ASSERT_TRUE(service.tick([&](size_t i) { return service.noisy(i == 0 ? load / 2 : load); }).empty());
    }
  }
}

TEST(Peers, FewSiblingsAreNoCrowd) {
  Service service(1, 3);
  for (int t = 0; t < 400; ++t) (void)service.tick([&](size_t) { return service.noisy(0.3); });
  for (int t = 0; t < 200; ++t) {
    ASSERT_TRUE(service.tick([&](size_t i) { return i == 0 ? 0.95 : service.noisy(0.3); }).empty());
  }
}

TEST(Peers, TruncatingTheInputChangesNoEarlierFinding) {
  const auto run = [](int ticks) {
    Service service(2);
    std::vector<double> out;
    for (int t = 0; t < ticks; ++t) {
      double sum = 0;
      for (const auto& [process, finding] :
           service.tick([&](size_t i) { return i == 3 && t > 300 ? 0.95 : service.noisy(0.3); })) {
        sum += finding.score + finding.after;
      }
      out.push_back(sum);
    }
    return out;
  };
  const std::vector<double> whole = run(500);
  EXPECT_GT(whole.back(), 0);
  for (const int ticks : {200, 310, 330, 400}) {
    const std::vector<double> part = run(ticks);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << ticks;
  }
}

}  // namespace
}  // namespace stackwatch
