// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "detectors/dispersion.h"
#include "detectors/stack_counts.h"

namespace stackwatch {

/// Which functions and stacks of a process are tested one by one, as streams numbered from 0. Bounded: what comes when
/// all places are taken is "other", until release() makes room; then what has most counts comes first.
/// What says the same as another stream is none: a function that has been in every sample of its caller, a root that
/// has been in every sample, a stack that is all there is of its function. It becomes one when they differ.
class ShareStreams {
 public:
  struct Item {
    uint32_t index = 0;  ///< of the function in the StackIndex, or the stack's id
    bool is_stack = false;
    bool used = false;
  };
  /// Numbers of streams are kept in 16 bits.
  static constexpr uint32_t kMaxCapacity = 65000;
  /// A function or stack becomes a stream when it had so many counts: what was seen three times in a life is no stream.
  static constexpr float kAdmitAt = 4;

  explicit ShareStreams(uint32_t capacity) : capacity_(std::min(capacity, kMaxCapacity)) {}

  void clear();
  /// Gives streams to functions and stacks that are new in the tick. Returns the streams that were given a (new)
  /// meaning; valid until the next call.
  std::span<const uint32_t> admit(const Tick& tick, StackIndex& index);
  /// The counts of a tick by stream, each stream at most once; valid until the next call.
  [[nodiscard]] std::span<const BlockMoments::Count> count(const Tick& tick, StackIndex& index);
  /// The stream may be given to something else.
  void release(uint32_t stream);

  [[nodiscard]] size_t size() const { return items_.size(); }  ///< free places included
  [[nodiscard]] size_t used() const { return items_.size() - free_.size(); }
  [[nodiscard]] bool full() const { return used() >= capacity_; }
  [[nodiscard]] Item operator[](size_t stream) const { return unpack(items_[stream]); }

 private:
  static constexpr uint16_t kNone = 0xffff;
  /// Ids of stacks are far below 2^30: the table of a process is bounded.
  static uint32_t pack(Item item) { return item.index << 2 | (item.is_stack ? 2U : 0U) | (item.used ? 1U : 0U); }
  static Item unpack(uint32_t item) { return {item >> 2, (item & 2) != 0, (item & 1) != 0}; }

  static constexpr uint16_t kNotPlaced = 0xfffe;
  static_assert(kMaxCapacity < kNotPlaced && StackIndex::kMaxFunctions < kNotPlaced);
  struct Place {
    uint16_t stream = kNone;
    uint16_t inside = kNotPlaced;  // function that is in each of its samples; kNone: the process itself
    float fresh = 0;               // counts since it was last without a stream
    float seen = 0;                // all counts ever; what says the same is rounded the same
  };

  struct Candidate {
    Item item;
    float count = 0;
  };
  void see(Place& place, float count, Item item);
  void place_new_functions(const Tick& tick, StackIndex& index);
  void place_candidates();
  void sum_functions(const Tick& tick, StackIndex& index);

  uint32_t capacity_;
  std::vector<uint32_t> items_;  // by stream, packed
  std::vector<uint32_t> free_;
  std::vector<uint32_t> fresh_;
  std::vector<Candidate> candidates_;
  std::vector<Place> stacks_;
  std::vector<Place> functions_;
  float seen_ = 0;                      // all samples ever
  std::vector<float> function_counts_;  // of the tick at hand; zero elsewhere
  std::vector<uint32_t> touched_;       // functions with counts in it
  std::vector<BlockMoments::Count> counts_;
};

}  // namespace stackwatch
