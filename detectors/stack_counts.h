// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/delta.h"
#include "core/stacks.h"

namespace stackwatch {

/// Makes a vector as long as it must be, with an eighth of room: the library would double it, and arrays by stack and
/// by function are a third of what a process takes.
template <class T>
void grow_to(std::vector<T>& vector, size_t size) {
  if (size <= vector.size()) return;
  if (size > vector.capacity()) vector.reserve(size + size / 8);
  vector.resize(size);
}

/// Numbers the functions of one process from 0 in order of appearance, and remembers which ones each stack has: the
/// table's own ids are those of the whole machine, too sparse to index arrays with.
class StackIndex {
 public:
  /// Functions past this number are not followed one by one. A large C++ program has a few thousand on its stacks; the
  /// arrays per function stay below 1 MB.
  static constexpr uint32_t kMaxFunctions = 16384;

  /// Forgets everything when the table is another one; true where it was.
  bool follow(const StackTable* table);
  /// Functions of a stack, each once, root first. The span is valid until the next call.
  [[nodiscard]] std::span<const uint16_t> functions_of(uint32_t stack);
  [[nodiscard]] FunctionId function(uint32_t index) const { return functions_[index]; }
  [[nodiscard]] uint32_t functions() const { return static_cast<uint32_t>(functions_.size()); }
  /// Of a function of any stack that was asked for; none of others.
  [[nodiscard]] std::optional<uint32_t> number_of(FunctionId function) const;
  [[nodiscard]] const StackTable& table() const { return *table_; }
  /// [other] and [unnamed] are no functions that one could name: never tested, never blamed.
  [[nodiscard]] bool is_real(uint32_t index) const {
    return functions_[index] != FunctionTable::kOther && functions_[index] != FunctionTable::kUnnamed;
  }

 private:
  struct Range {
    static constexpr uint32_t kUnknown = 0xffffffff;
    uint32_t begin = kUnknown;
    uint32_t length = 0;
  };
  const StackTable* table_ = nullptr;
  std::vector<FunctionId> functions_;  // by number
  std::vector<uint16_t> sorted_;       // numbers in the order of their functions: a map would take ten times the room
  std::vector<Range> ranges_;
  std::vector<uint16_t> pool_;  // numbers of functions: there are no more than kMaxFunctions
};

/// The counts of one tick, by stack, as they are kept.
struct Tick {
  struct Entry {
    uint32_t stack = 0;
    float count = 0;
  };
  double end_s = 0;
  double interval_s = 0;
  double cpu_s = 0;  ///< CPU time of the process in the interval; 0 where it is not known or the probe is another
  double total = 0;  ///< sum of the counts
  std::vector<Entry> entries;

  [[nodiscard]] double begin_s() const { return end_s - interval_s; }
};

/// The last ticks, oldest first. Bounded: an hour at many stacks per tick would be megabytes per process. Packed: most
/// stacks of a tick have one sample and lie near the one before, so most entries are one byte; all lie in one ring of
/// bytes, which follows what they take. A tick that is asked for is unpacked, 5 ns per entry.
class TickWindow {
 public:
  /// Five minutes at a tick of 1 s: longer than any quarantine, and than the delay of any change that is found within
  /// a few minutes. About 40 kB for a process at 99 Hz with 480 stacks.
  static constexpr size_t kCapacity = 300;

  void push(const Tick& tick);
  void clear();
  [[nodiscard]] size_t size() const { return size_; }
  /// Its entries are in the order of their stacks. Total, interval and CPU time are kept to seven digits.
  [[nodiscard]] Tick operator[](size_t i) const;
  [[nodiscard]] Tick newest() const { return (*this)[size_ - 1]; }
  /// How many ticks were ever pushed: the tick with number pushed() - 1 is the newest.
  [[nodiscard]] uint64_t pushed() const { return pushed_; }

 private:
  struct Packed {
    double end_s = 0;
    float total = 0;
    float interval_s = 0;
    float cpu_s = 0;
    uint32_t begin = 0;  // of its entries in ring_; they end where those of the next one begin
  };
  [[nodiscard]] const Packed& packed(size_t i) const { return ticks_[(first_ + i) % kCapacity]; }
  /// Bytes that its entries take.
  [[nodiscard]] size_t length(size_t i) const;
  /// A ring of this size with what is in use, at its beginning.
  void resize(size_t bytes);

  std::vector<Packed> ticks_;
  std::vector<uint8_t> ring_;
  size_t used_ = 0;                  // bytes of ring_ that ticks lie in, from that of the oldest on; never all of them
  std::vector<Tick::Entry> sorted_;  // scratch
  std::vector<uint8_t> bytes_;       // scratch
  size_t first_ = 0;
  size_t size_ = 0;
  uint64_t pushed_ = 0;
};

/// Sums of ticks, by stack and by function (inclusive: a function counts once in each stack that contains it). A part
/// is a float: exact up to 16 million, beyond that the rounding of an hour's ticks is 5e-6 of it. It may exceed the
/// total by that.
struct StackCounts {
  std::vector<float> by_stack;
  std::vector<float> by_function;
  double total = 0;
  double squares = 0;  ///< sum of the squared totals of the ticks
  double wall_s = 0;
  double cpu_s = 0;

  void add(const Tick& tick, StackIndex& index);
  void halve();
  [[nodiscard]] double stack(uint32_t i) const { return i < by_stack.size() ? static_cast<double>(by_stack[i]) : 0; }
  [[nodiscard]] double function(uint32_t i) const {
    return i < by_function.size() ? static_cast<double>(by_function[i]) : 0;
  }
  [[nodiscard]] double stack_share(uint32_t i) const { return total > 0 ? std::min(1.0, stack(i) / total) : 0; }
  [[nodiscard]] double function_share(uint32_t i) const { return total > 0 ? std::min(1.0, function(i) / total) : 0; }
  /// Total of the tick that an average count is in.
  [[nodiscard]] double typical_tick() const { return total > 0 ? squares / total : 0; }
  [[nodiscard]] double cores() const { return wall_s > 0 ? cpu_s / wall_s : 0; }
};

/// Checks a delta and turns it into a Tick. False where it must not be used at all: no table, a time that goes back or
/// is no number, a negative value, a stack that is not in the table. `last_end_s` is the end of the last tick that was
/// used, or -infinity. Amounts of time are counted in milliseconds, so that "ten counts" means something.
[[nodiscard]] bool read_tick(const NamedDelta& delta, double last_end_s, Tick& out);

/// Whether so much of a tick was lost, or counted under [unnamed] because names came late, that its shares say nothing.
[[nodiscard]] bool too_lossy(const NamedDelta& delta, double total);

/// Whether so many stacks of a tick lack their root that shares of callers say nothing.
[[nodiscard]] bool too_rootless(const NamedDelta& delta, double total);

}  // namespace stackwatch
