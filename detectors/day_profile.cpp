// SPDX-License-Identifier: Apache-2.0
#include "detectors/day_profile.h"

#include <algorithm>

namespace stackwatch {
namespace {

// A half hour of which less was seen says nothing about it.
constexpr double kLeastSeen = 0.5;
// The year 3000: days are numbers that can be computed with.
constexpr int64_t kLastDay = 376'000;

// Two to three digits, of numbers from 0 on.
uint16_t shorten(double rate) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(std::clamp(rate, 0.0, SavedReader::kMost)));
  return static_cast<uint16_t>((bits + 0x8000U) >> 16);
}

double lengthen(uint16_t rate) { return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(rate) << 16)); }

}  // namespace

void DayProfile::observe(int64_t local_s, double amount, double interval_s) {
  if (local_s < 0 || local_s / 86400 > kLastDay || interval_s > kLongestTickS) return;
  const int64_t bin = local_s / kBinS;
  if (bin != open_bin_) {
    close();
    open_bin_ = bin;
    open_amount_ = open_s_ = 0;
  }
  open_amount_ += amount;
  open_s_ += interval_s;
}

void DayProfile::close() {
  if (open_bin_ >= 0 && open_s_ >= kLeastSeen * static_cast<double>(kBinS)) put(open_bin_, open_amount_ / open_s_);
}

void DayProfile::put(int64_t bin, double rate) {
  if (rates_.empty()) rates_.assign(kDays * kBins, kUnknown);
  const int64_t day = bin / kBins;
  const auto row = static_cast<size_t>(day % static_cast<int64_t>(kDays));
  const auto begin = rates_.begin() + static_cast<std::ptrdiff_t>(row) * kBins;
  if (days_[row] != day) std::fill_n(begin, kBins, kUnknown);
  days_[row] = day;
  *(begin + bin % kBins) = shorten(rate);
}

std::optional<DayProfile::Usual> DayProfile::usual(int64_t bin) const {
  if (rates_.empty() || bin < 0) return std::nullopt;
  const int64_t day = bin / kBins;
  std::array<double, kDays> rates{};
  size_t known = 0;
  for (size_t row = 0; row < kDays; ++row) {
    if (days_[row] < day - static_cast<int64_t>(kDays) || days_[row] >= day) continue;
    const uint16_t rate = rates_[row * kBins + static_cast<size_t>(bin % kBins)];
    if (rate != kUnknown) rates[known++] = lengthen(rate);
  }
  if (known < kNeeded) return std::nullopt;
  std::sort(rates.begin(), rates.begin() + static_cast<std::ptrdiff_t>(known));
  return Usual{rates[kNeeded - 1], rates[known - kNeeded]};
}

std::optional<DayProfile::Around> DayProfile::around(int64_t local_s) const {
  if (local_s < 0) return std::nullopt;
  const int64_t bin = local_s / kBinS;
  std::optional<Usual> now;
  std::optional<Usual> before;
  for (int64_t i = bin - kBefore; i <= bin + 1; ++i) {
    const auto here = usual(i);
    if (!here) continue;
    if (i >= bin - 1) {
      if (!now) now = here;
      now = Usual{std::min(now->low, here->low), std::max(now->high, here->high)};
    }
    if (!before) before = here;
    before = Usual{std::max(before->low, here->low), std::min(before->high, here->high)};
  }
  if (!now || !before) return std::nullopt;
  return Around{*now, *before};
}

void DayProfile::save(SavedWriter& out) const {
  out.put(static_cast<uint64_t>(rates_.size()));
  if (rates_.empty()) return;
  for (const int64_t day : days_) out.put(static_cast<uint64_t>(day));
  for (const uint16_t rate : rates_) out.put(rate);
}

void DayProfile::restore(SavedReader& in) {
  DayProfile read;
  const uint64_t size = in.integer();
  if (!in.ok() || size == 0) {
    *this = DayProfile{};
    return;
  }
  bool sane = size == kDays * kBins;
  for (size_t row = 0; row < kDays && sane; ++row) {
    read.days_[row] = static_cast<int64_t>(in.integer());
    const bool in_its_row =
        read.days_[row] >= 0 && read.days_[row] % static_cast<int64_t>(kDays) == static_cast<int64_t>(row);
    sane = read.days_[row] == kNoDay || (in_its_row && read.days_[row] <= kLastDay);
  }
  for (uint64_t i = 0; i < size && sane; ++i) {
    const uint16_t rate = read.rates_.emplace_back(in.small());
    sane = rate == kUnknown || (rate < 0x8000 && lengthen(rate) <= 2 * SavedReader::kMost);
  }
  if (!sane) in.spoil();
  if (in.ok()) *this = std::move(read);
}

}  // namespace stackwatch
