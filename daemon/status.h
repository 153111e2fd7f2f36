// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/alert.h"
#include "core/losses.h"
#include "core/probe_kind.h"
#include "core/process.h"
#include "core/result.h"

namespace stackwatch {

/// One of [limits], by its key, and what is used of it, in the key's unit.
struct LimitUse {
  std::string name;
  double limit = 0;
  double used = 0;
};

/// What `stackwatch status` tells.
struct Status {
  /// What is kept over restarts.
  struct State {
    std::string path;  ///< of the database; empty where nothing is kept
    bool storing = false;
    std::string problem;  ///< why not
    uint64_t bytes = 0;
    uint64_t dropped = 0;  ///< writes that were given up
  };

  std::string version;
  int32_t pid = 0;
  double uptime_s = 0;
  double tick_s = 0;
  uint64_t ticks = 0;
  uint64_t missed_ticks = 0;
  double last_tick_ms = 0;  ///< time that the last tick took
  double max_tick_ms = 0;

  std::string census_method;
  double census_ms = 0;
  uint64_t processes = 0;
  uint64_t tasks = 0;

  uint64_t suspects = 0;
  uint64_t attachments = 0;
  uint64_t surveyed = 0;  ///< processes that the survey samples or would, were they not watched more closely
  uint64_t watch_rules = 0;
  uint64_t functions = 0;  ///< named so far
  uint64_t alerts_pending = 0;
  uint64_t alerts_firing = 0;

  double cpu_share = 0;                ///< of one core, user and system, over about the last minute; worker included
  uint64_t resident_bytes = 0;         ///< of the daemon
  uint64_t worker_resident_bytes = 0;  ///< of the symbol worker; 0 where none runs
  uint64_t bpf_map_bytes = 0;
  uint64_t open_fds = 0;
  uint64_t control_clients = 0;  ///< these three are filled in by the control server itself
  uint64_t control_refused = 0;  ///< connections over the limit
  uint64_t control_dropped = 0;  ///< clients that read too slowly

  std::vector<LimitUse> limits;
  std::string shedding;  ///< what it does without to stay below them, and why; empty where nothing
  State state;

  Losses lost;                        ///< of all attachments since the start
  std::vector<std::string> warnings;  ///< what does not work, each with what to do about it
};

/// One row of `stackwatch top`.
struct RankingRow {
  ProcessIdentity process;
  double score = 0;
  bool suspect = false;
  std::string reason;  ///< "3.1x its usual CPU"
  double on_cpu_cores = 0;
  double entitled_cores = 0;  ///< what it would get if everybody wanted all
  double run_queue_s = 0;     ///< per second
  double switches = 0;        ///< voluntary and involuntary, per second
  double faults = 0;          ///< minor and major, per second
  double io_bytes = 0;        ///< read and written, per second
  uint64_t rss_bytes = 0;
  uint32_t threads = 0;
  int32_t nice = 0;
};

/// One row of `stackwatch top --by stacks`: a stack and the processes that it is on a CPU in.
struct UnusualStack {
  struct Share {
    ProcessIdentity process;
    double before_cores = 0;
    double now_cores = 0;
  };
  std::vector<std::string> frames;  ///< root first
  double score = 0;                 ///< about a number of standard deviations from its own past; negative: less often
  double before_cores = 0;
  double now_cores = 0;
  std::vector<Share> processes;  ///< largest change first
};

/// One row of `stackwatch attachments`.
struct AttachmentRow {
  ProcessIdentity process;
  std::vector<ProbeKind> probes;
  std::vector<ProbeKind> loading;  ///< asked for too: counted when their programs are loaded
  double frequency_hz = 0;
  uint64_t since_ns = 0;  ///< CLOCK_REALTIME
  std::string reason;     ///< "watch rule \"redis-server\"", "suspect: 3.1x its usual CPU", "child of 4711"
  uint64_t samples = 0;
  uint64_t stacks = 0;  ///< distinct ones so far
  Losses lost;
  std::string problem;          ///< why a probe that was asked for is missing; empty where none is
  double overhead_percent = 0;  ///< what sampling and off-CPU counting cost it, of its CPU time, estimated
};

/// One row of `stackwatch watch list`.
struct WatchRow {
  WatchRule rule;
  bool configured = true;  ///< from a file; else added at run time
  uint64_t processes = 0;  ///< attached by it now, children included
};

/// What `stackwatch stacks` tells.
struct StacksReport {
  struct Row {
    std::vector<std::string> frames;  ///< root first
    int64_t value = 0;
    std::vector<int64_t> series;        ///< with --series: value per step, oldest first
    std::vector<std::string> places{};  ///< `/src/dict.c:512` of each frame, one example; empty where none is known
  };
  /// Blocked and run_queue in one, per stack.
  struct Waits {
    int64_t run_queue = 0;  ///< so much of the total is waiting for a CPU, nanoseconds
  };
  ProcessIdentity process;
  ProbeKind probe = ProbeKind::kOnCpu;
  double window_s = 0;  ///< how far back the values reach
  double step_s = 0;    ///< length of a step of the series; 0 where there is none
  int64_t total = 0;
  std::vector<Row> rows;  ///< largest first
  Losses lost;
  std::optional<Waits> waits;  ///< there where the probe is off_cpu, and `probe` says nothing then
};

/// What the control socket may ask of the daemon. Called on the loop's thread.
class ControlBackend {
 public:
  virtual ~ControlBackend() = default;
  [[nodiscard]] virtual Status status() const = 0;
  /// Best first. `by` is empty (the score) or a metric: on_cpu, run_queue, switches, faults, rss, io.
  [[nodiscard]] virtual Result<std::vector<RankingRow>> ranking(size_t limit, const std::string& by) const = 0;
  /// Most unusual first.
  [[nodiscard]] virtual std::vector<UnusualStack> unusual_stacks(size_t limit) const = 0;
  [[nodiscard]] virtual std::vector<AttachmentRow> attachments() const = 0;
  /// Takes a rule into force at once, and tells its id. It lasts as long as the daemon runs, or until it is removed, or
  /// until the process that its pid names has ended with all children that it brought in. `start_time_ns` is when that
  /// process began, where the caller knows (CLOCK_BOOTTIME): a pid alone may be that of another process in the daemon's
  /// pid namespace than in the caller's.
  /// Error of kind kUsage: the rule says something wrong; of any other kind: no process of it can be attached.
  [[nodiscard]] virtual Result<std::string> add_watch(WatchRule rule, std::optional<uint64_t> start_time_ns) = 0;
  /// Error: there is no such rule, or it is one of the configuration's files.
  [[nodiscard]] virtual Result<void> remove_watch(const std::string& id) = 0;
  /// Those of the configuration first.
  [[nodiscard]] virtual std::vector<WatchRow> watches() const = 0;
  /// `pid` is one of the daemon's pid namespace. `since_s` 0 means as far back as is kept.
  /// Error of kind kUsage: there is no such process; of any other kind: it is not attached, or not for this probe.
  [[nodiscard]] virtual Result<StacksReport> stacks(int32_t pid, ProbeKind probe, double since_s,
                                                    bool series) const = 0;
  /// Newest first; `since_ns` is CLOCK_REALTIME.
  [[nodiscard]] virtual std::vector<Alert> alerts(std::optional<uint64_t> since_ns,
                                                  std::optional<AlertState> state) const = 0;
  [[nodiscard]] virtual std::optional<Alert> alert(const std::string& id) const = 0;
};

}  // namespace stackwatch
