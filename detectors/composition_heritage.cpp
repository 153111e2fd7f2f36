// SPDX-License-Identifier: Apache-2.0
// What a process leaves to its successor, and how that takes it over.
#include <algorithm>
#include <functional>
#include <numeric>
#include <unordered_map>
#include <vector>

#include "detectors/composition.h"

namespace stackwatch {

std::string CompositionDetector::save() const {
  if (learning_) return {};
  ShareHeritage out{baseline_.total,
                    baseline_.squares,
                    baseline_.wall_s,
                    baseline_.cpu_s,
                    dispersion_.ticks(moments_),
                    dispersion_.process(),
                    {},
                    {}};
  const std::vector<uint64_t> keys = function_keys();
  for (uint32_t stack = 0; stack < stack_names_.size(); ++stack) {
    if (stack_names_[stack] != 0 && baseline_.stack(stack) > 0) {
      out.stacks.push_back({stack_names_[stack], baseline_.stack(stack), frame_keys(stack, keys)});
    }
  }
  for (uint32_t f = 0; f < function_names_.size(); ++f) {
    if (baseline_.function(f) > 0) out.functions.push_back({function_names_[f], baseline_.function(f)});
  }
  unclaimed_.add_to(out);
  out.bound();
  return encode(out);
}

std::vector<uint64_t> CompositionDetector::function_keys() const {
  std::vector<uint32_t> order(function_names_.size());
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, std::greater{}, [&](uint32_t f) { return baseline_.function(f); });
  FunctionKeys keys;
  std::vector<uint64_t> out(function_names_.size());
  for (const uint32_t f : order) out[f] = keys.next(function_names_[f]);
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
  }
  return {};
}

// A stack or function that is seen for the first time gets its name, and what a predecessor had learned about it; the
// latter at the end of the start-up where there is one.
void CompositionDetector::learn_names(const Tick& tick, const FunctionTable& functions) {
  for (const Tick::Entry& entry : tick.entries) {
    grow_to(stack_names_, size_t{entry.stack} + 1);
    if (stack_names_[entry.stack] != 0) continue;
    const uint64_t name = stack_names_[entry.stack] = name_of(index_.table()[StackId{entry.stack}], functions);
    (void)index_.functions_of(entry.stack);
    grow_to(baseline_.by_stack, size_t{entry.stack} + 1);
    if (!start_up_s_) baseline_.by_stack[entry.stack] += unclaimed_.claim_stack(name);
  }
  grow_to(baseline_.by_function, index_.functions());
  auto f = static_cast<uint32_t>(function_names_.size());
  for (grow_to(function_names_, index_.functions()); f < index_.functions(); ++f) {
    function_names_[f] = name_of(index_.function(f), functions);
    if (!start_up_s_) baseline_.by_function[f] += unclaimed_.claim_function(function_names_[f]);
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
  const auto stacks = static_cast<uint32_t>(stack_names_.size());
  for (const uint32_t stack : by_count(stacks, [&](uint32_t i) { return seen.stack(i); })) {
    if (stack_names_[stack] != 0) baseline_.by_stack[stack] += unclaimed_.claim_stack(stack_names_[stack]);
  }
  const auto functions = static_cast<uint32_t>(function_names_.size());
  for (const uint32_t f : by_count(functions, [&](uint32_t i) { return seen.function(i); })) {
    baseline_.by_function[f] += unclaimed_.claim_function(function_names_[f]);
  }
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
    claim_heritage();
    calibrate_all();
  }
  return true;
}

}  // namespace stackwatch
