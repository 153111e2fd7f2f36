// SPDX-License-Identifier: Apache-2.0
#include "detectors/novelty.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "detectors/alternatives.h"

namespace stackwatch {
namespace {

// As in composition: the baseline's error shrinks by 2.5 % until the alternatives are placed anew.
constexpr double kRecalibrateGrowth = 1.05;
// Of a tick with more than twice the usual samples, only so many are believed to be news.
constexpr double kMaxLoad = 2;
// A standing finding ends when this part of what is worth telling is left, or at evidence e^10 to 1 that it is gone,
// gathered in at least ten ticks.
constexpr double kStillWorth = 0.5;
constexpr double kReturnScore = 10;
constexpr double kReturnTicks = 10;

bool is_real(FunctionId id) { return id != FunctionTable::kOther && id != FunctionTable::kUnnamed; }

bool contains(std::span<const FunctionId> functions, FunctionId id) {
  return std::ranges::find(functions, id) != functions.end();
}

bool bit(const std::vector<bool>& bits, uint32_t i) { return i < bits.size() && bits[i]; }

void set_bit(std::vector<bool>& bits, uint32_t i) {
  if (i >= bits.size()) bits.resize(i + 1);
  bits[i] = true;
}

// x of n counts against a share of p: twice of this is the deviance.
double log_likelihood_ratio(double x, double n, double p) {
  double sum = 0;
  if (x > 0) sum += x * std::log(x / n / p);
  if (x < n) sum += (n - x) * std::log((n - x) / n / (1 - p));
  return sum;
}

// What was never there cannot become less.
Alternatives increases(const ShareBaseline& baseline) {
  Alternatives out = share_alternatives(baseline);
  const Alternatives none;
  out.per_count.tail<kAlternatives / 2>() = none.per_count.tail<kAlternatives / 2>();
  out.per_exposure.tail<kAlternatives / 2>() = none.per_exposure.tail<kAlternatives / 2>();
  out.decreases = false;
  return out;
}

}  // namespace

NoveltyDetector::NoveltyDetector(const DetectionPolicy& policy, const NoveltySettings& settings)
    : policy_(policy), settings_(settings) {
  for (size_t i = 0; i < kSeries; ++i) evidence_.add();
}

void NoveltyDetector::start_over() {
  const double last_end_s = last_end_s_;
  *this = NoveltyDetector(policy_, settings_);
  last_end_s_ = last_end_s;
}

void NoveltyDetector::set_policy(const DetectionPolicy& policy) {
  policy_ = policy;
  if (!learning_) calibrate();
}

std::optional<Finding> NoveltyDetector::observe(const NamedDelta& delta) {
  if (!read_tick(delta, last_end_s_, now_.tick)) return standing();
  if (table_ != delta.stacks) {
    Tick tick = std::move(now_.tick);
    if (table_ != nullptr) start_over();
    now_.tick = std::move(tick);
    table_ = delta.stacks;
  }
  last_end_s_ = delta.time_s;
  probe_ = delta.probe;
  if (now_.tick.total <= 0 || too_lossy(delta, now_.tick.total)) return standing();

  if (!change_) learn_ripe();
  keep_new();
  if (learning_) {
    learn_first();
    return std::nullopt;
  }
  if (change_) return follow_change();
  weigh();
  young_.push_back(now_);
  return look_for_change();
}

void NoveltyDetector::keep_new() {
  now_.fresh = {};
  std::erase_if(now_.tick.entries, [this](const Tick::Entry& entry) {
    if (bit(known_stacks_, entry.stack)) return true;
    set_bit(seen_stacks_, entry.stack);
    if (std::ranges::all_of(table_->unique_functions(StackId{entry.stack}), is_real)) return false;
    set_bit(known_stacks_, entry.stack);  // it stands for any stack: there is no telling what is new in it
    return true;
  });
  for (const Tick::Entry& entry : now_.tick.entries) {
    now_.fresh[kNewStacks] += entry.count;
    if (has_new_function(entry.stack)) now_.fresh[kNewFunctions] += entry.count;
  }
}

bool NoveltyDetector::is_new_function(FunctionId id) const { return !bit(known_functions_, id.value); }

bool NoveltyDetector::has_new_function(uint32_t stack) const {
  return std::ranges::any_of(table_->unique_functions(StackId{stack}),
                             [this](FunctionId id) { return is_new_function(id); });
}

void NoveltyDetector::know(uint32_t stack) {
  if (bit(known_stacks_, stack)) return;
  set_bit(known_stacks_, stack);
  for (const FunctionId id : table_->unique_functions(StackId{stack})) set_bit(known_functions_, id.value);
}

// ---- learning

// The first half fills what is known: as long as that is not much longer than the quarantine, a stack that comes for
// the first time comes again while it is new, and all that looks like clumps.
void NoveltyDetector::learn_first() {
  young_.push_back(now_);
  unmeasured_ = young_.size();
  if (lead_s_ < std::max(settings_.quarantine_s, settings_.learn_s / 2)) {
    lead_s_ += now_.tick.interval_s;
    return;
  }
  measure(now_);
  if (baseline_.wall_s < settings_.learn_s / 2 || baseline_.total < kMinBaselineSamples) return;
  learning_ = false;
  calibrate();
}

void NoveltyDetector::learn_ripe() {
  while (!young_.empty()) {
    const Young& oldest = young_.front();
    if (oldest.tick.end_s > now_.tick.end_s - settings_.quarantine_s && young_.size() < kMaxYoung) break;
    for (const Tick::Entry& entry : oldest.tick.entries) know(entry.stack);
    if (unmeasured_ > 0) {
      --unmeasured_;
    } else {
      measure(oldest);
    }
    young_.pop_front();
  }
  if (!learning_ && baseline_.total >= kRecalibrateGrowth * calibrated_total_) calibrate();
}

NoveltyDetector::Baseline::Baseline() {
  for (size_t i = 0; i < kSeries; ++i) moments.add();
}

void NoveltyDetector::Baseline::add(const Young& young, double weight) {
  const double samples = young.tick.total * weight;
  std::array<BlockMoments::Count, kSeries> fresh;
  for (uint32_t i = 0; i < kSeries; ++i) {
    fresh[i] = {i, young.fresh[i] * static_cast<float>(weight)};
    counts[i] += static_cast<double>(fresh[i].value);
  }
  moments.learn(fresh, samples);
  total += samples;
  squares += samples * samples;
  wall_s += young.tick.interval_s;
}

void NoveltyDetector::measure(const Young& young) {
  const double weight = weight_of(young.tick);
  baseline_.add(young, weight);
  next_.add(young, weight);
  if (learning_ || next_.total < kMinBaselineSamples) return;
  if (next_.wall_s < std::min(baseline_.wall_s / 2, settings_.memory_s)) return;
  baseline_ = std::exchange(next_, {});
  calibrate();
}

void NoveltyDetector::calibrate() {
  calibrated_total_ = baseline_.total;
  std::array<ShareDispersion::Share, kSeries> shares;
  for (size_t i = 0; i < kSeries; ++i) shares[i] = {usual(i), baseline_.counts[i]};
  dispersion_.estimate(baseline_.moments, shares);
  for (size_t i = 0; i < kSeries; ++i) {
    const double factor = dispersion_.factor(baseline_.moments, i, shares[i]);
    evidence_.calibrate(i,
                        increases({baseline_.counts[i], baseline_.total, factor, min_change(usual(i)), threshold()}));
  }
}

double NoveltyDetector::usual(size_t series) const {
  return baseline_.total > 0 ? std::clamp(baseline_.counts[series] / baseline_.total, 0.0, 1.0) : 0;
}

double NoveltyDetector::min_change(double share) const {
  return std::max({policy_.min_change_share, settings_.min_relative_change * share, 1e-4});
}

// ---- evidence

double NoveltyDetector::weight_of(const Tick& tick) const {
  if (learning_ || baseline_.total <= 0) return 1;
  const double ticks = std::max(1.0, tick.interval_s / policy_.tick_s);
  const double most = kMaxLoad * baseline_.squares / baseline_.total * ticks;
  return tick.total > most ? most / tick.total : 1;
}

void NoveltyDetector::weigh() {
  const double weight = weight_of(now_.tick);
  evidence_.begin_tick(now_.tick.total * weight, evidence_cap(threshold(), settings_.persistence_s, policy_.tick_s));
  for (size_t i = 0; i < kSeries; ++i) {
    if (now_.fresh[i] > 0) evidence_.update(i, static_cast<double>(now_.fresh[i]) * weight);
  }
  evidence_.finish_tick();
}

std::optional<Finding> NoveltyDetector::look_for_change() {
  const double score = evidence_.total_score();
  if (score < threshold()) return std::nullopt;
  Change change;
  // Of two series that say the same, the one of functions says more.
  const bool functions = evidence_.score(kNewFunctions) >= evidence_.score(kNewStacks) - 1;
  change.series = functions ? kNewFunctions : kNewStacks;
  change.before = usual(change.series);
  change.dispersion =
      dispersion_.factor(baseline_.moments, change.series, {change.before, baseline_.counts[change.series]});
  change.score = score;
  name(change, set_onset(change));
  if (change.frame) set_onset(change);
  if (!worth_telling(change, 1)) return std::nullopt;
  change_ = std::move(change);
  return standing();
}

size_t NoveltyDetector::set_onset(Change& change) const {
  const double before = (change.before * baseline_.total + 0.5) / (baseline_.total + 1);
  double most = -1;
  size_t first = young_.size() - 1;
  Change sum = change;
  sum.count = sum.total = sum.wall_s = sum.cpu_s = 0;
  for (size_t i = young_.size(); i-- > unmeasured_;) {
    const Tick& tick = young_[i].tick;
    sum.count += count_of(tick, change);
    sum.total += tick.total;
    sum.wall_s += tick.interval_s;
    sum.cpu_s += tick.cpu_s;
    const double evidence = log_likelihood_ratio(std::min(sum.count, sum.total), sum.total, before);
    if (evidence <= most) continue;
    most = evidence;
    first = i;
    change = sum;
    change.onset_s = tick.begin_s();
  }
  return first;
}

// All stacks with a new function are new: while a finding stands nothing becomes known.
double NoveltyDetector::count_of(const Tick& tick, const Change& change) const {
  double sum = 0;
  for (const Tick::Entry& entry : tick.entries) {
    if (bit(known_stacks_, entry.stack)) continue;  // it was young when the tick was kept
    const bool counts = change.frame ? contains(table_->unique_functions(StackId{entry.stack}), *change.frame)
                                     : change.series == kNewStacks || has_new_function(entry.stack);
    if (counts) sum += static_cast<double>(entry.count);
  }
  return sum;
}

void NoveltyDetector::name(Change& change, size_t first) const {
  std::map<uint32_t, double> stacks;  // ordered: the same input gives the same answer
  for (size_t i = first; i < young_.size(); ++i) {
    for (const Tick::Entry& entry : young_[i].tick.entries) {
      const bool counts = change.series == kNewStacks || has_new_function(entry.stack);
      if (counts && !bit(known_stacks_, entry.stack)) stacks[entry.stack] += static_cast<double>(entry.count);
    }
  }
  struct Weight {
    double count = 0;
    double depth = 0;
  };
  std::map<uint32_t, Weight> functions;
  for (const auto& [stack, count] : stacks) {
    double depth = 0;
    for (const FunctionId id : table_->unique_functions(StackId{stack})) {
      ++depth;
      if (!is_new_function(id)) continue;
      functions[id.value].count += count;
      functions[id.value].depth += depth * count;
    }
  }
  double deepest = 0;
  for (const auto& [id, weight] : functions) {
    if (weight.count < kExplains * change.count || weight.depth / weight.count <= deepest) continue;
    deepest = weight.depth / weight.count;
    change.frame = FunctionId{id};
  }
  double most = 0;
  for (const auto& [stack, count] : stacks) {
    if (count <= most || (change.frame && !contains(table_->unique_functions(StackId{stack}), *change.frame))) continue;
    most = count;
    change.stack = StackId{stack};
  }
  if (change.frame) {
    change.before = 0;
  } else {
    change.contributors = entries_of(stacks, change.total);
  }
}

// Where new code is entered: the new function nearest to the root of each stack. These share the samples among them.
std::vector<Contributor> NoveltyDetector::entries_of(const std::map<uint32_t, double>& counts, double total) const {
  std::map<uint32_t, double> entries;
  for (const auto& [stack, count] : counts) {
    const auto functions = table_->unique_functions(StackId{stack});
    const auto entry = std::ranges::find_if(functions, [this](FunctionId id) { return is_new_function(id); });
    if (entry != functions.end()) entries[entry->value] += count;
  }
  std::vector<Contributor> out;
  for (const auto& [id, count] : entries) out.push_back({FunctionId{id}, 0, count / total});
  std::ranges::stable_sort(out, [](const Contributor& a, const Contributor& b) { return a.after > b.after; });
  if (out.size() > kMaxContributors) out.resize(kMaxContributors);
  return out;
}

bool NoveltyDetector::worth_telling(const Change& change, double part) const {
  const double size = change.after() - change.before;
  if (size < part * min_change(change.before)) return false;
  return probe_ != ProbeKind::kOnCpu || size * change.cores() >= part * policy_.min_change_cores;
}

// ---- a finding that stands

std::optional<Finding> NoveltyDetector::follow_change() {
  Change& change = *change_;
  const Tick& tick = now_.tick;
  const double x = count_of(tick, change);
  change.count += x;
  change.total += tick.total;
  change.wall_s += tick.interval_s;
  change.cpu_s += tick.cpu_s;
  const double before = (change.before * baseline_.total + 0.5) / (baseline_.total + 1);
  const double after = std::clamp(change.after(), 1e-6, 1 - 1e-6);
  const double ratio =
      (x * std::log(before / after) + (tick.total - x) * std::log((1 - before) / (1 - after))) / change.dispersion;
  const double most = kReturnScore / kReturnTicks;
  change.returned = std::max(0.0, change.returned + std::clamp(ratio, -most, most));
  const bool adopted = last_end_s_ - change.onset_s >= settings_.adopt_after_s;
  if (adopted || change.returned >= kReturnScore || !worth_telling(change, kStillWorth)) {
    forget_change();
    return std::nullopt;
  }
  return standing();
}

// What was seen while the finding stood is no news the next time.
void NoveltyDetector::forget_change() {
  change_.reset();
  for (uint32_t stack = 0; stack < seen_stacks_.size(); ++stack) {
    if (seen_stacks_[stack]) know(stack);
  }
  young_.clear();
  unmeasured_ = 0;
  for (size_t i = 0; i < kSeries; ++i) evidence_.reset(i);
}

std::optional<Finding> NoveltyDetector::standing() const {
  if (!change_) return std::nullopt;
  const Change& change = *change_;
  Finding out;
  out.detector = kName;
  out.probe = probe_;
  out.frame = change.frame;
  out.stack = change.stack;
  out.before = change.before;
  out.after = change.after();
  out.unit_of_measure = change.frame                     ? "share of samples"
                        : change.series == kNewFunctions ? "share of samples in new functions"
                                                         : "share of samples in new stacks";
  if (change.frame && probe_ == ProbeKind::kPageFault) out.unit_of_measure = "share of page faults";
  out.change_cores = probe_ == ProbeKind::kOnCpu ? (out.after - out.before) * change.cores() : 0;
  out.onset_s = change.onset_s;
  out.score = change.score;
  out.threshold = threshold();
  out.contributors = change.contributors;
  return out;
}

}  // namespace stackwatch
