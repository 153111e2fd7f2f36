// SPDX-License-Identifier: Apache-2.0
// Code that never ran before: what composition says about it and what novelty adds; run lengths of novelty. Prints
// Markdown; about five minutes, `--quick` a tenth of the repetitions.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "detectors/composition.h"
#include "detectors/novelty.h"
#include "poisson_interval.h"
#include "simulated_process.h"

namespace stackwatch {
namespace {

constexpr int kKnown = 400;  // functions whose shares fall like 1/rank^1.2: a young baseline has not seen them all
constexpr int kPieces = 40;  // of new code that is in no place of its own
constexpr int kLongest = 600;
constexpr double kHelperShare = 0.07;  // share of memcpy before

using Leaf = SimulatedProcess::Leaf;

enum class What { kOne, kHelper, kSpread, kPaths, kWhileAnother };

const char* text_of(What what) {
  switch (what) {
    case What::kOne:
      return "one function";
    case What::kHelper:
      return "one that calls memcpy";
    case What::kSpread:
      return "40 functions, 40 callers";
    case What::kPaths:
      return "40 new ways to known ones";
    case What::kWhileAnother:
      return "one, another alert stands";
  }
  return "";
}

std::string known(int i) { return "f" + std::to_string(i); }

std::vector<Leaf> usual_leaves() {
  std::vector<Leaf> leaves;
  double sum = 0;
  for (int i = 1; i <= kKnown; ++i) sum += std::pow(i, -1.2);
  for (int i = 1; i <= kKnown; ++i)
    leaves.push_back({{"main", known(i)}, (1 - kHelperShare) * std::pow(i, -1.2) / sum});
  leaves.push_back({{"main", known(1), "memcpy"}, kHelperShare});
  return leaves;
}

std::vector<Leaf> new_leaves(What what) {
  std::vector<Leaf> leaves;
  if (what == What::kOne || what == What::kWhileAnother) leaves.push_back({{"main", "fresh"}, 0});
  if (what == What::kHelper) leaves.push_back({{"main", "fresh", "memcpy"}, 0});
  for (int i = 1; i <= kPieces; ++i) {
    if (what == What::kSpread) leaves.push_back({{"main", known(i), "fresh" + std::to_string(i)}, 0});
    if (what == What::kPaths) leaves.push_back({{"main", known(i), known(2 * kPieces - i)}, 0});
  }
  return leaves;
}

struct Case {
  What what;
  double share;
  int baseline;
  double dispersion;
};

struct Tally {
  int runs = 0;
  int early = 0;  // runs with a finding before the change
  int right = 0;  // that name the new function; those without one that name a new one among the contributors
  std::vector<double> delays;

