// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace stackwatch {

/// The numbers of a saved baseline, one after the other, little-endian.
class SavedWriter {
 public:
  void put(uint64_t value) { put_bytes(value, 8); }
  void put(uint16_t value) { put_bytes(value, 2); }
  void put(double value) { put(std::bit_cast<uint64_t>(value)); }
  void put(float value) { put_bytes(std::bit_cast<uint32_t>(value), 4); }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  void put_bytes(uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) out_.push_back(static_cast<char>(value >> (8 * i)));
  }
  std::string out_;
};

/// Reads them back. After the end, or after a number that is none, it gives zeros and is not ok() any more.
class SavedReader {
 public:
  /// Larger than any count, time or amount that a detector believes: garbage.
  static constexpr double kMost = 1e30;

  explicit SavedReader(std::string_view bytes) : bytes_(bytes) {}
  uint64_t integer() { return take(8); }
  uint16_t small() { return static_cast<uint16_t>(take(2)); }
  /// A number from 0 on.
  double amount() { return checked(std::bit_cast<double>(take(8))); }
  float brief_amount() { return static_cast<float>(checked(std::bit_cast<float>(static_cast<uint32_t>(take(4))))); }
  [[nodiscard]] bool ok() const { return ok_; }
  /// What was read makes no sense.
  void spoil() { ok_ = false; }
  [[nodiscard]] bool at_end() const { return at_ == bytes_.size(); }

 private:
  double checked(double value) {
    if (std::isfinite(value) && value >= 0 && value <= kMost) return value;
    ok_ = false;
    return 0;
  }
  uint64_t take(size_t bytes) {
    if (!ok_ || at_ + bytes > bytes_.size()) {
      ok_ = false;
      return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[at_ + i])) << (8 * i);
    at_ += bytes;
    return value;
  }

  std::string_view bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace stackwatch
