// SPDX-License-Identifier: Apache-2.0
#include "detectors/wait.h"

#include <algorithm>
#include <cmath>

#include "detectors/alternatives.h"
#include "detectors/share_heritage.h"

namespace stackwatch {
namespace {

constexpr double kHoldLearning = 0.3;        // as for composition
constexpr double kRecalibrateGrowth = 1.05;  // likewise
constexpr int kMaxLearnPerTick = 4;          // likewise
constexpr double kStillWorth = 0.5;          // likewise
constexpr double kReturnScore = 10;          // likewise
constexpr double kReturnTicks = 10;          // likewise
constexpr double kExplains = 0.8;            // likewise
constexpr double kContributorPart = 0.25;    // likewise
constexpr size_t kMaxContributors = 8;       // likewise
// Few blocks say little about a variance: as for level_change.h.
constexpr double kMinBlocks = 5;
constexpr double kVarianceMargin = 2;
constexpr double kSteadiest = 0.05;
constexpr double kSteadiestChange = 0.2;
// A tick longer than this is a machine that slept, not a tick.
constexpr double kLongestTickS = 60;
constexpr double kMaxThreads = 1e6;
constexpr double kSecondsPerCount = 1e-3;  // read_tick() gives milliseconds
constexpr double kNsPerCount = 1e6;
// An idle process has no load to compare with: below this its waits are taken as they are.
constexpr double kLeastLoad = 0.01;

}  // namespace

WaitDetector::WaitDetector(const DetectionPolicy& policy, const WaitSettings& settings)
    : policy_(policy), settings_(settings), streams_(settings.max_streams) {}

void WaitDetector::forget_all() {
  streams_.clear();
  evidence_ = {};
  moments_ = {};
  window_ = {};
  baseline_ = {};
  kinds_.clear();
  left_out_.clear();
  deviations_.clear();
  change_.reset();
  calibrated_s_ = 0;
  learned_ticks_ = watched_from_ = 0;
  learning_ = true;
  stack_names_.clear();
  function_names_.clear();
  inherited_stacks_.clear();
  inherited_functions_.clear();
  parked_.clear();
  start_up_s_.reset();
  inherited_ = false;
}

std::optional<Finding> WaitDetector::observe_census(const CensusDelta& census) {
  const double cores = census.on_cpu_s / census.interval_s;
  if (!std::isfinite(cores) || cores < 0 || cores > kMaxThreads) return std::nullopt;
  load_seen_s_ += census.interval_s;
  const auto step = [&](double mean_s) {
    return std::max(1 - std::exp(-census.interval_s / mean_s), census.interval_s / load_seen_s_);
  };
  load_ += step(kLoadMeanS) * (cores - load_);
  // While a change stands the load is part of what changed.
  if (!change_) usual_load_ += step(settings_.memory_s) * (cores - usual_load_);
  return std::nullopt;
}

std::optional<Finding> WaitDetector::observe(const NamedDelta& delta) {
  Tick tick;
  if (!prepare(delta, tick)) return standing();
  window_.push(tick);
  learn_names(tick);
  for (const uint32_t stream : streams_.admit(tick, index_)) {
    while (evidence_.size() <= stream) evidence_.add();
    while (moments_.size() <= stream) moments_.add();
    if (deviations_.size() <= stream) deviations_.resize(stream + 1);
    evidence_.reset(stream);
    begin_moments(stream);
    if (!learning_) calibrate(stream);
  }
  if (start_up_s_) {
    learned_ticks_ = watched_from_ = window_.pushed();
    if ((*start_up_s_ -= tick.interval_s) <= 0) end_start_up();
    return std::nullopt;
  }
  if (learning_) {
    learn(tick);
    learned_ticks_ = window_.pushed();
    if (baseline_.wall_s >= settings_.learn_s) end_learning();
    return std::nullopt;
  }
  update_evidence(tick);
  if (change_) return follow_change(tick);
  learn_ripe();
  return look_for_change();
}

void WaitDetector::set_policy(const DetectionPolicy& policy) {
  policy_ = policy;
  if (!learning_) calibrate_all();
}

// ---- ticks

bool WaitDetector::prepare(const NamedDelta& delta, Tick& tick) {
  if (delta.functions == nullptr || !read_tick(delta, last_end_s_, tick)) return false;
  last_end_s_ = tick.end_s;
  if (tick.interval_s > kLongestTickS || too_lossy(delta, tick.total * kNsPerCount)) return false;
  if (index_.follow(delta.stacks)) forget_all();
  functions_ = delta.functions;
  std::erase_if(tick.entries, [&](const Tick::Entry& entry) { return !counts(entry.stack, delta); });
  const double growth = usual_load_ > kLeastLoad ? std::max(1.0, load_ / usual_load_) : 1.0;
  tick.total = 0;
  for (Tick::Entry& entry : tick.entries) {
    entry.count = static_cast<float>(std::min<double>(entry.count / growth, kMaxThreads / kSecondsPerCount));
    tick.total += entry.count;
  }
  return true;
}

bool WaitDetector::counts(uint32_t stack, const NamedDelta& delta) {
  if (kinds_.size() <= stack) {
    kinds_.resize(stack + 1);
    left_out_.resize(stack + 1);
  }
  if (kinds_[stack] == 0) {
    const auto frames = (*delta.stacks)[StackId{stack}];
    kinds_[stack] = static_cast<uint8_t>(1 + static_cast<int>(wait_kind(frames, *functions_)));
    left_out_[stack] = !parked_.empty() && parked_.contains(name_of(frames, *functions_)) ? 1 : 0;
  }
  return kinds_[stack] != 1 + static_cast<int>(WaitKind::kIdle) && left_out_[stack] == 0;
}

void WaitDetector::update_evidence(const Tick& tick) {
  evidence_.begin_tick(tick.interval_s, evidence_cap(threshold(), settings_.persistence_s, policy_.tick_s));
  for (const BlockMoments::Count& count : streams_.count(tick, index_)) {
    const double before = level(streams_[count.stream]);
    const double reach = std::max(kBelieved * deviations_[count.stream], 2 * smallest_change(before));
    const double seconds = std::min(count.value * kSecondsPerCount, (before + reach) * tick.interval_s);
    evidence_.update(count.stream, seconds);
  }
  evidence_.finish_tick();
}

double WaitDetector::amount_in(const Tick& tick, const Item& item) {
  double sum = 0;
  for (const Tick::Entry& entry : tick.entries) {
    if (item.is_stack) {
      if (entry.stack == item.index) sum += entry.count;
      continue;
    }
    const auto functions = index_.functions_of(entry.stack);
    if (std::ranges::find(functions, item.index) != functions.end()) sum += entry.count;
  }
  return sum * kSecondsPerCount;
}

// ---- learning

void WaitDetector::learn(const Tick& tick) {
  std::vector<BlockMoments::Count> counts;
  for (BlockMoments::Count count : streams_.count(tick, index_)) {
    double seconds = count.value * kSecondsPerCount;
    if (!learning_) {
      const double before = level(streams_[count.stream]);
      seconds = std::min(seconds, (before + 8 * deviations_[count.stream] + smallest_change(before)) * tick.interval_s);
    }
    counts.push_back({count.stream, static_cast<float>(seconds)});
  }
  moments_.learn(counts, tick.interval_s);
  baseline_.add(tick, index_);
  if (baseline_.wall_s >= 2 * settings_.memory_s && moments_.at_boundary()) {
    moments_.halve();
    baseline_.halve();
    inherited_stacks_.halve();
    inherited_functions_.halve();
    calibrated_s_ /= 2;
  }
}

void WaitDetector::end_learning() {
  leave_out_main_waits(baseline_);
  learning_ = false;
  watched_from_ = window_.pushed();
  calibrate_all();
}

// Parked threads whose names say nothing: they wait all the time, and longer whenever there is less to do.
void WaitDetector::leave_out_main_waits(const StackCounts& seen) {
  for (uint32_t stack = 0; stack < seen.by_stack.size() && stack < kinds_.size(); ++stack) {
    const bool is_unknown = kinds_[stack] == 1 + static_cast<int>(WaitKind::kUnknown);
    const double threads = seen.stack(stack) * kSecondsPerCount / std::max(seen.wall_s, 1.0);
    if (is_unknown && threads >= kMainWait) left_out_[stack] = 1;
  }
}

void WaitDetector::learn_ripe() {
  const size_t strongest = evidence_.strongest();
  const bool hold = strongest < evidence_.size() && evidence_.score(strongest) > kHoldLearning * threshold();
  for (int i = 0; i < kMaxLearnPerTick && learned_ticks_ < window_.pushed(); ++i) {
    const uint64_t age = window_.pushed() - learned_ticks_;
    if (age > window_.size()) {
      learned_ticks_ = window_.pushed() - window_.size();
      continue;
    }
    const Tick& oldest = window_[window_.size() - age];
    const bool last_chance = age >= TickWindow::kCapacity;
    if (!last_chance && (hold || oldest.end_s > last_end_s_ - settings_.quarantine_s)) break;
    learn(oldest);
    ++learned_ticks_;
  }
  if (baseline_.wall_s >= kRecalibrateGrowth * calibrated_s_) calibrate_all();
}

void WaitDetector::calibrate_all() {
  calibrated_s_ = baseline_.wall_s;
  for (size_t stream = 0; stream < streams_.size(); ++stream) {
    if (streams_[stream].used) calibrate(stream);
  }
}

double WaitDetector::level(const Item& item) const {
  const double count = item.is_stack ? baseline_.stack(item.index) : baseline_.function(item.index);
  return count * kSecondsPerCount / std::max(baseline_.wall_s, 1.0);
}

double WaitDetector::smallest_change(double before) const {
  return std::max(settings_.min_change_threads, settings_.min_relative_change * before);
}

double WaitDetector::variance_of(size_t stream) const {
  const double before = level(streams_[stream]);
  const double steadiest = kSteadiest * before + kSteadiestChange * smallest_change(before);
  double variance = steadiest * steadiest;
  for (size_t scale = 0; scale < kBlockScales && moments_.blocks(scale) >= kMinBlocks; ++scale) {
    const double degrees = moments_.blocks(scale) - 1;
    const double estimate = moments_.scatter(stream, scale) / degrees;
    variance = std::max(variance, estimate * (1 + kVarianceMargin * std::sqrt(2 / degrees)));
  }
  return variance;
}

void WaitDetector::calibrate(size_t stream) {
  const double degrees = std::max(1.0, moments_.blocks(0) - 1);
  deviations_[stream] = std::sqrt(std::max(0.0, moments_.scatter(stream, 0)) / degrees);
  const double before = level(streams_[stream]);
  LevelBaseline baseline{before, variance_of(stream), std::max(baseline_.wall_s, 1.0), smallest_change(before)};
  baseline.may_decrease = false;
  evidence_.calibrate(stream, level_alternatives(baseline));
}

// ---- findings

std::optional<Finding> WaitDetector::look_for_change() {
  const size_t strongest = evidence_.strongest();
  if (strongest >= evidence_.size() || evidence_.score(strongest) < threshold()) return std::nullopt;
  const Item item = streams_[strongest];
  const double before = level(item);
  const size_t first = onset(item, before, before + 2 * smallest_change(before));
  change_ = change_since(first, item, strongest);
  return standing();
}

size_t WaitDetector::onset(const Item& item, double before, double after) {
  const double middle = (before + after) / 2;
  double sum = 0;
  double most = 0;
  const uint64_t oldest = window_.pushed() - window_.size();
  const size_t begin = watched_from_ > oldest ? static_cast<size_t>(watched_from_ - oldest) : 0;
  size_t first = window_.size() - 1;
  for (size_t i = window_.size(); i-- > begin;) {
    const double interval_s = window_[i].interval_s;
    const double rate = std::min(amount_in(window_[i], item) / interval_s, after + (after - before));
    sum += (rate - middle) * interval_s;
    if (sum <= most) continue;
    most = sum;
    first = i;
  }
  return first;
}

std::optional<WaitDetector::Change> WaitDetector::change_since(size_t first, const Item& item, size_t stream) {
  StackCounts after;
  for (size_t i = first; i < window_.size(); ++i) after.add(window_[i], index_);
  Change change;
  change.item = item;
  change.onset_s = window_[first].begin_s();
  change.score = evidence_.score(stream);
  change.wall_s = after.wall_s;
  change.variance = variance_of(stream);
  name_cause(change, after);
  change.before = level(change.item);
  for (size_t i = first; i < window_.size(); ++i) change.amount += amount_in(window_[i], change.item);
  if (change.after() - change.before < smallest_change(change.before)) return std::nullopt;
  return change;
}

// Callers carry all of the growth but lie higher; what lies deeper carries too little, or only waits.
void WaitDetector::name_cause(Change& change, const StackCounts& after) {
  const auto growth = [&](const Item& item) {
    const double count = item.is_stack ? after.stack(item.index) : after.function(item.index);
    return count * kSecondsPerCount / std::max(after.wall_s, 1e-3) - level(item);
  };
  double most_of_stack = 0;
  for (uint32_t stack = 0; stack < after.by_stack.size(); ++stack) {
    const double of_stack = growth({stack, true, true});
    if (of_stack <= most_of_stack) continue;
    most_of_stack = of_stack;
    change.stack = stack;
  }
  double most = 0;
  for (uint32_t f = 0; f < index_.functions(); ++f) most = std::max(most, growth({f, false, true}));
  std::optional<uint32_t> named;
  std::optional<uint32_t> primitive;
  for (const uint32_t f : index_.functions_of(change.stack)) {
    if (!index_.is_real(f) || growth({f, false, true}) < kExplains * most) continue;
    (is_wait_primitive((*functions_)[index_.function(f)].name) ? primitive : named) = f;
  }
  if (!named) named = primitive;
  change.item = named ? Item{*named, false, true} : Item{change.stack, true, true};
  std::vector<Contributor> others;
  for (uint32_t f = 0; f < index_.functions(); ++f) {
    const double own = growth({f, false, true});
    const FunctionId id = index_.function(f);
    // Those of the same stacks rose with it; the others are news.
    const auto same_stack = index_.functions_of(change.stack);
    if (!index_.is_real(f) || own < kContributorPart * most || std::ranges::find(same_stack, f) != same_stack.end() ||
        is_wait_primitive((*functions_)[id].name)) {
      continue;
    }
    const double before = level({f, false, true});
    others.push_back({id, before, before + own});
  }
  std::ranges::sort(others,
                    [](const Contributor& a, const Contributor& b) { return a.after - a.before > b.after - b.before; });
  if (others.size() > kMaxContributors) others.resize(kMaxContributors);
  change.contributors = std::move(others);
}

std::optional<Finding> WaitDetector::follow_change(const Tick& tick) {
  Change& change = *change_;
  const double amount = amount_in(tick, change.item);
  change.amount += amount;
  change.wall_s += tick.interval_s;
  if (const size_t strongest = evidence_.strongest(); strongest < evidence_.size()) {
    change.score = std::max(change.score, evidence_.score(strongest));
  }
  const double middle = (change.before + change.after()) / 2;
  const double ratio =
      (middle - amount / tick.interval_s) * (change.after() - change.before) * tick.interval_s / change.variance;
  const double most = kReturnScore / kReturnTicks;
  change.returned = std::max(0.0, change.returned + std::clamp(ratio, -most, most));
  const bool is_small = change.after() - change.before < kStillWorth * smallest_change(change.before);
  if (change.returned >= kReturnScore || is_small) {
    change_.reset();
    evidence_.reset_all();
    learned_ticks_ = watched_from_ = window_.pushed();
    return std::nullopt;
  }
  if (last_end_s_ - change.onset_s >= settings_.adopt_after_s) {
    forget_all();
    return std::nullopt;
  }
  return standing();
}

std::optional<Finding> WaitDetector::standing() const {
  if (!change_) return std::nullopt;
  Finding out;
  out.detector = kName;
  out.probe = ProbeKind::kBlocked;
  if (!change_->item.is_stack) out.frame = index_.function(change_->item.index);
  out.stack = StackId{change_->stack};
  out.before = change_->before;
  out.after = change_->after();
  out.unit_of_measure = "threads waiting";
  out.onset_s = change_->onset_s;
  out.score = change_->score;
  out.threshold = threshold();
  out.contributors = change_->contributors;
  return out;
}

}  // namespace stackwatch
