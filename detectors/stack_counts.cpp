// SPDX-License-Identifier: Apache-2.0
#include "detectors/stack_counts.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace stackwatch {
namespace {

// A tenth of the samples missing at random costs nothing but speed; missing in one place it could look like a change
// of a few points. Ticks beyond are neither evidence nor baseline.
constexpr double kMaxLostShare = 0.1;

// More CPU time in a tick than any machine has is garbage.
constexpr double kMaxCpuS = 1e6;

// What no interval is, and a float holds: rates of such numbers are still numbers.
constexpr double kMost = 1e18;
constexpr float kShortestS = 1e-18F;
float narrow(double number) { return static_cast<float>(std::clamp(number, -kMost, kMost)); }

// The ring of packed ticks has so much more than they need, a part: what 300 ticks need hardly differs.
constexpr size_t kRoom = 32;

double unit(ProbeKind probe) { return probe == ProbeKind::kBlocked || probe == ProbeKind::kRunQueue ? 1e-6 : 1.0; }

double cpu_time(const NamedDelta& delta, double total) {
  if (delta.probe != ProbeKind::kOnCpu) return 0;
  const double s = delta.exposure_s;
  if (std::isfinite(s) && s > 0 && s < kMaxCpuS) return s;
  // A source without CPU times still has the samples' rate.
  const double sampled = total / delta.frequency_hz;
  return std::isfinite(sampled) && sampled > 0 && sampled < kMaxCpuS ? sampled : 0;
}

// An entry begins with the distance of its stack from the one before, times four, plus its count less one, or
// kLargeCount: then follow the count, twice, or 1 and the bytes of a float.
constexpr uint64_t kLargeCount = 3;

void put_number(std::vector<uint8_t>& out, uint64_t number) {
  for (; number >= 0x80; number >>= 7) out.push_back(static_cast<uint8_t>(number | 0x80));
  out.push_back(static_cast<uint8_t>(number));
}

/// Reads on from a place in a ring of bytes.
class RingReader {
 public:
  RingReader(const std::vector<uint8_t>& ring, size_t at) : ring_(ring), at_(at) {}
  uint8_t operator()() {
    const uint8_t byte = ring_[at_];
    if (++at_ == ring_.size()) at_ = 0;
    ++taken_;
    return byte;
  }
  [[nodiscard]] size_t taken() const { return taken_; }

 private:
  const std::vector<uint8_t>& ring_;
  size_t at_;
  size_t taken_ = 0;
};

uint64_t take_number(RingReader& bytes) {
  uint64_t number = 0;
  for (unsigned shift = 0;; shift += 7) {
    const uint8_t byte = bytes();
    number |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return number;
  }
}

bool is_integer(float count) {
  constexpr float kExact = 16777216;  // integers up to here are what they are as a float
  return count >= 0 && count <= kExact && count == std::floor(count);
}

void pack(const std::vector<Tick::Entry>& sorted, std::vector<uint8_t>& out) {
  out.clear();
  uint32_t last = 0;
  for (const Tick::Entry& entry : sorted) {
    const bool integer = is_integer(entry.count);
    const bool small = integer && entry.count >= 1 && entry.count <= kLargeCount;
    const uint64_t distance = entry.stack - last;
    last = entry.stack;
    put_number(out, distance << 2 | (small ? static_cast<uint64_t>(entry.count) - 1 : kLargeCount));
    if (small) continue;
    if (integer) {
      put_number(out, static_cast<uint64_t>(entry.count) << 1);
    } else {
      put_number(out, 1);
      const auto bits = std::bit_cast<uint32_t>(entry.count);
      for (int b = 0; b < 4; ++b) out.push_back(static_cast<uint8_t>(bits >> (8 * b)));
    }
  }
}

float take_count(RingReader& bytes, uint64_t form) {
  if (form != kLargeCount) return static_cast<float>(form + 1);
  const uint64_t number = take_number(bytes);
  if (number % 2 == 0) return static_cast<float>(number / 2);
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(bytes()) << (8 * i);
  return std::bit_cast<float>(bits);
}

}  // namespace

bool StackIndex::follow(const StackTable* table) {
  if (table == table_) return false;
  const bool was_another = table_ != nullptr;
  *this = StackIndex{};
  table_ = table;
  return was_another;
}

std::span<const uint16_t> StackIndex::functions_of(uint32_t stack) {
  grow_to(ranges_, size_t{stack} + 1);
  Range& range = ranges_[stack];
  if (range.begin == Range::kUnknown) {
    range.begin = static_cast<uint32_t>(pool_.size());
    const auto unique = table_->unique_functions(StackId{stack});
    if (pool_.size() + unique.size() > pool_.capacity()) pool_.reserve((pool_.size() + unique.size()) / 8 * 9);
    for (const FunctionId function : unique) {
      const auto by_id = [this](uint16_t number) { return functions_[number].value; };
      auto found = std::ranges::lower_bound(sorted_, function.value, {}, by_id);
      if (found == sorted_.end() || functions_[*found] != function) {
        if (functions_.size() >= kMaxFunctions) continue;
        found = sorted_.insert(found, static_cast<uint16_t>(functions()));
        functions_.push_back(function);
      }
      pool_.push_back(*found);
    }
    range.length = static_cast<uint32_t>(pool_.size()) - range.begin;
  }
  return {pool_.data() + range.begin, range.length};
}

