// SPDX-License-Identifier: Apache-2.0
#include "detectors/subspace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace stackwatch {
namespace {

/// A server whose metrics follow its load; what a request costs in faults is the test's to say.
class Server {
 public:
  explicit Server(uint64_t seed) : random_(seed), detector_({}, {}) {
    delta_.probe = ProbeKind::kOnCpu;
    delta_.interval_s = 1;
    delta_.stacks = &stacks_;
    delta_.functions = &functions_;
    const std::vector parse = {functions_.intern("p", "main"), functions_.intern("p", "parse")};
    const std::vector send = {functions_.intern("p", "main"), functions_.intern("p", "send")};
    parse_ = stacks_.intern(parse);
    send_ = stacks_.intern(send);
  }
  std::optional<Finding> tick(double faults_per_request = 2, double load_factor = 1) {
    log_load_ = 0.9 * log_load_ + 0.15 * normal_(random_);
    const double requests = 1000 * load_factor * std::exp(log_load_);
    delta_.time_s += 1;
    CensusDelta census;
    census.time_s = delta_.time_s;
    census.interval_s = 1;
    census.on_cpu_s = 0.3e-3 * requests * jitter();
    census.voluntary_switches = requests * jitter();
    census.minor_faults = faults_per_request * requests * jitter();
    census.write_bytes = 500 * requests * jitter();
    census.rss_bytes = 2e8;
    EXPECT_FALSE(detector_.observe_census(census));
    const auto samples = static_cast<int64_t>(100 * census.on_cpu_s) + 1;
    std::binomial_distribution<int64_t> parse(samples, 0.6);
    const int64_t parsing = parse(random_);
    delta_.values = {{parse_, parsing}, {send_, samples - parsing}};
    return detector_.observe(delta_);
  }
  SubspaceDetector& detector() { return detector_; }
  NamedDelta& delta() { return delta_; }

 private:
  double jitter() { return std::exp(0.05 * normal_(random_)); }
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  FunctionTable functions_;
  StackTable stacks_;
  StackId parse_{}, send_{};
  NamedDelta delta_;
  SubspaceDetector detector_;
  double log_load_ = 0;
};

TEST(SubspaceBadInput, NonsenseIsSkipped) {
  Server server(1);
  for (int i = 0; i < 1500; ++i) {
    ASSERT_FALSE(server.tick()) << i;
    CensusDelta census;
    census.interval_s = 1;
    census.on_cpu_s = std::nan("");
    ASSERT_FALSE(server.detector().observe_census(census));
    census.on_cpu_s = -1;
    ASSERT_FALSE(server.detector().observe_census(census));
    NamedDelta broken = server.delta();
    broken.time_s -= 5;
    ASSERT_FALSE(server.detector().observe(broken));
    broken.time_s = std::nan("");
    ASSERT_FALSE(server.detector().observe(broken));
    ASSERT_TRUE(std::isfinite(server.detector().distance()));
  }
}

TEST(Subspace, AnHourOfMovingLoadIsQuiet) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    Server server(seed);
    for (int i = 0; i < 3600; ++i) ASSERT_FALSE(server.tick()) << seed << " " << i;
  }
}

TEST(Subspace, TwiceTheLoadIsNoFinding) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    Server server(seed);
    for (int i = 0; i < 1500; ++i) ASSERT_FALSE(server.tick());
    for (int i = 0; i < 600; ++i) ASSERT_FALSE(server.tick(2, 2)) << seed << " " << i;
  }
}

TEST(Subspace, TruncatingTheInputChangesNoEarlierFinding) {
  const auto run = [](int ticks) {
    Server server(3);
    std::vector<double> out;
    for (int i = 0; i < ticks; ++i) {
      const auto finding = server.tick(i > 1000 ? 6 : 2);
      out.push_back(server.detector().distance() + (finding ? finding->score : 0));
    }
    return out;
  };
  const std::vector<double> whole = run(1200);
  for (const int ticks : {400, 700, 1010, 1100}) {
    const std::vector<double> part = run(ticks);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << ticks;
  }
}

}  // namespace
}  // namespace stackwatch
