// SPDX-License-Identifier: Apache-2.0
// What a process leaves to its successor, and how that takes it over.
#include <algorithm>
#include <functional>
#include <numeric>
#include <unordered_map>
#include <utility>
#include <vector>

#include "detectors/composition.h"

namespace stackwatch {

std::string CompositionDetector::save() const {
  const StackCounts& past = home();
  const bool is_young = learning_ || (renewing_ && standing_.empty());
  if (is_young || lacks_names(past)) return {};
  ShareHeritage out{
      past.total, past.squares, past.wall_s, past.cpu_s, dispersion_.ticks(moments_), dispersion_.process(), {}, {}};
  const std::vector<uint64_t> keys = function_keys();
  const auto is_any = [](const std::vector<float>& counts) {
    return std::ranges::any_of(counts, [](float count) { return count > 0; });
  };
  for (const uint32_t stack : largest_stacks(past)) {
    auto later = since({stack, true});
    if (past.stack(stack) <= 0 && !is_any(later)) continue;
    out.stacks.push_back({stack_name(stack), past.stack(stack), frame_keys(stack, keys), std::move(later)});
  }
  for (uint32_t f = 0; f < seen_functions_; ++f) {
    auto later = since({f, false});
    if (past.function(f) <= 0 && !is_any(later)) continue;
    out.functions.push_back({function_name(f), past.function(f), std::move(later)});
  }
  for (size_t i = 0; i < standing_.size(); ++i) {
    const Item item = item_of(standing_[i].cause);
    const StackCounts& mix = mix_after(i);
    const uint64_t name = item.is_stack ? stack_name(item.index) : keys[item.index];
    out.standing.push_back({name, item.is_stack, standing_[i].cause.calls_kernel, standing_[i].dispersion, mix.total,
                            mix.squares, mix.wall_s, mix.cpu_s});
  }
  // A mix that has just begun is none: what stands is found again.
  const bool is_whole =
      std::ranges::all_of(out.standing, [](const auto& change) { return change.total >= kMinBaselineSamples; });
  if (!is_whole) out.standing.clear();
  unclaimed_.add_to(out);
  out.bound();
  return encode(out);
}

// A name is a hash of the names of all frames: of a large table only those are asked for that are kept.
std::vector<uint32_t> CompositionDetector::largest_stacks(const StackCounts& counts) const {
  std::vector<uint32_t> out;
  for (uint32_t stack = 0; stack < seen_stacks_.size(); ++stack) {
    if (seen_stacks_[stack]) out.push_back(stack);
  }
  if (out.size() <= ShareHeritage::kMaxEntries) return out;
  const auto last = out.begin() + ShareHeritage::kMaxEntries;
  std::ranges::nth_element(out, last, std::greater{}, [&](uint32_t stack) { return counts.stack(stack); });
  out.erase(last, out.end());
  return out;
}

std::vector<float> CompositionDetector::since(Item item) const {
  std::vector<float> out;
  for (size_t i = 0; i < standing_.size(); ++i) {
    const StackCounts& mix = mix_after(i);
    out.push_back(static_cast<float>(item.is_stack ? mix.stack(item.index) : mix.function(item.index)));
  }
  return out;
}

uint64_t CompositionDetector::stack_name(uint32_t stack) const {
  return name_of(index_.table()[StackId{stack}], *functions_);
}

uint64_t CompositionDetector::function_name(uint32_t f) const { return name_of(index_.function(f), *functions_); }

std::vector<uint64_t> CompositionDetector::function_keys() const {
  std::vector<uint32_t> order(seen_functions_);
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, std::greater{}, [&](uint32_t f) { return home().function(f); });
  FunctionKeys keys;
  std::vector<uint64_t> out(seen_functions_);
  for (const uint32_t f : order) out[f] = keys.next(function_name(f));
  return out;
}

std::vector<uint64_t> CompositionDetector::frame_keys(uint32_t stack, const std::vector<uint64_t>& keys) const {
  std::vector<uint64_t> out;
  for (const FunctionId frame : index_.table()[StackId{stack}]) {
    const auto number = index_.number_of(frame);
    out.push_back(number && *number < keys.size() && index_.is_real(*number) ? keys[*number] : 0);
  }
  return out;
}