std::optional<uint32_t> StackIndex::number_of(FunctionId function) const {
  const auto by_id = [this](uint16_t number) { return functions_[number].value; };
  const auto found = std::ranges::lower_bound(sorted_, function.value, {}, by_id);
  return found == sorted_.end() || functions_[*found] != function ? std::nullopt : std::optional<uint32_t>(*found);
}

void TickWindow::push(const Tick& tick) {
  if (ticks_.empty()) ticks_.resize(kCapacity);
  if (size_ == kCapacity) {
    used_ -= length(0);
    first_ = (first_ + 1) % kCapacity;
    --size_;
  }
  sorted_ = tick.entries;
  std::ranges::sort(sorted_, {}, &Tick::Entry::stack);
  pack(sorted_, bytes_);
  const size_t needed = used_ + bytes_.size();
  if (needed >= ring_.size() || needed < ring_.size() / 2) resize(needed + needed / kRoom + 1);
  const size_t begin = ring_.empty() || size_ == 0 ? 0 : (packed(0).begin + used_) % ring_.size();
  const size_t to_end = std::min(bytes_.size(), ring_.size() - begin);
  std::copy_n(bytes_.begin(), to_end, ring_.begin() + static_cast<std::ptrdiff_t>(begin));
  std::copy(bytes_.begin() + static_cast<std::ptrdiff_t>(to_end), bytes_.end(), ring_.begin());
  ticks_[(first_ + size_) % kCapacity] = {tick.end_s, narrow(tick.total), std::max(narrow(tick.interval_s), kShortestS),
                                          narrow(tick.cpu_s), static_cast<uint32_t>(begin)};
  used_ = needed;
  ++size_;
  ++pushed_;
}

void TickWindow::resize(size_t bytes) {
  std::vector<uint8_t> ring;
  ring.reserve(bytes);
  if (size_ > 0) {
    const uint32_t begin = packed(0).begin;
    for (RingReader read(ring_, begin); read.taken() < used_;) ring.push_back(read());
    for (size_t i = 0; i < size_; ++i) {
      uint32_t& each = ticks_[(first_ + i) % kCapacity].begin;
      each = each >= begin ? each - begin : static_cast<uint32_t>(each + ring_.size() - begin);
    }
  }
  ring.resize(bytes);
  ring_ = std::move(ring);
}

size_t TickWindow::length(size_t i) const {
  const uint32_t begin = packed(i).begin;
  if (i + 1 == size_) {
    const uint32_t first = packed(0).begin;
    return used_ - (begin >= first ? begin - first : begin + ring_.size() - first);
  }
  const uint32_t end = packed(i + 1).begin;
  return end >= begin ? end - begin : end + ring_.size() - begin;
}

void TickWindow::clear() {
  first_ = size_ = used_ = 0;
  ring_ = {};
}

Tick TickWindow::operator[](size_t i) const {
  const Packed& tick = packed(i);
  const size_t length_of_tick = length(i);
  Tick out{tick.end_s,
           static_cast<double>(tick.interval_s),
           static_cast<double>(tick.cpu_s),
           static_cast<double>(tick.total),
           {}};
  out.entries.reserve(length_of_tick);
  RingReader bytes(ring_, tick.begin);
  for (uint32_t stack = 0; bytes.taken() < length_of_tick;) {
    const uint64_t head = take_number(bytes);
    stack += static_cast<uint32_t>(head >> 2);
    out.entries.push_back({stack, take_count(bytes, head & 3)});
  }
  return out;
}

void StackCounts::add(const Tick& tick, StackIndex& index) {
  for (const Tick::Entry& entry : tick.entries) {
    grow_to(by_stack, size_t{entry.stack} + 1);
    by_stack[entry.stack] += entry.count;
    const auto functions = index.functions_of(entry.stack);
    grow_to(by_function, index.functions());
    for (const uint32_t function : functions) by_function[function] += entry.count;
  }
  total += tick.total;
  squares += tick.total * tick.total;
  wall_s += tick.interval_s;
  cpu_s += tick.cpu_s;
}

void StackCounts::halve() {
  for (float& count : by_stack) count /= 2;
  for (float& count : by_function) count /= 2;
  total /= 2;
  squares /= 2;
  wall_s /= 2;
  cpu_s /= 2;
}

bool read_tick(const NamedDelta& delta, double last_end_s, Tick& out) {
  if (delta.stacks == nullptr || !std::isfinite(delta.time_s) || delta.time_s <= last_end_s) return false;
  if (!std::isfinite(delta.interval_s) || delta.interval_s <= 0) return false;
  const double scale = unit(delta.probe);
  out.entries.clear();
  out.total = 0;
  for (const NamedDelta::Value& value : delta.values) {
    if (value.value < 0 || value.stack.value >= delta.stacks->size()) return false;
    const double count = static_cast<double>(value.value) * scale;
    if (count == 0) continue;
    out.entries.push_back({value.stack.value, static_cast<float>(count)});
    out.total += count;
  }
  out.end_s = delta.time_s;
  out.interval_s = delta.interval_s;
  out.cpu_s = cpu_time(delta, out.total);
  return true;
}

bool too_lossy(const NamedDelta& delta, double total) {
  const double uncounted = static_cast<double>(delta.lost.uncounted());
  const double unnamed = static_cast<double>(delta.lost[LossReason::kNamesLate]);
  return uncounted + unnamed > kMaxLostShare * (total + uncounted);
}

bool too_rootless(const NamedDelta& delta, double total) {
  return static_cast<double>(delta.lost[LossReason::kUnwindIncomplete]) > kMaxLostShare * total;
}

}  // namespace stackwatch
