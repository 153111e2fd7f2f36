// SPDX-License-Identifier: Apache-2.0
#include "detectors/share_streams.h"

#include <algorithm>
#include <cmath>

namespace stackwatch {

void ShareStreams::clear() {
  const uint32_t capacity = capacity_;
  *this = ShareStreams(capacity);
}

std::span<const uint32_t> ShareStreams::admit(const Tick& tick, StackIndex& index) {
  fresh_.clear();
  sum_functions(tick, index);
  place_new_functions(tick, index);
  seen_ += static_cast<float>(tick.total);
  for (const uint32_t f : touched_) functions_[f].seen += function_counts_[f];
  // Functions first: a stack says little that its functions do not say.
  for (const uint32_t f : touched_) {
    if (index.is_real(f)) see(functions_[f], function_counts_[f], {f, false, true});
  }
  for (const Tick::Entry& entry : tick.entries) {
    if (entry.stack == StackTable::kOther.value) continue;
    Place& place = stacks_[entry.stack];
    place.seen += entry.count;
    see(place, entry.count, {entry.stack, true, true});
  }
  place_candidates();
  return fresh_;
}

std::span<const BlockMoments::Count> ShareStreams::count(const Tick& tick, StackIndex& index) {
  counts_.clear();
  sum_functions(tick, index);
  for (const uint32_t f : touched_) {
    if (functions_[f].stream != kNone) counts_.push_back({functions_[f].stream, function_counts_[f]});
  }
  for (const Tick::Entry& entry : tick.entries) {
    if (entry.stack >= stacks_.size() || stacks_[entry.stack].stream == kNone) continue;
    counts_.push_back({stacks_[entry.stack].stream, entry.count});
  }
  return counts_;
}

void ShareStreams::release(uint32_t stream) {
  Item item = unpack(items_[stream]);
  if (!item.used) return;
  Place& place = (item.is_stack ? stacks_ : functions_)[item.index];
  place.stream = kNone;
  place.fresh = 0;
  item.used = false;
  items_[stream] = pack(item);
  free_.push_back(stream);
}

void ShareStreams::see(Place& place, float count, Item item) {
  if (place.stream != kNone) return;
  place.fresh += count;
  const float around = place.inside >= kNotPlaced ? seen_ : functions_[place.inside].seen;
  const bool says_the_same = std::abs(around - place.seen) < kAdmitAt;
  if (place.fresh >= kAdmitAt && !says_the_same && !full()) candidates_.push_back({item, count});
}

// What a function or stack lies inside of is taken from the first stack that it is seen in.
void ShareStreams::place_new_functions(const Tick& tick, StackIndex& index) {
  for (const Tick::Entry& entry : tick.entries) {
    grow_to(stacks_, size_t{entry.stack} + 1);
    Place& stack = stacks_[entry.stack];
    if (stack.inside != kNotPlaced) continue;
    stack.inside = kNone;
    for (const uint32_t f : index.functions_of(entry.stack)) {
      if (!index.is_real(f)) continue;
      if (functions_[f].inside == kNotPlaced) functions_[f].inside = stack.inside;
      stack.inside = static_cast<uint16_t>(f);
    }
  }
}

void ShareStreams::place_candidates() {
  if (candidates_.size() > capacity_ - used()) {
    std::stable_sort(candidates_.begin(), candidates_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.count > b.count; });
    candidates_.resize(capacity_ - used());
  }
  for (const Candidate& candidate : candidates_) {
    if (free_.empty()) {
      free_.push_back(static_cast<uint32_t>(items_.size()));
      items_.push_back(0);
    }
    const uint32_t stream = free_.back();
    free_.pop_back();
    items_[stream] = pack(candidate.item);
    (candidate.item.is_stack ? stacks_ : functions_)[candidate.item.index].stream = static_cast<uint16_t>(stream);
    fresh_.push_back(stream);
  }
  candidates_ = {};  // many at the start, hardly any later: their room is given back
}

void ShareStreams::sum_functions(const Tick& tick, StackIndex& index) {
  for (const uint32_t f : touched_) function_counts_[f] = 0;
  touched_.clear();
  for (const Tick::Entry& entry : tick.entries) {
    for (const uint32_t f : index.functions_of(entry.stack)) {
      if (f >= function_counts_.size()) {
        grow_to(function_counts_, index.functions());
        grow_to(functions_, index.functions());
      }
      if (function_counts_[f] == 0) touched_.push_back(f);
      function_counts_[f] += entry.count;
    }
  }
}

}  // namespace stackwatch
