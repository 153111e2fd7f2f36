// SPDX-License-Identifier: Apache-2.0
// The life of the findings that stand: what each is compared with, how each ends.
#include <algorithm>
#include <cmath>
#include <utility>

#include "detectors/composition.h"

namespace stackwatch {
namespace {

// A standing finding's stack and contributors are brought up to date so often: each costs a pass over all stacks.
constexpr uint64_t kRefreshEvery = 10;
// A standing finding ends when its change is less than this part of what is worth telling.
constexpr double kStillWorth = 0.5;
// Cost that only moved is the new baseline after so many times the length of a first one: until then the attribution
// had time to see that it is more than that.
constexpr double kAdoptShift = 2;

// The onset is off by some ticks, the fewer the larger the change: so many are left out of the mix since, and one in so
// many. A mix with a twentieth of what was before would make a change of 40 points look like one of 2 more.
constexpr size_t kOnsetError = 2;
constexpr size_t kOnsetErrorPart = 8;
// While a change has this evidence to be over, nothing new is told: what it gives back goes to others.
constexpr double kReturning = CompositionDetector::kReturnScore / 3;
// A change that went this part of the way back is partly over, beyond chance: 2 standard errors of a change that is
// just found.
constexpr double kBackInPart = 1.0 / 3;
// Shares without others are compared where they leave this part of a change; else the others are a part of it.
constexpr double kLeftApart = 0.5;

std::string_view unit_of_measure(ProbeKind probe) {
  switch (probe) {
    case ProbeKind::kBlocked:
      return "share of blocked time";
    case ProbeKind::kRunQueue:
      return "share of run-queue time";
    case ProbeKind::kPageFault:
      return "share of page faults";
    case ProbeKind::kOnCpu:
    case ProbeKind::kMemory:
    case ProbeKind::kCensus:
      break;
  }
  return "share of samples";
}

}  // namespace

std::optional<Finding> CompositionDetector::first() const {
  const auto proven = std::ranges::find_if(standing_, &Change::is_proven);
  return proven == standing_.end() ? std::nullopt : std::optional(report(*proven));
}

std::vector<Finding> CompositionDetector::further() const {
  std::vector<Finding> out;
  bool is_first = true;
  for (const Change& change : standing_) {
    if (change.is_proven && !std::exchange(is_first, false)) out.push_back(report(change));
  }
  return out;
}

// ---- what is new

void CompositionDetector::accept(Change change, size_t onset, const StackCounts& since) {
  const size_t ticks = window_.size() - onset;
  const size_t clean = std::min(window_.size() - 1, onset + kOnsetError + ticks / kOnsetErrorPart);
  const Item item = item_of(change.cause);
  const double size = change.cause.change();
  const auto again = std::ranges::find_if(standing_, [&](const Change& standing) {
    return item_of(standing.cause) == item && standing.cause.change() * size > 0;
  });
  if (again != standing_.end()) {
    ++again->growths;
    again->cause.calls_kernel = again->cause.calls_kernel && change.cause.calls_kernel;
    if (again + 1 != standing_.end()) again->grown += size;
    for (auto later = again + 1; later != standing_.end(); ++later) add_other(*later, item);
    again->score = std::max(again->score, change.score);
  } else if (standing_.size() < kMaxStanding &&
             std::ranges::none_of(standing_, [&](const Change& s) { return goes_back(s, change.cause, since); })) {
    for (Change& standing : standing_) add_other(standing, item);
    change.before = std::move(baseline_);
    standing_.push_back(std::move(change));
  }
  renew(clean);
}

void CompositionDetector::add_other(Change& change, Item item) {
  if (item_of(change.cause) == item || std::ranges::find(change.others, item) != change.others.end()) return;
  change.others.push_back(item);
}

// From now on the process is compared with the mix since a tick of the window.
void CompositionDetector::renew(size_t first) {
  baseline_ = sum_since(first);
  renewing_ = true;
  evidence_.reset_all();
  learned_ticks_ = watched_from_ = window_.pushed();
  for (Change& change : standing_) change.returned = 0;  // was of another comparison
  begin_comparing();
}

bool CompositionDetector::goes_back(const Change& standing, const Cause& cause, const StackCounts& since) {
  const Item item = item_of(cause);
  if (item == item_of(standing.cause)) return true;  // the other direction: the same one is a growth
  std::vector<Item> without = standing.others;
  without.push_back(item);
  const Comparison shares = compare(standing, std::move(without));
  const double now = portion(since, item_of(standing.cause), shares.without).share();
  return (now - shares.after) / (shares.before - shares.after) >= kBackInPart;
}

bool CompositionDetector::is_returning() const {
  return std::ranges::any_of(standing_, [](const Change& change) { return change.returned >= kReturning; });
}

// ---- what goes on

void CompositionDetector::follow_changes(const Tick& tick) {
  for (size_t i = 0; i < standing_.size(); ++i) {
    Change& change = standing_[i];
    refresh(i);
    weigh_return(change, tick);
    if (change.returned >= kReturnScore && is_squeezed(change)) change.returned = 0;
    // By its own share alone where nothing else has changed since.
    const bool is_small = change.others.empty() && !worth_telling(change, kStillWorth);
    if (change.returned >= kReturnScore || is_small) return end_change(i);
    // In their order: what is normal must be in the mix that the process goes back to.
    if (i == 0 && is_to_be_adopted(change)) return adopt();
  }
}

void CompositionDetector::refresh(size_t i) {
  Change& change = standing_[i];
  const StackCounts& after = mix_after(i);
  ++change.ticks;
  if (after.total < kMinBaselineSamples) return;
  const Item item = item_of(change.cause);
  change.cause.before =
      item.is_stack ? change.before.stack_share(item.index) : change.before.function_share(item.index);
  change.cause.after =
      change.grown + (item.is_stack ? after.stack_share(item.index) : after.function_share(item.index));
  change.cores = after.cores();
  const bool is_last = i + 1 == standing_.size();
  if (!is_last || change.ticks % kRefreshEvery != 0) return;
  tell_shift(change, change.before, after, i == 0);
  if (!change.cause.function) return;
  auto cause = cause_of(change.before, after, change.dispersion, change.cause.function);
  if (!cause) return;
  cause->calls_kernel = change.cause.calls_kernel;
  change.cause = *std::move(cause);
}

void CompositionDetector::weigh_return(Change& change, const Tick& tick) {
  if (!change.others.empty() && baseline_.total < kMinBaselineSamples) return;  // what they took is not known yet
  const Comparison shares = compare(change, change.others);
  const Portion now = portion(tick, item_of(change.cause), shares.without);
  const double ratio = (now.count * std::log(shares.before / shares.after) +
                        (now.total - now.count) * std::log((1 - shares.before) / (1 - shares.after))) /
                       change.dispersion;
  change.evidence = std::min(EvidenceGrid::kMaxScore, change.evidence - ratio);
  change.score = std::max(change.score, change.evidence);
  const double most = kReturnScore / kReturnTicks;
  change.returned += std::clamp(ratio, -most, most);
  change.is_proven = change.is_proven || change.returned <= -kReturnScore;
  if (change.is_proven) change.returned = std::max(0.0, change.returned);
  change.return_ticks = change.returned > 0 ? change.return_ticks + 1 : 0;
}

// What a person would call its return: without what else changed meanwhile, its share is nearer to that before.
bool CompositionDetector::is_squeezed(const Change& change) {
  const StackCounts recent = sum_since(window_.size() - std::min(window_.size(), change.return_ticks));
  const auto cause = cause_of(baseline_, recent, change.dispersion, std::nullopt);
  const Item item = item_of(change.cause);
  if (!cause || item_of(*cause) == item) return false;
  std::vector<Item> without = change.others;
  without.push_back(item_of(*cause));
  const size_t wanted = without.size();
  const Comparison shares = compare(change, std::move(without));
  if (shares.without.size() < wanted) return false;
  const double now = portion(recent, item, shares.without).share();
  return std::abs(now - shares.after) < std::abs(now - shares.before);
}

// A shift soon, but counted from when it was seen to be one: one verdict on what has long been told as more must not
// make that the baseline. Nor where a part of it may be new cost: with more samples it is told.
bool CompositionDetector::is_to_be_adopted(const Change& change) const {
  if (last_end_s_ - change.onset_s >= settings_.adopt_after_s) return true;
  return change.shift && change.shift->certain && last_end_s_ - change.shift_since_s >= kAdoptShift * settings_.learn_s;
}

// ---- how it ends

void CompositionDetector::end_change(size_t i) {
  Change gone = std::move(standing_[i]);
  standing_.erase(standing_.begin() + static_cast<std::ptrdiff_t>(i));
  if (standing_.empty()) {
    baseline_ = std::move(gone.before);
    renewing_ = false;
    evidence_.reset_all();
    learned_ticks_ = watched_from_ = window_.pushed();
    recentre();
    calibrate_all();
    return;
  }
  // The next one is a change of the mix before this one now; those after it of mixes that had this one in them.
  const Item item = item_of(gone.cause);
  for (size_t j = 0; j < i; ++j) std::erase(standing_[j].others, item);
  if (i < standing_.size()) {
    Change& next = standing_[i];
    next.before = std::move(gone.before);
    for (const Item other : gone.others) add_other(next, other);
    for (size_t j = i + 1; j < standing_.size(); ++j) add_other(standing_[j], item);
  }
  standing_.back().grown = 0;  // the mix since has it all
  renew(window_.size());
}

// What has become normal: the mixes since have it in them, and the first of those is what the process goes back to.
void CompositionDetector::adopt() {
  unclaimed_.clear();
  standing_.erase(standing_.begin());
  if (!standing_.empty()) standing_.back().grown = 0;
}

// ---- shares

CompositionDetector::Item CompositionDetector::item_of(const Cause& cause) {
  return cause.function ? Item{*cause.function, false} : Item{cause.stack, true};
}

const StackCounts& CompositionDetector::mix_after(size_t i) const {
  return i + 1 < standing_.size() ? standing_[i + 1].before : baseline_;
}

bool CompositionDetector::is_in(uint32_t stack, Item item) {
  if (item.is_stack) return stack == item.index;
  const auto functions = index_.functions_of(stack);
  return std::ranges::find(functions, item.index) != functions.end();
}

bool CompositionDetector::is_in_any(uint32_t stack, std::span<const Item> items) {
  return std::ranges::any_of(items, [&](Item item) { return is_in(stack, item); });
}

CompositionDetector::Portion CompositionDetector::portion(const Tick& tick, Item item, std::span<const Item> without) {
  Portion out;
  for (const Tick::Entry& entry : tick.entries) {
    if (!is_in_any(entry.stack, without)) out.add(static_cast<double>(entry.count), is_in(entry.stack, item));
  }
  return out;
}

CompositionDetector::Portion CompositionDetector::portion(const StackCounts& counts, Item item,
                                                          std::span<const Item> without) {
  if (without.empty()) return {item.is_stack ? counts.stack(item.index) : counts.function(item.index), counts.total};
  Portion out;
  for (uint32_t stack = 0; stack < counts.by_stack.size(); ++stack) {
    const double count = counts.stack(stack);
    if (count > 0 && !is_in_any(stack, without)) out.add(count, is_in(stack, item));
  }
  return out;
}

CompositionDetector::Comparison CompositionDetector::compare(const Change& change, std::vector<Item> without) {
  const Item item = item_of(change.cause);
  const auto certain = [](double share) { return std::clamp(share, 1e-6, 1 - 1e-6); };
  const auto before = [&](std::span<const Item> apart) {
    const Portion part = portion(change.before, item, apart);
    return certain((part.count + 0.5) / (part.total + 1));
  };
  if (!without.empty() && baseline_.total >= kMinBaselineSamples) {
    const Comparison apart{before(without), certain(portion(baseline_, item, without).share()), without};
    if (std::abs(apart.after - apart.before) >= kLeftApart * std::abs(change.cause.change())) return apart;
  }
  return {before({}), certain(change.cause.after), {}};
}

Finding CompositionDetector::report(const Change& change) const {
  const Cause& cause = change.cause;
  Finding out;
  out.detector = kName;
  out.probe = probe_;
  if (cause.function) {
    out.frame = index_.function(*cause.function);
  } else {
    out.frame = index_.table()[StackId{cause.stack}].back();
  }
  out.calls_kernel = cause.calls_kernel;
  out.stack = StackId{cause.stack};
  out.before = cause.before;
  out.after = cause.after;
  out.unit_of_measure = unit_of_measure(probe_);
  out.change_cores = probe_ == ProbeKind::kOnCpu ? cause.change() * change.cores : 0;
  out.onset_s = change.onset_s;
  out.score = change.score;
  out.threshold = threshold();
  out.shift = change.shift;
  out.growths = change.growths;
  out.contributors = cause.contributors;
  return out;
}

}  // namespace stackwatch
