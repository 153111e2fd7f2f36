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
  double min_relative_change = 1.5;  ///< smallest increase worth telling as a part of the level before [0.1, 100]
  double min_change_cores = 0.1;     ///< likewise in cores; the policy's where that is larger [0, 4096]
  double min_starved_threads = 2;    ///< smallest increase of threads that wait for a CPU worth telling [0.1, 4096]
};

/// The keys of `[detectors.wait]`.
struct WaitSettings {
  bool enabled = true;
  double learn_s = 120;             ///< length of the first baseline [30, 86400]
  double quarantine_s = 30;         ///< age at which a later tick enters the baseline [0, 240]
  double memory_s = 3600;           ///< the baseline forgets with this half-life, at the least [300, 2592000]
  double persistence_s = 20;        ///< no shorter change is told, however large [0, 240]
  double adopt_after_s = 3600;      ///< a change that stands for so long is the new baseline [60, 2592000]
  double min_relative_change = 1;   ///< smallest increase worth telling as a part of the wait before [0.1, 100]
  double min_change_threads = 0.1;  ///< likewise in threads that wait, on average [0.001, 4096]
  uint32_t max_streams = 256;       ///< functions and stacks tested per process [16, 8192]
};

/// The keys of `[detectors.leak]`.
struct LeakSettings {
  bool enabled = true;
  double settle_s = 300;       ///< growth in the first so many seconds of watching is start-up [0, 86400]
  double block_s = 15;         ///< the lowest level of each so many seconds is what must grow [1, 3600]
  double min_growth_mb = 2;    ///< smallest growth worth telling, in MB of a stack [0.001, 1000000]
  double min_relative = 0.1;   ///< likewise for resident memory, as a part of the level before [0, 100]
  uint32_t max_streams = 256;  ///< stacks followed per process [16, 8192]
};

/// The keys of `[detectors.novelty]`.
struct NoveltySettings {
  bool enabled = false;            ///< see the header of the detector for why it is off
  double learn_s = 300;            ///< half to see what is usual, half to measure how much is new in it [120, 86400]
  double quarantine_s = 60;        ///< age at which code is no longer new; a change must be found by then [30, 240]
  double memory_s = 3600;          ///< the rate forgets with this half-life, at the least [300, 2592000]
  double persistence_s = 20;       ///< no shorter change is told, however large [0, 240]
  double adopt_after_s = 3600;     ///< a change that stands for so long is normal [60, 2592000]
  double min_relative_change = 1;  ///< smallest increase worth telling as a part of the usual rate [0, 100]
};

/// The keys of `[detectors.subspace]`.
struct SubspaceSettings {
  bool enabled = false;            ///< see the header of the detector for why it is off
  double learn_s = 600;            ///< length of the first baseline [60, 86400]
  double memory_s = 7200;          ///< the baseline forgets with this half-life, at the least [300, 2592000]
  double persistence_s = 30;       ///< no shorter change is told, however large [0, 240]
  double adopt_after_s = 3600;     ///< a change that stands for so long is the new baseline [60, 2592000]
  double explained = 0.9;          ///< part of the variance that the usual directions hold [0.5, 0.999]
  double min_relative_change = 1;  ///< smallest increase of the distance worth telling, as a part of it [0.1, 100]
};

/// The keys of `[detectors.peers]`.
struct PeersSettings {
  bool enabled = true;
  double learn_s = 180;           ///< length of the first baseline [30, 86400]
  double memory_s = 7200;         ///< the baseline forgets with this half-life, at the least [300, 2592000]
  double persistence_s = 20;      ///< no shorter change is told, however large [0, 240]
  double adopt_after_s = 3600;    ///< a change that stands for so long is the new baseline [60, 2592000]
  double min_change_cores = 0.2;  ///< smallest distance from the siblings worth telling, in cores [0.001, 4096]
  uint32_t min_siblings = 3;      ///< fewer others are no crowd to compare with [2, 1024]
};

/// What the configuration says about each detector; `[detectors.NAME]`.
struct DetectorSettings {
  CompositionSettings composition;
  RateSettings rate;
  WaitSettings wait;
  LeakSettings leak;
  NoveltySettings novelty;
  SubspaceSettings subspace;
  PeersSettings peers;
};

/// Whether every value lies in its range; the error names the key as the configuration spells it.
[[nodiscard]] Result<void> validate(const DetectorSettings& settings);

}  // namespace stackwatch
