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

double unit(ProbeKind probe) { return probe == ProbeKind::kBlocked || probe == ProbeKind::kRunQueue ? 1e-6 : 1.0; }

double cpu_time(const NamedDelta& delta, double total) {
  if (delta.probe != ProbeKind::kOnCpu) return 0;
  const double s = delta.exposure_s;
  if (std::isfinite(s) && s > 0 && s < kMaxCpuS) return s;
  // A source without CPU times still has the samples' rate.
  const double sampled = total / delta.frequency_hz;
  return std::isfinite(sampled) && sampled > 0 && sampled < kMaxCpuS ? sampled : 0;
}

// An entry begins with the distance of its stack from the one before, times four, plus what its count is.
enum CountForm : uint64_t { kOne = 0, kInteger = 1, kFloat = 2 };

void put_number(std::vector<uint8_t>& out, uint64_t number) {
  for (; number >= 0x80; number >>= 7) out.push_back(static_cast<uint8_t>(number | 0x80));
  out.push_back(static_cast<uint8_t>(number));
}

uint64_t take_number(const uint8_t*& at) {
  uint64_t number = 0;
  for (unsigned shift = 0;; shift += 7) {
    const uint8_t byte = *at++;
    number |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return number;
  }
}

CountForm form_of(float count) {
  constexpr float kExact = 16777216;  // integers up to here are what they are as a float
  if (count == 1) return kOne;
  return count >= 0 && count <= kExact && count == std::floor(count) ? kInteger : kFloat;
}

void pack(const std::vector<Tick::Entry>& sorted, std::vector<uint8_t>& out) {
  out.clear();
  uint32_t last = 0;
  for (const Tick::Entry& entry : sorted) {
    const CountForm form = form_of(entry.count);
    put_number(out, static_cast<uint64_t>(entry.stack - last) << 2 | form);
    last = entry.stack;
    if (form == kInteger) put_number(out, static_cast<uint64_t>(entry.count));
    if (form == kFloat) {
      const auto bits = std::bit_cast<uint32_t>(entry.count);
      for (int i = 0; i < 4; ++i) out.push_back(static_cast<uint8_t>(bits >> (8 * i)));
    }
  }
}

float take_count(const uint8_t*& at, uint64_t form) {
  if (form == kOne) return 1;
  if (form == kInteger) return static_cast<float>(take_number(at));
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(*at++) << (8 * i);
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

std::span<const uint32_t> StackIndex::functions_of(uint32_t stack) {
  if (stack >= ranges_.size()) ranges_.resize(stack + 1);
  Range& range = ranges_[stack];
  if (!range.known) {
    range.known = true;
    range.begin = static_cast<uint32_t>(pool_.size());
    for (const FunctionId function : table_->unique_functions(StackId{stack})) {
      auto found = numbers_.find(function);
      if (found == numbers_.end()) {
        if (functions_.size() >= kMaxFunctions) continue;
        found = numbers_.emplace(function, functions()).first;
        functions_.push_back(function);
      }
      pool_.push_back(found->second);
    }
    range.length = static_cast<uint32_t>(pool_.size()) - range.begin;
  }
  return {pool_.data() + range.begin, range.length};
}

std::optional<uint32_t> StackIndex::number_of(FunctionId function) const {
  const auto found = numbers_.find(function);
  return found == numbers_.end() ? std::nullopt : std::optional(found->second);
}

void TickWindow::push(const Tick& tick) {
  if (ticks_.empty()) ticks_.resize(kCapacity);
  if (size_ == kCapacity) {
    first_ = (first_ + 1) % kCapacity;
    --size_;
  }
  sorted_ = tick.entries;
  std::ranges::sort(sorted_, {}, &Tick::Entry::stack);
  pack(sorted_, bytes_);
  Packed& packed = ticks_[(first_ + size_) % kCapacity];
  packed.end_s = tick.end_s;
  packed.interval_s = tick.interval_s;
  packed.cpu_s = tick.cpu_s;
  packed.total = tick.total;
  // Not assign(): it keeps the room of the largest tick that was ever in this place.
  if (bytes_.size() > packed.entries.capacity() || 2 * bytes_.size() < packed.entries.capacity()) {
    packed.entries = std::vector<uint8_t>(bytes_);
  } else {
    packed.entries = bytes_;
  }
  ++size_;
  ++pushed_;
}

Tick TickWindow::operator[](size_t i) const {
  const Packed& packed = ticks_[(first_ + i) % kCapacity];
  Tick out{packed.end_s, packed.interval_s, packed.cpu_s, packed.total, {}};
  out.entries.reserve(packed.entries.size());
  const uint8_t* at = packed.entries.data();
  const uint8_t* const end = at + packed.entries.size();
  for (uint32_t stack = 0; at != end;) {
    const uint64_t head = take_number(at);
    stack += static_cast<uint32_t>(head >> 2);
    out.entries.push_back({stack, take_count(at, head & 3)});
  }
  return out;
}

void StackCounts::add(const Tick& tick, StackIndex& index) {
  for (const Tick::Entry& entry : tick.entries) {
    if (entry.stack >= by_stack.size()) by_stack.resize(entry.stack + 1);
    by_stack[entry.stack] += static_cast<double>(entry.count);
    const auto functions = index.functions_of(entry.stack);
    if (by_function.size() < index.functions()) by_function.resize(index.functions());
    for (const uint32_t function : functions) by_function[function] += static_cast<double>(entry.count);
  }
  total += tick.total;
  squares += tick.total * tick.total;
  wall_s += tick.interval_s;
  cpu_s += tick.cpu_s;
}

void StackCounts::halve() {
  for (double& count : by_stack) count /= 2;
  for (double& count : by_function) count /= 2;
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
