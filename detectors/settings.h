// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/result.h"

namespace stackwatch {

/// The keys of `[detectors.composition]`. Each with its default and, in brackets, what validate() accepts.
struct CompositionSettings {
  bool enabled = true;
  double learn_s = 45;               ///< length of the first baseline [30, 86400]
  double quarantine_s = 30;          ///< age at which a later tick enters the baseline [0, 240]
  double memory_s = 3600;            ///< the baseline forgets with this half-life, at the least [300, 2592000]
  double persistence_s = 10;         ///< no shorter change is told, however large; 0 turns it off [0, 240]
  double adopt_after_s = 3600;       ///< a change that stands for so long is the new baseline [60, 2592000]
  double min_relative_change = 0.1;  ///< smallest change worth telling as a part of the share before [0, 10]
  double explains = 0.8;             ///< the function named explains at least this part of the change [0.5, 1]
  uint32_t max_streams = 512;        ///< functions and stacks tested per process; the rest is "other" [16, 8192]
};

/// The keys of `[detectors.rate]`.
struct RateSettings {
  bool enabled = true;
  double learn_s = 180;              ///< length of the first baseline [30, 86400]
  double quarantine_s = 60;          ///< age at which a later tick enters the baseline [0, 240]
  double memory_s = 7200;            ///< the baseline forgets with this half-life, at the least [300, 2592000]
  double persistence_s = 20;         ///< no shorter change is told, however large [0, 240]
  double adopt_after_s = 3600;       ///< a change that stands for so long is the new baseline [60, 2592000]
  double min_relative_change = 0.5;  ///< smallest change worth telling as a part of the level before [0.1, 100]
  double min_change_cores = 0.1;  ///< likewise in cores (waiting: threads); the policy's where that is larger [0, 4096]
};

/// What the configuration says about each detector; `[detectors.NAME]`.
struct DetectorSettings {
  CompositionSettings composition;
  RateSettings rate;
};

/// Whether every value lies in its range; the error names the key as the configuration spells it.
[[nodiscard]] Result<void> validate(const DetectorSettings& settings);

}  // namespace stackwatch
