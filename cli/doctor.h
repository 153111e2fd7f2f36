// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/options.h"
#include "cli/table.h"
#include "core/clock.h"
#include "core/result.h"

namespace stackwatch {

enum class CheckState : uint8_t {
  kOk,
  kLimited,  ///< everything counts, but with less: no names of kernel functions, no journal, …
  kMissing,  ///< a probe cannot work, or nothing can
};
[[nodiscard]] std::string_view to_string(CheckState state);

/// One thing that was looked at.
struct Check {
  std::string id;  ///< fixed: programs look for it
  CheckState state = CheckState::kOk;
  std::string found;   ///< what is there; text of the machine, not made safe for a terminal
  std::string advice;  ///< what to do about it; empty where there is nothing to be done
};

/// Something that was really done on this kernel with these privileges, and how that went.
struct Trial {
  std::string id;
  CheckState otherwise = CheckState::kMissing;  ///< what it means where it failed
  Result<std::string> outcome;                  ///< what was seen; the error's hint becomes the advice
};

/// What a process cannot ask files for.
struct ProcessFacts {
  std::optional<uint64_t> memlock_bytes;  ///< RLIMIT_MEMLOCK; none: unlimited
};

struct DoctorReport {
  std::string kernel;  ///< its release
  std::vector<Check> checks;
  /// 0: all probes work; 3: something that they need is missing.
  [[nodiscard]] int exit_code() const;
};

/// Looks at the files below `root` ("" for the machine's own; /proc and /sys of another place in tests) and judges the
/// trials. Each check stands for itself: a setting that would forbid something is no fault where the trial succeeded.
[[nodiscard]] DoctorReport examine(const std::string& root, const ProcessFacts& facts, std::vector<Trial> trials);

/// Loads and attaches a program of each kind, to ourselves alone, and looks whether it counts; reads what belongs to
/// other users' processes; asks the daemon. Takes some two seconds.
[[nodiscard]] std::vector<Trial> try_everything(const Clock& clock, const std::string& socket);
[[nodiscard]] ProcessFacts own_facts();

[[nodiscard]] std::string render_doctor(const DoctorReport& report, const Style& style);
/// One JSON document on one line.
[[nodiscard]] std::string doctor_to_json(const DoctorReport& report);

/// `stackwatch doctor`. The exit code.
[[nodiscard]] Result<int> run_doctor(const Options& options, const Clock& clock);

}  // namespace stackwatch
