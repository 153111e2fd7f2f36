// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/probe_kind.h"

namespace stackwatch {

/// One `[[watch]]`: which processes are watched, and how. All matchers that are given must hold; at least one is.
/// Strings are globs (config/glob.h); what each is compared with stands in config/match.h.
struct WatchRule {
  std::string id;  ///< the key `id`, else made from the matchers alone: a reload that changes the frequency keeps it
  std::optional<std::string> name;
  std::optional<std::string> exe;
  std::optional<std::string> cmdline;
  std::optional<std::string> cgroup;
  std::optional<std::string> unit;
  std::optional<std::string> user;
  std::optional<int32_t> pid;                           ///< as the daemon's own pid namespace shows it
  std::vector<ProbeKind> probes = {ProbeKind::kOnCpu};  ///< each once, in order of ProbeKind; never empty
  double frequency_hz = 99;                             ///< of on_cpu
  bool children = false;  ///< its descendants, existing and later ones, whatever they are called
  bool mmap = false;      ///< memory: also what it maps itself
  std::string source;     ///< "file:line"
  bool operator==(const WatchRule&) const = default;
};

/// `[survey]`: the thin sampling of all processes.
struct SurveyConfig {
  bool enabled = true;
  double frequency_hz = 19;
  bool operator==(const SurveyConfig&) const = default;
};

/// `[ranking.weights]`: how much a change of each metric of the census counts. 0 leaves the metric out.
struct RankingWeights {
  double on_cpu = 1;
  double entitlement = 0.5;  ///< CPU time used against what the process is entitled to
  double run_queue = 0.5;
  double switches = 0.25;
  double faults = 0.25;
  double rss = 0.25;
  double io = 0.25;
  bool operator==(const RankingWeights&) const = default;
};

/// `[ranking]`: which processes become suspects without a rule.
struct RankingConfig {
  RankingWeights weights;
  size_t max_suspects = 4;  ///< at a time; 0: watch rules alone decide
  double min_dwell_s = 60;  ///< a suspect stays one at least so long, so that the set does not flap
  double floor = 1;         ///< score below which nobody is a suspect
  bool operator==(const RankingConfig&) const = default;
};

/// `[detectors.NAME]`. After parsing every key that the detector's schema names is in `values`, as given or with the
/// schema's default. Durations are in seconds, flags are 0 or 1.
struct DetectorConfig {
  bool enabled = true;
  std::map<std::string, double> values;
  bool operator==(const DetectorConfig&) const = default;
};

/// By name of the detector; has every detector of the schema that was handed in, and no other.
using DetectorsConfig = std::map<std::string, DetectorConfig>;

/// What a detector's table may hold. The caller hands this in, because config/ knows no detector.
struct DetectorSchema {
  enum class Kind : uint8_t { kNumber, kInteger, kDuration, kFlag };
  struct Key {
    std::string name;
    Kind kind = Kind::kNumber;
    double default_value = 0;  ///< seconds for a duration, 0 or 1 for a flag
    double min = 0;            ///< smallest value allowed; same unit; not looked at for a flag
    double max = 0;            ///< largest value allowed
  };
  std::string name;
  bool enabled = true;  ///< the default of the key `enabled`, which every detector has without naming it
  std::vector<Key> keys;
};

/// `[alerts]`: what people are told.
struct AlertsConfig {
  std::string false_alarm_budget = "1 per 30d";  ///< as written
  double false_alarms = 1;                       ///< the same in numbers: at most so many false alarms …
  double false_alarm_period_s = 30 * 86400.0;    ///< … in this time on the whole host
  double min_change_cores = 0.02;                ///< smallest change in CPU cores that is worth telling
  double min_change_share = 0.02;                ///< smallest change of a share that is worth telling, absolute
  double cooldown_s = 600;   ///< after an alert is resolved the same cause does not fire again for so long
  double persistence_s = 5;  ///< a finding must stand so long before it fires
  bool operator==(const AlertsConfig&) const = default;
};

/// `[limits]`: what the daemon itself may use.
struct LimitsConfig {
  uint64_t memory_bytes = uint64_t{256} << 20U;  ///< of the daemon, its worker and its BPF maps together
  double cpu_percent = 5;                        ///< of one core
  size_t stacks_per_process = 4096;
  size_t attachments = 256;
  double overhead_percent_per_process = 5;    ///< how much slower a watched process may become
  uint64_t disk_bytes = uint64_t{64} << 20U;  ///< of the state directory's database
  bool operator==(const LimitsConfig&) const = default;
};

/// Everything that may be configured, checked. A default-constructed one holds the built-in defaults, without
/// detectors.
struct Config {
  double tick_s = 1;
  std::vector<WatchRule> watch;  ///< in order of files and lines; ids are unique
  SurveyConfig survey;
  RankingConfig ranking;
  DetectorsConfig detectors;
  AlertsConfig alerts;
  LimitsConfig limits;
  std::vector<std::string> warnings;  ///< what is valid and still probably not meant, one line each
  bool operator==(const Config&) const = default;
};

}  // namespace stackwatch
