// SPDX-License-Identifier: Apache-2.0
#include "detectors/composition.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "detectors/alternatives.h"

namespace stackwatch {
namespace {

// Learning waits while a stream has this evidence for a change, e^3 to 1; more where there are many streams, of which
// one is always somewhat ahead.
constexpr double kHoldLearning = 3;
// The alternatives are placed anew when the baseline has grown by a twentieth: its error shrinks by 2.5 % then.
constexpr double kRecalibrateGrowth = 1.05;
// The longer the baseline, the less a minute adds to it and the more a slow change could spoil: a tick is learned when
// it is a twelfth as old as the baseline, up to four minutes.
constexpr double kQuarantinePart = 12;
constexpr double kMaxQuarantineS = 240;
// So many ticks are lost to learning while evidence hovers, a quarter of an hour; the changes that take longer to find
// are below what is worth telling.
constexpr uint64_t kMaxGivenUp = 900;
// Ticks that may be learned in one tick after learning was on hold: bounds the work of a tick.
constexpr int kMaxLearnPerTick = 4;
// The part of the dispersion that comes from wandering shares grows with the number of samples. What was measured at
// one load holds up to twice of it; of a larger tick only so many samples are believed to be news.
constexpr double kMaxLoad = 2;
// How often places of streams that ceased to matter are given back when all are taken.
constexpr uint64_t kMakeRoomEvery = 16;
// A change that was not worth telling is looked at again after so many ticks: the look costs a pass over the window.
constexpr uint64_t kRetryEvery = 4;

// n times the Kullback-Leibler divergence: log-likelihood ratio of the counts' own share against p.
double log_likelihood_ratio(double x, double n, double p) {
  double sum = 0;
  if (x > 0) sum += x * std::log(x / n / p);
  if (x < n) sum += (n - x) * std::log((n - x) / n / (1 - p));
  return sum;
}

}  // namespace

CompositionDetector::CompositionDetector(const DetectionPolicy& policy, const CompositionSettings& settings)
    : policy_(policy),
      settings_(settings),
      streams_(settings.max_streams),
      last_end_s_(-std::numeric_limits<double>::infinity()) {}

std::optional<Finding> CompositionDetector::observe(const NamedDelta& delta) {
  if (!read_tick(delta, last_end_s_, tick_)) return first();
  if (index_.follow(delta.stacks)) start_over();
  last_end_s_ = delta.time_s;
  probe_ = delta.probe;
  if (tick_.total <= 0 || too_lossy(delta, tick_.total) || is_settling(delta)) return first();

  ++ticks_;
  window_.push(tick_);
  if (delta.functions != nullptr) functions_ = delta.functions;
  if (functions_ != nullptr) note_seen(tick_, *functions_);
  admit(tick_);
  if (is_starting_up(tick_)) return std::nullopt;
  follow_changes(tick_);
  if (!is_comparing()) {
    learn_first(tick_);
    return first();
  }
  weigh(tick_);
  learn_ripe();
  look_for_change();
  return first();
}

// Unwind tables come some seconds after the process is attached. Until then its stacks lack their roots, and callers
// have shares that they never have again: one such tick among the first is a dispersion of hundreds for an hour. A
// program whose stacks stay incomplete is judged as it is.
bool CompositionDetector::is_settling(const NamedDelta& delta) {
  if (!learning_ || settled_) return false;
  settling_s_ += delta.interval_s;
  settled_ = !too_rootless(delta, tick_.total) || settling_s_ > kMaxSettling_s;
  return !settled_;
}

void CompositionDetector::set_policy(const DetectionPolicy& policy) {
  policy_ = policy;
  if (is_comparing()) calibrate_all();
}

void CompositionDetector::start_over() {
  streams_.clear();
  evidence_ = {};
  moments_ = {};
  baseline_ = {};
  dispersion_ = {};
  unclaimed_.clear();
  seen_stacks_.clear();
  unknown_stacks_.clear();
  seen_functions_ = 0;
  start_up_s_.reset();
  inherited_ = follows_each_ = false;
  window_.clear();
  standing_.clear();
  inherited_changes_.clear();
  calibrated_total_ = 0;
  learned_ticks_ = watched_from_ = window_.pushed();
  settling_s_ = 0;
  settled_ = false;
  learning_ = true;
  renewing_ = false;
}

double CompositionDetector::threshold() const { return log_threshold(policy_, streams_.used()); }

double CompositionDetector::strongest_score() const {
  const size_t stream = evidence_.strongest();
  return stream < evidence_.size() ? evidence_.score(stream) : -EvidenceGrid::kMaxScore;
}

// ---- learning

void CompositionDetector::learn(const Tick& whole) {
  // One tick a thousand times as large as the others must not be a thousand ticks of baseline.
  Tick part;
  const double weight = learning_ ? 1 : weight_of(whole);
  if (weight < 1) {
    part = whole;
    part.total *= weight;
    for (Tick::Entry& entry : part.entries) entry.count *= static_cast<float>(weight);
  }
  const Tick& tick = weight < 1 ? part : whole;
  baseline_.add(tick, index_);
  moments_.learn(streams_.count(tick, index_), tick.total);
  if (baseline_.wall_s >= 2 * settings_.memory_s && moments_.at_boundary()) {
    baseline_.halve();
    if (standing_.empty()) unclaimed_.halve();  // else it belongs to another mix
    moments_.halve();
    calibrated_total_ /= 2;
  }
}

void CompositionDetector::learn_first(const Tick& tick) {
  if (renewing_) {
    baseline_.add(tick, index_);  // what the dispersion rests on has another mean still
  } else {
    learn(tick);
  }
  learned_ticks_ = window_.pushed();
  begin_comparing();
}

// As soon as there is enough to compare with.
void CompositionDetector::begin_comparing() {
  if (baseline_.wall_s < settings_.learn_s || baseline_.total < kMinBaselineSamples) return;
  if (renewing_) recentre();
  learning_ = renewing_ = false;
  watched_from_ = window_.pushed();
  calibrate_all();
}

// What was learned about dispersion holds around the shares of another mix.
void CompositionDetector::recentre() {
  for (uint32_t stream = 0; stream < streams_.size(); ++stream) {
    if (streams_[stream].used) moments_.recentre(stream, baseline_of(stream).share, dispersion_.process());
  }
}

void CompositionDetector::learn_ripe() {
  const double many = std::log(std::max(1.0, static_cast<double>(streams_.used())));
  const bool hold = strongest_score() > many + kHoldLearning;
  for (int i = 0; i < kMaxLearnPerTick && learned_ticks_ < window_.pushed(); ++i) {
    const size_t waiting = static_cast<size_t>(window_.pushed() - learned_ticks_);
    // The window's oldest tick is about to be lost. A small change may take longer than the window, so it is not
    // learned; evidence that hovers for much longer is no change worth telling, so it is.
    const bool last_chance = waiting >= window_.size() && window_.size() == TickWindow::kCapacity;
    if (hold && !last_chance) break;
    const Tick& oldest = window_[window_.size() - std::min(waiting, window_.size())];
    if (!last_chance && oldest.end_s > last_end_s_ - quarantine_s()) break;
    given_up_ = hold ? given_up_ + 1 : 0;
    if (given_up_ == 0 || given_up_ > kMaxGivenUp) learn(oldest);
    ++learned_ticks_;
  }
  if (baseline_.total >= kRecalibrateGrowth * calibrated_total_) calibrate_all();
}

double CompositionDetector::quarantine_s() const {
  const double unhurried = std::min(kMaxQuarantineS, baseline_.wall_s / kQuarantinePart);
  return settings_.quarantine_s > 0 ? std::max(settings_.quarantine_s, unhurried) : 0;
}

ShareDispersion::Share CompositionDetector::baseline_of(size_t stream) const {
  const ShareStreams::Item& item = streams_[stream];
  const double count = item.is_stack ? baseline_.stack(item.index) : baseline_.function(item.index);
  return {baseline_.total > 0 ? count / baseline_.total : 0, count};
}

double CompositionDetector::min_change(double share) const {
  return std::max({policy_.min_change_share, settings_.min_relative_change * share, 1e-4});
}

void CompositionDetector::calibrate_all() {
  calibrated_total_ = baseline_.total;
  std::vector<ShareDispersion::Share> shares(moments_.size());  // not kept: 8 kB
  for (size_t stream = 0; stream < streams_.size(); ++stream) {
    if (streams_[stream].used) shares[stream] = baseline_of(stream);
  }
  dispersion_.estimate(moments_, shares);
  for (uint32_t stream = 0; stream < streams_.size(); ++stream) {
    if (streams_[stream].used) calibrate(stream);
  }
}

void CompositionDetector::calibrate(uint32_t stream) {
  const ShareDispersion::Share share = baseline_of(stream);
  const double factor = dispersion_.factor(moments_, stream, share);
  evidence_.calibrate(stream,
                      share_alternatives({share.count, baseline_.total, factor, min_change(share.share), threshold()}));
}

void CompositionDetector::admit(const Tick& tick) {
  if (streams_.full() && is_comparing() && ticks_ % kMakeRoomEvery == 0) make_room();
  for (const uint32_t stream : streams_.admit(tick, index_)) {
    while (evidence_.size() <= stream) evidence_.add();
    while (moments_.size() <= stream) moments_.add();
    evidence_.reset(stream);
    moments_.begin(stream, baseline_of(stream).share, dispersion_.process());
    if (is_comparing()) calibrate(stream);
  }
}

void CompositionDetector::make_room() {
  const double unimportant = policy_.min_change_share / 4;
  for (uint32_t stream = 0; stream < streams_.size(); ++stream) {
    if (!streams_[stream].used || baseline_of(stream).share > unimportant || evidence_.score(stream) > 0) continue;
    evidence_.calibrate(stream, {});
    evidence_.reset(stream);
    streams_.release(stream);
  }
}

// ---- evidence

double CompositionDetector::weight_of(const Tick& tick) const {
  const double ticks = std::max(1.0, tick.interval_s / policy_.tick_s);
  const double most = kMaxLoad * baseline_.typical_tick() * ticks;
  return tick.total > most ? most / tick.total : 1;
}

void CompositionDetector::weigh(const Tick& tick) {
  const double weight = weight_of(tick);
  evidence_.begin_tick(tick.total * weight, evidence_cap(threshold(), settings_.persistence_s, policy_.tick_s));
  for (const BlockMoments::Count& count : streams_.count(tick, index_)) {
    evidence_.update(count.stream, static_cast<double>(count.value) * weight);
  }
  evidence_.finish_tick();
}

void CompositionDetector::look_for_change() {
  const size_t stream = evidence_.strongest();
  const double score = evidence_.total_score();
  if (stream >= evidence_.size() || score < threshold() || ticks_ < next_attempt_ || is_returning()) return;
  next_attempt_ = ticks_ + kRetryEvery;

  const ShareStreams::Item item = streams_[stream];
  Change change;
  change.dispersion = dispersion_.factor(moments_, stream, baseline_of(stream));
  change.score = change.evidence = score;
  // The stream that raised the alarm gives a first onset, the cause that follows from it the one that is told.
  const StackCounts first_guess = sum_since(onset_of(item.is_stack, item.index));
  auto cause = cause_of(baseline_, first_guess, change.dispersion, std::nullopt);
  if (!cause) return;
  const bool is_stack = !cause->function;
  const size_t onset = onset_of(is_stack, is_stack ? cause->stack : *cause->function);
  const StackCounts since = sum_since(onset);
  change.onset_s = window_[onset].begin_s();
  change.cores = since.cores();
  const bool calls_kernel = cause->calls_kernel;
  cause = cause_of(baseline_, since, change.dispersion, cause->function);
  if (!cause) return;
  change.cause = *std::move(cause);
  change.cause.calls_kernel = calls_kernel;
  if (!worth_telling(change, 1)) return;
  tell_shift(change, baseline_, since, standing_.empty());
  accept(std::move(change), onset, since);
}

std::optional<Cause> CompositionDetector::cause_of(const StackCounts& before, const StackCounts& after,
                                                   double dispersion, std::optional<uint32_t> function) {
  return find_cause(index_, before, after,
                    {settings_.explains, dispersion, policy_.min_change_share / 2, functions_, function});
}

// What a predecessor left belongs to the mix before the first change.
void CompositionDetector::tell_shift(Change& change, const StackCounts& before, const StackCounts& after,
                                     bool is_first) {
  const bool was_one = change.shift.has_value();
  PastStacks past;
  past.functions = functions_;
  change.shift = find_cost_shift(
      index_, before, after,
      {change.dispersion, policy_.min_change_share, settings_.min_relative_change, policy_.min_change_cores},
      is_first ? past_stacks(functions_) : past);
  if (!was_one) change.shift_since_s = last_end_s_;
}

bool CompositionDetector::worth_telling(const Change& change, double part) const {
  const double size = std::abs(change.cause.change());
  if (size < part * min_change(change.cause.before)) return false;
  return probe_ != ProbeKind::kOnCpu || size * change.cores >= part * policy_.min_change_cores;
}

size_t CompositionDetector::first_watched() const {
  const uint64_t oldest = window_.pushed() - window_.size();
  return static_cast<size_t>(std::max(watched_from_, oldest) - oldest);
}

double CompositionDetector::share_before(bool is_stack, uint32_t item) const {
  const double count = is_stack ? baseline_.stack(item) : baseline_.function(item);
  return std::min(1 - 1e-9, (count + 0.5) / (baseline_.total + 1));
}

std::vector<double> CompositionDetector::series_of(bool is_stack, uint32_t item, size_t first) {
  std::vector<double> series(window_.size() - first);
  for (size_t i = 0; i < series.size(); ++i) {
    for (const Tick::Entry& entry : window_[first + i].entries) {
      const auto functions = index_.functions_of(entry.stack);
      const bool counts =
          is_stack ? entry.stack == item : std::find(functions.begin(), functions.end(), item) != functions.end();
      if (counts) series[i] += static_cast<double>(entry.count);
    }
  }
  return series;
}

size_t CompositionDetector::onset_of(bool is_stack, uint32_t item) {
  const double before = share_before(is_stack, item);
  const size_t start = first_watched();
  const std::vector<double> series = series_of(is_stack, item, start);
  double x = 0;
  double n = 0;
  double most = -1;
  size_t onset = window_.size() - 1;
  for (size_t i = series.size(); i-- > 0;) {
    x += series[i];
    n += window_[start + i].total;
    const double evidence = log_likelihood_ratio(std::min(x, n), n, before);
    if (evidence <= most) continue;
    most = evidence;
    onset = start + i;
  }
  return onset;
}

StackCounts CompositionDetector::sum_since(size_t first) {
  StackCounts sum;
  for (size_t i = first; i < window_.size(); ++i) sum.add(window_[i], index_);
  return sum;
}

}  // namespace stackwatch
