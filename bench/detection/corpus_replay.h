// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/result.h"
#include "daemon/alerting/alert_policy.h"
#include "detectors/detector.h"
#include "detectors/settings.h"

namespace stackwatch {

/// What a replay is judged with: the parts of a configuration that detectors and the alert policy see.
struct JudgedWith {
  DetectionPolicy policy;
  DetectorSettings detectors;
  AlertPolicyOptions alerting;
};

/// A run of a program that the recorder wrote a truth for, or of a program that changed several times the part that is
/// about one change.
struct CorpusRun {
  std::string name;                    ///< of its file
  std::string exe;                     ///< name of its executable: of the parts of one program the same
  std::string kind;                    ///< what was done to it: "grow5", "restart"
  bool is_change = false;              ///< of the program: to be told
  std::vector<std::string> functions;  ///< each of them is right
  int32_t pid = 0;                     ///< that did it, of several
  double started_s = 0;                ///< CLOCK_REALTIME, like the others
  double onset_s = 0;
  double ended_s = 0;
  double cpu_s = 0;
  double planned_cpu_s = 0;  ///< 0: not told
};

/// Whose executable this is at a time: of several parts of a program the last that has begun. Null where it is
/// nobody's.
[[nodiscard]] const CorpusRun* run_at(const std::vector<CorpusRun>& runs, const std::string& exe, double time_s);

/// An alert as it began to fire.
struct Firing {
  double time_s = 0;  ///< CLOCK_REALTIME
  int32_t pid = 0;
  std::string exe;
  std::string detector;
  std::vector<std::string> frames;  ///< what it accuses, the named one first
  double before = 0, after = 0;
  bool is_named_later = false;  ///< it began to fire before, without a function: no further alert
};

/// What was sampled of a run, for the optimum that it is compared with.
struct Sampled {
  double share_before = 0, share_after = 0;  ///< samples with one of its functions on the stack
  double per_second = 0;                     ///< samples before the onset
  double dispersion = 1;  ///< variance of the function's counts in blocks of 10 s over that of independent samples
};

struct Replayed {
  std::vector<Firing> firings;
  std::map<std::string, size_t>
      claims;  ///< by run: distinct (detector, probe, function) that were claimed after the onset
  std::map<std::string, Sampled> sampled;
  size_t streams = 0;  ///< of the host, at most
  double seconds = 0;  ///< recorded
};

/// Every truth in `directory` (NAME.truth.json). Error: one that cannot be read, or none.
[[nodiscard]] Result<std::vector<CorpusRun>> read_corpus(const std::string& directory);

/// The same for programs that were sampled at `frequency_hz`: who is sampled ten times as often as usual (99 Hz) gives
/// the same samples with a tenth of the CPU time, so sizes in cores are a tenth. 0: not known, left as it is.
[[nodiscard]] JudgedWith scaled_to(JudgedWith with, double frequency_hz);

/// One capture through detectors and alert policy, as the daemon would; sizes in cores are scaled to its rate.
[[nodiscard]] Result<Replayed> replay_capture(const std::string& path, const JudgedWith& with,
                                              const std::vector<CorpusRun>& runs);

}  // namespace stackwatch
