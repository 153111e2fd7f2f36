// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/result.h"
#include "detectors/dispersion.h"

namespace stackwatch {

/// What `wait` leaves to the detector of a successor: how long was waited in which stacks and functions, by their names
/// (share_heritage.h), and how that varied.
struct WaitHeritage {
  /// Of each kind; those with least are left out. 512 of each are 38 kB.
  static constexpr size_t kMaxEntries = 512;

  struct Entry {
    uint64_t name = 0;
    double amount = 0;                          ///< milliseconds in the baseline
    std::array<float, kBlockScales> scatter{};  ///< BlockMoments::scatter(); zeros of what was no stream
  };
  double wall_s = 0;  ///< length of the baseline
  double usual_load = 0;
  std::array<double, kBlockScales> blocks{};  ///< how many, by length
  std::vector<Entry> stacks;
  std::vector<Entry> functions;
  std::vector<uint64_t> parked;  ///< stacks that are left out: a pool of workers waits there for work
};

/// Versioned and bounded.
[[nodiscard]] std::string encode(WaitHeritage heritage);
/// An error where the bytes are of another version, cut off, or make no sense.
[[nodiscard]] Result<WaitHeritage> decode_wait_heritage(std::string_view bytes);

/// What a predecessor did, until the successor shows a stack or function of that name. Of several of one name the
/// largest counts.
class InheritedWaits {
 public:
  void take(const std::vector<WaitHeritage::Entry>& entries);
  void clear() { entries_.clear(); }
  /// Milliseconds; each name once, then 0.
  [[nodiscard]] double claim(uint64_t name);
  /// By length of block; nothing where the predecessor did not have it.
  [[nodiscard]] const std::array<double, kBlockScales>* scatter(uint64_t name) const;
  /// As the baseline forgets, so does this.
  void halve();
  /// Adds what nobody has claimed to what is handed on.
  void add_to(std::vector<WaitHeritage::Entry>& entries) const;

 private:
  struct Inherited {
    double amount = 0;
    std::array<double, kBlockScales> scatter{};
    bool claimed = false;
  };
  std::unordered_map<uint64_t, Inherited> entries_;
};

}  // namespace stackwatch
