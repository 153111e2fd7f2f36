// SPDX-License-Identifier: Apache-2.0
#include "daemon/ranking.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace stackwatch {
namespace {

constexpr double kNowHalfLifeS = 3;     // one busy tick counts for a fifth
constexpr double kPastHalfLifeS = 300;  // "usual" is what it did in the last minutes
constexpr int kSuspectTicks = 2;        // in a row: a single burst is over before anybody could look
constexpr double kLearnS = 20;          // younger processes have no past to be compared with
constexpr double kNoiseBand = 4;        // in mean absolute deviations: about 3.2 standard deviations
constexpr double kMaxChange = 4;        // sixteen times the usual; more says no more
/// Below these amounts a change of a metric is of no interest: 1 % of a core, 100 switches/s, 1 MB, …
constexpr Metrics kFloor = {0.01, 0.01, 100, 100, 1 << 20, 1 << 20};

constexpr double kThrottled = 0.05;   // of the periods; less is a burst now and then
constexpr double kQuotaCounts = 1.1;  // a quota that is far above what it is entitled to anyway holds nobody back

double share_of_step(double interval_s, double half_life_s) { return 1 - std::exp2(-interval_s / half_life_s); }

/// What a process once did fades away for ever: after an hour to numbers that a CPU computes with a hundred times
/// slower.
double noticeable(size_t metric, double value) { return value < 1e-9 * kFloor[metric] ? 0 : value; }

size_t index(Metric metric) { return static_cast<size_t>(metric); }

}  // namespace

std::string_view to_string(Metric metric) {
  static constexpr std::array<std::string_view, kMetrics> kNames = {"on_cpu", "run_queue", "switches",
                                                                    "faults", "rss",       "io"};
  return kNames[index(metric)];
}

Ranker::Totals Ranker::totals_of(const ProcessSample& sample) {
  return {sample.on_cpu_ns, sample.run_queue_ns, sample.voluntary_switches + sample.involuntary_switches,
          sample.minor_faults + sample.major_faults, sample.read_bytes + sample.write_bytes};
}

void Ranker::update(History& history, const ProcessSample& sample, const Steps& steps) {
  const bool first = history.age_s < 0;
  const double interval_s = steps.interval_s;
  const Totals totals = totals_of(sample);
  const auto rate = [interval_s](uint64_t now, uint64_t before) {
    return now > before ? static_cast<double>(now - before) / interval_s : 0;
  };
  Metrics current{};
  if (!first) {
    current = {rate(totals.on_cpu_ns, history.totals.on_cpu_ns) / 1e9,
               rate(totals.run_queue_ns, history.totals.run_queue_ns) / 1e9,
               rate(totals.switches, history.totals.switches),
               rate(totals.faults, history.totals.faults),
               0,
               rate(totals.io_bytes, history.totals.io_bytes)};
  }
  current[index(Metric::kRss)] = static_cast<double>(sample.rss_bytes);
  history.totals = totals;
  history.last = current;
  if (first) {
    history.now = history.past = current;
    history.age_s = 0;
    return;
  }
  history.age_s += interval_s;
  // A young past is the plain mean of what was seen, so that its first second does not weigh for minutes.
  const double past_step = std::max(steps.past, interval_s / history.age_s);
  for (size_t m = 0; m < kMetrics; ++m) {
    const double off = current[m] - history.past[m];
    history.now[m] = noticeable(m, history.now[m] + steps.now * (current[m] - history.now[m]));
    history.past[m] = noticeable(m, history.past[m] + past_step * off);
    history.deviation[m] = noticeable(m, history.deviation[m] + past_step * (std::abs(off) - history.deviation[m]));
  }
}

void Ranker::rate(Ranked& ranked, const History& history, const Metrics& now) const {
  ranked.now = now;
  ranked.parts = {};
  const RankingWeights& w = config_.weights;
  const Metrics weights = {w.on_cpu, w.run_queue, w.switches, w.faults, w.rss, w.io};
  for (size_t m = 0; m < kMetrics; ++m) {
    const double off = now[m] - history.past[m];
    if (history.age_s < kLearnS || off < kFloor[m] || off < kNoiseBand * history.deviation[m]) continue;
    ranked.parts[m] = weights[m] * std::min(kMaxChange, std::log2(now[m] / std::max(history.past[m], kFloor[m])));
    ranked.parts[m] = std::max(ranked.parts[m], 0.0);
  }
  const double cores = now[index(Metric::kOnCpu)];
  ranked.parts[kMetrics] = w.entitlement * (cores / ranked.entitled_cores + ranked.limits.throttled);
  ranked.score = w.on_cpu * cores + std::accumulate(ranked.parts.begin(), ranked.parts.end(), 0.0);
}

