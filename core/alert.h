// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/losses.h"
#include "core/probe_kind.h"
#include "core/process.h"

namespace stackwatch {

/// What people are told about a process besides its key. All strings are as the kernel gives them: not escaped.
struct ProcessIdentity {
  ProcessKey key;
  int32_t pid_in_ns = 0;  ///< shown as "pid"
  std::string comm;
  std::string exe;  ///< empty where it cannot be read (kernel threads, no privilege)
  std::string cgroup;
  std::string unit;  ///< the systemd unit in the cgroup path; empty where there is none
};

/// Whether two processes are lives or workers of one service: same exe, unit (else cgroup) and comm. Where the exe is
/// not known (kernel threads, no privilege) a name alone is not enough.
[[nodiscard]] bool same_service(const ProcessIdentity& a, const ProcessIdentity& b);

enum class AlertState : uint8_t { kPending, kFiring, kResolved };
[[nodiscard]] std::string_view to_string(AlertState state);
[[nodiscard]] std::optional<AlertState> parse_alert_state(std::string_view name);

/// What a person is told. Times are CLOCK_REALTIME nanoseconds.
struct Alert {
  struct Contributor {
    std::string frame;
    double before = 0;
    double after = 0;
  };

  /// One of the processes that changed in the same way.
  struct Member {
    ProcessIdentity process;
    uint64_t onset_ns = 0;
    double before = 0;
    double after = 0;
    bool stands = true;  ///< its part is not over
  };

  /// How another probe of the processes shows the same incident.
  struct Part {
    ProbeKind probe = ProbeKind::kOnCpu;
    std::string detector;
    std::string frame;  ///< empty where the whole process is meant
    uint64_t onset_ns = 0;
    double before = 0;
    double after = 0;
    std::string unit_of_measure;
    bool stands = true;  ///< it is not over
  };

  /// The change is no more than cost that moved: what is told is no alarm. Names as in CostShift (core/finding.h).
  struct Shift {
    std::string kind;  ///< renamed, inlined, outlined, moved
    std::string from;
    std::string to;
    std::string under;  ///< may be empty
    std::string what;   ///< empty unless moved
  };

  std::string id;  ///< unique over restarts
  AlertState state = AlertState::kPending;
  uint64_t opened_ns = 0;  ///< first finding
  uint64_t onset_ns = 0;   ///< when the change began, most likely
  uint64_t updated_ns = 0;
  std::optional<uint64_t> resolved_ns;
  std::string resolution;   ///< why it is resolved: "back to its baseline", "the process exited", …; else empty
  ProcessIdentity process;  ///< the first that it was told of
  /// Workers of one service with one cause, from when it fires on: `process` first, then in the order in which they
  /// joined. Bounded; those without a place are `processes_omitted`.
  std::vector<Member> processes;
  uint64_t processes_omitted = 0;
  std::optional<Shift> shift;
  std::string detector;
  ProbeKind probe = ProbeKind::kOnCpu;
  std::string frame;               ///< empty where the whole process is meant
  std::vector<std::string> stack;  ///< root first, ends in `frame` where there is one
  double before = 0;
  double after = 0;
  std::string unit_of_measure;
  double change_cores = 0;
  double score = 0;
  std::string false_alarm_budget;  ///< as configured: "1 per 30d"
  Losses lost;                     ///< of the attachment's probe, from attaching until the last update
  std::vector<Contributor> contributors;
  std::vector<Part> parts;  ///< of other probes than `probe`, in the order in which they joined; bounded
  /// When its function was found, where the alert was told before without one. That is told too, once.
  std::optional<uint64_t> named_ns;

  /// How many processes it is about.
  [[nodiscard]] uint64_t process_count() const { return processes.empty() ? 1 : processes.size() + processes_omitted; }
  /// Gives the keys their pids of the initial pid namespace, given that of `process`: the others' are known where that
  /// is the namespace in which they are shown, else they stay 0.
  void set_keys(const ProcessKey& of_process);
  [[nodiscard]] bool is_firing() const { return state == AlertState::kFiring; }
  /// Told again, as the function was found.
  [[nodiscard]] bool is_named_later() const { return is_firing() && named_ns.has_value(); }
};

}  // namespace stackwatch
