// SPDX-License-Identifier: Apache-2.0
// What a process leaves to its successor, and how that takes it over.
#include <algorithm>
#include <numeric>
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
  for (uint32_t stack = 0; stack < stack_names_.size(); ++stack) {
    if (stack_names_[stack] != 0 && baseline_.stack(stack) > 0) {
      out.stacks.push_back({stack_names_[stack], baseline_.stack(stack)});
    }
  }
  for (uint32_t f = 0; f < function_names_.size(); ++f) {
    if (baseline_.function(f) > 0) out.functions.push_back({function_names_[f], baseline_.function(f)});
  }
  unclaimed_.add_to(out);
  out.bound();
  return encode(out);
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
    if (entry.stack >= stack_names_.size()) stack_names_.resize(entry.stack + 1);
    if (stack_names_[entry.stack] != 0) continue;
    const uint64_t name = stack_names_[entry.stack] = name_of(index_.table()[StackId{entry.stack}], functions);
    (void)index_.functions_of(entry.stack);
    if (entry.stack >= baseline_.by_stack.size()) baseline_.by_stack.resize(entry.stack + 1);
    if (!start_up_s_) baseline_.by_stack[entry.stack] += unclaimed_.claim_stack(name);
  }
  if (baseline_.by_function.size() < index_.functions()) baseline_.by_function.resize(index_.functions());
  for (auto f = static_cast<uint32_t>(function_names_.size()); f < index_.functions(); ++f) {
    function_names_.push_back(name_of(index_.function(f), functions));
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