const std::vector<Ranked>& Ranker::observe(double time_s, std::span<const ProcessSample> samples) {
  const double interval_s = std::clamp(time_s - last_time_s_, 1e-3, 3600.0);
  last_time_s_ = time_s;
  const Steps steps = {interval_s, share_of_step(interval_s, kNowHalfLifeS), share_of_step(interval_s, kPastHalfLifeS)};
  follow(samples);
  std::vector<Entitlement::Active> active;
  for (size_t i = 0; i < samples.size(); ++i) {
    History& history = histories_[i];
    update(history, samples[i], steps);
    if (history.now[index(Metric::kOnCpu)] + history.now[index(Metric::kRunQueue)] > kFloor[0])
      active.push_back({&samples[i], history.now[index(Metric::kOnCpu)]});
  }
  entitlement_.begin_tick(time_s, active);

  for (size_t i = 0; i < samples.size(); ++i) {
    History& history = histories_[i];
    Ranked& ranked = ranking_[i];
    ranked.past = history.past;
    ranked.age_s = history.age_s;
    ranked.entitled_cores = entitlement_.cores(samples[i]);
    ranked.limits = entitlement_.limits(samples[i]);
    ranked.suspect = false;
    rate(ranked, history, history.last);
    history.ticks_above = ranked.score >= config_.floor ? history.ticks_above + 1 : 0;
    rate(ranked, history, history.now);
  }
  choose_suspects(time_s);
  return ranking_;
}

void Ranker::follow(std::span<const ProcessSample> samples) {
  if (std::ranges::equal(ranking_, samples, {}, &Ranked::key, &ProcessSample::key)) return;
  std::vector<Ranked> ranking(samples.size());
  std::vector<History> histories(samples.size());
  size_t before = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    ranking[i].key = samples[i].key;
    while (before < ranking_.size() && ranking_[before].key < samples[i].key) ++before;
    if (before < ranking_.size() && ranking_[before].key == samples[i].key) histories[i] = histories_[before];
  }
  ranking_ = std::move(ranking);
  histories_ = std::move(histories);
}

const Ranked* Ranker::find(const ProcessKey& process) const {
  const auto found = std::ranges::lower_bound(ranking_, process, {}, &Ranked::key);
  return found != ranking_.end() && found->key == process ? &*found : nullptr;
}

// Who is a suspect stays one for the dwell time and while its score is above the floor, unless the places run out and
// somebody ranks clearly higher.
void Ranker::choose_suspects(double time_s) {
  constexpr double kClearlyHigher = 1.25;
  std::vector<size_t> staying;
  std::vector<size_t> candidates;
  for (size_t i = 0; i < ranking_.size(); ++i) {
    History& history = histories_[i];
    const bool is_suspect = history.suspect_since_s >= 0;
    const bool is_high = ranking_[i].score >= config_.floor;
    if (is_suspect && time_s - history.suspect_since_s < config_.min_dwell_s) {
      staying.push_back(i);
    } else if (is_high && (is_suspect || history.ticks_above >= kSuspectTicks)) {
      candidates.push_back(i);
    } else {
      history.suspect_since_s = -1;
    }
  }
  const auto by_score = [this](size_t a, size_t b) { return ranking_[a].score > ranking_[b].score; };
  const auto standing = [this](size_t i) {
    return ranking_[i].score * (histories_[i].suspect_since_s >= 0 ? kClearlyHigher : 1.0);
  };
  std::ranges::stable_sort(staying, by_score);
  std::ranges::stable_sort(candidates, by_score);
  std::ranges::stable_sort(candidates, [&](size_t a, size_t b) { return standing(a) > standing(b); });
  const size_t places = config_.max_suspects > staying.size() ? config_.max_suspects - staying.size() : 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    History& history = histories_[candidates[i]];
    if (i >= places) {
      history.suspect_since_s = -1;
    } else {
      if (history.suspect_since_s < 0) history.suspect_since_s = time_s;
      staying.push_back(candidates[i]);
    }
  }
  suspects_.clear();
  for (const size_t i : staying) {
    ranking_[i].suspect = true;
    suspects_.push_back(ranking_[i].key);
  }
}

std::string Ranked::reason() const {
  const size_t most = static_cast<size_t>(std::ranges::max_element(parts) - parts.begin());
  const double cores = now[index(Metric::kOnCpu)];
  if (parts[most] <= 0) return "";
  // Whoever waits for a CPU because of a quota is told the cause.
  const bool is_held_back = most == kMetrics || most == index(Metric::kRunQueue);
  if (is_held_back && limits.throttled >= kThrottled) return fmt::format("throttled {:.0f} %", 100 * limits.throttled);
  if (most == kMetrics && limits.quota_cores && *limits.quota_cores <= kQuotaCounts * entitled_cores) {
    return fmt::format("uses {:.0f} % of its quota", 100 * std::max(cores, limits.quota_used) / *limits.quota_cores);
  }
  if (most == kMetrics) return fmt::format("uses {:.0f} % of its entitlement", 100 * cores / entitled_cores);
  static constexpr std::array<std::string_view, kMetrics> kWhat = {
      "CPU", "waiting for a CPU", "context switches", "page faults", "memory", "disk I/O"};
  const double before = std::max(past[most], kFloor[most]);
  return fmt::format("{:.1f}x its usual {}", now[most] / before, kWhat[most]);
}

}  // namespace stackwatch