Result<void> CompositionDetector::restore(std::string_view saved) {
  auto heritage = decode_share_heritage(saved);
  if (!heritage) return Failure(heritage.error());
  start_over();
  baseline_.total = heritage->total;
  baseline_.squares = heritage->squares;
  baseline_.wall_s = heritage->wall_s;
  baseline_.cpu_s = heritage->cpu_s;
  dispersion_.inherit(heritage->dispersion, heritage->ticks);
  unclaimed_.take(*heritage);
  learning_ = baseline_.wall_s < settings_.learn_s || baseline_.total < kMinBaselineSamples;
  if (learning_) {
    start_over();
  } else {
    start_up_s_ = settings_.learn_s;
    inherited_ = true;
    inherited_changes_ = heritage->standing;
  }
  return {};
}

bool CompositionDetector::lacks_names(const StackCounts& counts) const {
  double unknown = 0;
  for (uint32_t stack = 0; stack < unknown_stacks_.size(); ++stack) {
    if (unknown_stacks_[stack]) unknown += counts.stack(stack);
  }
  return unknown > kMaxUnknown * counts.total;
}

std::optional<CompositionDetector::Item> CompositionDetector::find_item(const ShareHeritage::Standing& change) const {
  if (change.is_stack) {
    for (uint32_t stack = 0; stack < seen_stacks_.size(); ++stack) {
      if (seen_stacks_[stack] && stack_name(stack) == change.name) return Item{stack, true};
    }
    return std::nullopt;
  }
  const std::vector<uint64_t> keys = function_keys();
  const auto found = std::ranges::find(keys, change.name);
  if (found == keys.end()) return std::nullopt;
  return Item{static_cast<uint32_t>(found - keys.begin()), false};
}

// What the process has that a predecessor had: where one of the changes is in nothing that it does, all are found
// again.
void CompositionDetector::claim_changes(const std::vector<ShareHeritage::Standing>& inherited,
                                        std::vector<StackCounts> mixes) {
  std::vector<Change> changes;
  std::vector<Item> items;
  for (size_t i = 0; i < inherited.size(); ++i) {
    const auto item = find_item(inherited[i]);
    if (!item) return;
    items.push_back(*item);
    Change& change = changes.emplace_back();
    change.cause = cause_at(*item, mixes[i]);
    change.cause.calls_kernel = inherited[i].calls_kernel;
    change.onset_s = window_[0].begin_s();
    change.dispersion = inherited[i].dispersion;
    change.cores = mixes[i].cores();
    change.is_proven = false;
  }
  follows_each_ = !changes.empty();
  for (size_t i = 0; i < changes.size(); ++i) {
    changes[i].others.assign(items.begin() + static_cast<std::ptrdiff_t>(i) + 1, items.end());
    changes[i].before = std::exchange(baseline_, std::move(mixes[i]));
    const bool is_stack = items[i].is_stack;
    changes[i].cause.before =
        is_stack ? changes[i].before.stack_share(items[i].index) : changes[i].before.function_share(items[i].index);
  }
  standing_ = std::move(changes);
  renewing_ = baseline_.wall_s < settings_.learn_s || baseline_.total < kMinBaselineSamples;
}

Cause CompositionDetector::cause_at(Item item, const StackCounts& after) {
  Cause cause;
  cause.after = item.is_stack ? after.stack_share(item.index) : after.function_share(item.index);
  cause.stack = item.index;
  if (item.is_stack) return cause;
  cause.function = item.index;
  double most = -1;
  for (uint32_t stack = 0; stack < after.by_stack.size(); ++stack) {
    if (!seen_stacks_[stack] || after.stack(stack) <= most || !is_in(stack, item)) continue;
    most = after.stack(stack);
    cause.stack = stack;
  }
  return cause;
}

