// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "core/result.h"
#include "detectors/day_profile.h"
#include "detectors/dispersion.h"

namespace stackwatch {

/// What one series leaves to its successor: its level, how it varies, and what is usual at each time of day.
struct LevelHeritage {
  double amount = 0;                           ///< of the baseline
  double wanted = 0;                           ///< likewise
  double exposure_s = 0;                       ///< its length; 0 where the level is just being learned
  std::array<double, kBlockScales> blocks{};   ///< how many, by length
  std::array<double, kBlockScales> scatter{};  ///< BlockMoments::scatter() of them
  double usual_cores = 0;                      ///< `rate`: what the process gets when nothing is wrong
  double usual_weight = 0;
  DayProfile day;
};

/// Versioned; 136 bytes, and 728 more where times of day are known.
[[nodiscard]] std::string encode(const LevelHeritage& heritage);
/// An error where the bytes are of another version, cut off, or make no sense.
[[nodiscard]] Result<LevelHeritage> decode_level_heritage(std::string_view bytes);

}  // namespace stackwatch