  std::string at(double part) {
    std::sort(delays.begin(), delays.end());
    const auto i = static_cast<size_t>(part * (runs - 1) + 0.5);
    return i < delays.size() ? std::to_string(static_cast<int>(delays[i])) + " s" : "missed";
  }
};

bool names_the_new(const Finding& finding, const SimulatedProcess& process) {
  if (finding.frame) return process.name(*finding.frame).starts_with("fresh");
  return !finding.contributors.empty() && process.name(finding.contributors.front().frame).starts_with("fresh");
}

void run_once(const Case& c, uint64_t seed, Detector& detector, Tally& out) {
  std::vector<Leaf> leaves = usual_leaves();
  const size_t usual = leaves.size();
  for (const Leaf& leaf : new_leaves(c.what)) leaves.push_back(leaf);
  const auto pieces = static_cast<double>(leaves.size() - usual);
  SimulatedProcess process(leaves, seed);
  process.set_dispersion(c.dispersion);
  bool early = false;
  for (int tick = 0; tick < c.baseline; ++tick) early |= detector.observe(process.tick()).has_value();
  out.early += early ? 1 : 0;
  if (c.what == What::kWhileAnother) {
    process.move_share(0, 2, 0.1);
    for (int tick = 0; tick < 60; ++tick) (void)detector.observe(process.tick());
  }
  // On top of what there was: all else shrinks in proportion.
  for (size_t i = usual; i < leaves.size(); ++i) process.set_share(i, c.share / (1 - c.share) / pieces);
  for (int tick = 1; tick <= kLongest; ++tick) {
    const auto finding = detector.observe(process.tick());
    if (!finding) continue;
    if (c.what == What::kWhileAnother && !names_the_new(*finding, process)) continue;
    out.delays.push_back(tick);
    out.right += names_the_new(*finding, process) ? 1 : 0;
    return;
  }
}

void print_changes(int runs) {
  std::printf("## New code\n\n");
  std::printf(
      "As installed, 99 samples a tick of 1 s, 400 functions with shares like 1/rank^1.2 before, %d runs a row.\n",
      runs);
  std::printf("\"found\": within 600 s. \"named\": the new function, or one of the new functions first.\n\n");
  std::printf("| what | share | baseline | dispersion | composition: found | median | P95 | named | novelty: found | ");
  std::printf("median | P95 | named | early |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const What what : {What::kOne, What::kHelper, What::kSpread, What::kPaths, What::kWhileAnother}) {
    for (const double share : {0.01, 0.02, 0.05, 0.2}) {
      for (const auto& [baseline, dispersion] : {std::pair{300, 1.0}, {300, 5.0}, {1800, 2.0}}) {
        const Case c{what, share, baseline, dispersion};
        Tally composition{runs, 0, 0, {}};
        Tally novelty{runs, 0, 0, {}};
        for (int i = 0; i < runs; ++i) {
          const auto seed = static_cast<uint64_t>(i) * 7919 + 5;
          CompositionDetector shares({}, {});
          run_once(c, seed, shares, composition);
          NoveltyDetector fresh({}, {});
          run_once(c, seed, fresh, novelty);
        }
        std::printf("| %s | %g %% | %d s | %g | %zu | %s | %s | %d | %zu | %s | %s | %d | %d |\n", text_of(what),
                    share * 100, baseline, dispersion, composition.delays.size(), composition.at(0.5).c_str(),
                    composition.at(0.95).c_str(), composition.right, novelty.delays.size(), novelty.at(0.5).c_str(),
                    novelty.at(0.95).c_str(), novelty.right, novelty.early);
        std::fflush(stdout);
      }
    }
  }
}

void print_run_lengths(int runs) {
  constexpr double kPromised = 1e4;
  std::printf("\n## Run length of novelty without a change, %.0e ticks promised\n\n", kPromised);
  std::printf(
      "A budget for this process alone, persistence off, changes of 0.5 points worth telling; each of %d runs\n", runs);
  std::printf("is watched from its first tick for %.0f ticks after learning.\n\n", kPromised);
  std::printf("| functions | shares like | dispersion | wandering | ticks watched | false alarms | 95 %% |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
  for (const auto& [functions, slope] : {std::pair{400, 1.2}, {2000, 1.0}, {2000, 0.5}}) {
    for (const auto& [dispersion, wandering] : {std::pair{1.0, 0.0}, {2.0, 0.0}, {5.0, 0.0}, {2.0, 0.5}}) {
      double ticks = 0;
      int alarms = 0;
      for (int i = 0; i < runs; ++i) {
        std::vector<Leaf> leaves;
        for (int f = 1; f <= functions; ++f) leaves.push_back({{"main", known(f)}, std::pow(f, -slope)});
        SimulatedProcess process(leaves, static_cast<uint64_t>(i) * 104729 + 11);
        process.set_dispersion(dispersion);
        if (wandering > 0) process.set_wandering(wandering, 10);
        DetectionPolicy policy;
        policy.false_alarm_period_s = kPromised;
        policy.expected_streams = 1;
        policy.min_change_share = 0.005;
        policy.min_change_cores = 0;
        NoveltySettings settings;
        settings.persistence_s = 0;
        settings.min_relative_change = 0;
        NoveltyDetector detector(policy, settings);
        while (detector.is_learning()) (void)detector.observe(process.tick());
        for (double tick = 0; tick < kPromised; ++tick) {
          ++ticks;
          if (!detector.observe(process.tick())) continue;
          ++alarms;
          break;
        }
      }
      const auto [few, many] = poisson_interval(alarms);
      std::printf("| %d | 1/rank^%g | %g | %g | %.0f | %d | %.0f – %s |\n", functions, slope, dispersion, wandering,
                  ticks, alarms, ticks / many,
                  few > 0 ? std::to_string(static_cast<int64_t>(ticks / few)).c_str() : "∞");
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace stackwatch

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "--quick") == 0;
  if (argc > 2 || (argc == 2 && !quick)) {
    std::fprintf(stderr, "usage: bench_novelty [--quick]\n");
    return 2;
  }
  stackwatch::print_run_lengths(quick ? 4 : 20);
  stackwatch::print_changes(quick ? 4 : 20);
  return 0;
}