// A stack or function that is seen for the first time gets what a predecessor had learned about it; at the end of the
// start-up where there is one.
void CompositionDetector::note_seen(const Tick& tick, const FunctionTable& functions) {
  for (const Tick::Entry& entry : tick.entries) {
    if (entry.stack >= seen_stacks_.size()) {
      seen_stacks_.resize(size_t{entry.stack} + 1);
      unknown_stacks_.resize(seen_stacks_.size());
    }
    if (seen_stacks_[entry.stack]) continue;
    seen_stacks_[entry.stack] = true;
    const auto frames = index_.table()[StackId{entry.stack}];
    unknown_stacks_[entry.stack] = is_unknown(frames, functions);
    (void)index_.functions_of(entry.stack);
    grow_to(home().by_stack, size_t{entry.stack} + 1);
    if (start_up_s_) continue;
    home().by_stack[entry.stack] += static_cast<float>(unclaimed_.claim_stack(name_of(frames, functions)).count);
  }
  grow_to(home().by_function, index_.functions());
  for (; seen_functions_ < index_.functions(); ++seen_functions_) {
    if (start_up_s_) continue;
    const auto claim = unclaimed_.claim_function(name_of(index_.function(seen_functions_), functions));
    home().by_function[seen_functions_] += static_cast<float>(claim.count);
  }
}

// A process is a fork of somebody else's program before it is its own: both have a main. What a predecessor left to a
// name goes to the function that has it and was there most.
void CompositionDetector::claim_heritage() {
  const StackCounts seen = sum_since(0);
  const auto by_count = [](uint32_t items, const auto& count) {
    std::vector<uint32_t> order(items);
    std::iota(order.begin(), order.end(), 0U);
    std::ranges::stable_sort(order, [&](uint32_t a, uint32_t b) { return count(a) > count(b); });
    return order;
  };
  const auto changes = std::exchange(inherited_changes_, {});
  std::vector<StackCounts> mixes;
  mixes.reserve(changes.size());
  for (const ShareHeritage::Standing& past : changes) {
    mixes.push_back({std::vector<float>(seen_stacks_.size()), std::vector<float>(seen_functions_), past.total,
                     past.squares, past.wall_s, past.cpu_s});
  }
  const auto stacks = static_cast<uint32_t>(seen_stacks_.size());
  for (const uint32_t stack : by_count(stacks, [&](uint32_t i) { return seen.stack(i); })) {
    if (!seen_stacks_[stack]) continue;
    const auto claim = unclaimed_.claim_stack(stack_name(stack));
    baseline_.by_stack[stack] += static_cast<float>(claim.count);
    for (size_t i = 0; i < claim.since.size(); ++i) mixes[i].by_stack[stack] = claim.since[i];
  }
  for (const uint32_t f : by_count(seen_functions_, [&](uint32_t i) { return seen.function(i); })) {
    const auto claim = unclaimed_.claim_function(function_name(f));
    baseline_.by_function[f] += static_cast<float>(claim.count);
    for (size_t i = 0; i < claim.since.size(); ++i) mixes[i].by_function[f] = claim.since[i];
  }
  claim_changes(changes, std::move(mixes));
  for (uint32_t stream = 0; stream < streams_.size(); ++stream) {
    if (streams_[stream].used) moments_.begin(stream, baseline_of(stream).share, dispersion_.process());
  }
}

// What vanished with the predecessor is in no stack of this process.
PastStacks CompositionDetector::past_stacks(const FunctionTable* functions) const {
  PastStacks out;
  out.functions = functions;
  const auto left = unclaimed_.stacks();
  if (left.empty()) return out;
  std::unordered_map<uint64_t, uint32_t> numbers;
  const std::vector<uint64_t> keys = function_keys();
  for (uint32_t f = 0; f < keys.size(); ++f) numbers.emplace(keys[f], f);
  for (const ShareHeritage::Stack& stack : left) {
    PastStacks::Stack& past = out.stacks.emplace_back();
    past.count = stack.count;
    for (const uint64_t key : stack.frames) {
      if (key == 0) continue;
      const auto fresh = static_cast<uint32_t>(index_.functions() + out.names.size());
      const auto [at, is_new] = numbers.emplace(key, fresh);
      if (is_new) out.names.push_back(key);
      past.frames.push_back(at->second);
    }
  }
  return out;
}

bool CompositionDetector::is_starting_up(const Tick& tick) {
  if (!start_up_s_) return false;
  *start_up_s_ -= tick.interval_s;
  learned_ticks_ = watched_from_ = window_.pushed();
  if (*start_up_s_ <= 0) {
    start_up_s_.reset();
    if (lacks_names(sum_since(window_.size() / 2))) {
      start_over();
      return true;
    }
    claim_heritage();
    calibrate_all();
  }
  return true;
}

}  // namespace stackwatch
