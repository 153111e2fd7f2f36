// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/interface.h"

namespace stackwatch {

const std::string_view kStackwatchInterface =
    R"idl(# Which process has changed, in which call stack, since when, by how much.
#
# Times are ISO 8601 strings in UTC, durations are in seconds. Strings of processes are shown as valid UTF-8, whatever
# their bytes are. A number that is not finite would be null. A list that grows past 4 MiB ends early and `omitted`
# says how many entries it lacks.
interface io.stackwatch

type Process (
  # as the pid namespace of the daemon shows it
  pid: int,
  # CLOCK_BOOTTIME; a pid alone is used again
  start_time_ns: int,
  comm: string,
  exe: string,
  cgroup: string,
  unit: string
)

# How often something that happened is not, or not wholly, in the counts, by reason.
type Losses (
  # no room for another stack in the kernel: not counted
  map_full: int,
  # the frames of a new stack came a sample later
  frames_late: int,
  # deeper than the limit: counted, the root is missing
  truncated: int,
  # no user frame could be read: counted under the kernel part alone
  unwind_failed: int,
  # the program was already running on this CPU: not counted
  recursion_missed: int,
  # a tick came late: its delta covers more than one interval
  missed_tick: int,
  # counted under [unnamed]
  names_late: int,
  # counted under [other]
  stacks_full: int,
  # no room to watch another process: a child is not counted
  watch_full: int,
  # memory: frees of addresses whose allocation was not counted
  unknown_free: int,
  # memory: addresses that came again while they were live: their free was not seen; set right
  missed_free: int,
  # memory: calls into the allocator that never returned
  abandoned_call: int
)

type Probe (on_cpu, blocked, run_queue, memory, page_fault)

type AlertState (pending, firing, resolved)

type Metric (on_cpu, run_queue, switches, faults, rss, io)

type Contributor (frame: string, before: float, after: float)

type Alert (
  id: string,
  state: AlertState,
  opened: string,
  # when the change began, most likely
  onset: string,
  updated: string,
  resolved: ?string,
  # why it is resolved
  resolution: ?string,
  process: Process,
  detector: string,
  probe: Probe,
  # the guilty function; empty where the whole process is meant
  frame: string,
  # root first
  stack: []string,
  before: float,
  after: float,
  unit_of_measure: string,
  change_cores: float,
  # natural logarithm of the evidence for a change against none
  score: float,
  false_alarm_budget: string,
  lost: Losses,
  contributors: []Contributor
)

type RankingRow (
  process: Process,
  score: float,
  suspect: bool,
  reason: string,
  on_cpu_cores: float,
  # what it would get if everybody wanted all
  entitled_cores: float,
  run_queue_s_per_s: float,
  switches_per_s: float,
  faults_per_s: float,
  io_bytes_per_s: float,
  rss_bytes: int,
  threads: int,
  nice: int
)

type Attachment (
  process: Process,
  probes: []Probe,
  frequency_hz: float,
  since: string,
  reason: string,
  samples: int,
  # distinct ones so far
  stacks: int,
  lost: Losses
)

# In samples (on_cpu), nanoseconds (blocked, run_queue), bytes (memory) or faults (page_fault).
type Stack (
  # root first
  frames: []string,
  value: int,
  # value per step, oldest first, where a series was asked for
  series: ?[]int
)

method GetStatus() -> (
  version: string,
  pid: int,
  uptime_s: float,
  tick_s: float,
  ticks: int,
  missed_ticks: int,
  last_tick_ms: float,
  max_tick_ms: float,
  census_method: string,
  census_ms: float,
  processes: int,
  tasks: int,
  suspects: int,
  attachments: int,
  watch_rules: int,
  functions: int,
  alerts_pending: int,
  alerts_firing: int,
  # of one core
  cpu_share: float,
  resident_bytes: int,
  worker_resident_bytes: int,
  bpf_map_bytes: int,
  open_fds: int,
  control_clients: int,
  # connections over the limit
  control_refused: int,
  # clients that read too slowly
  control_dropped: int,
  lost: Losses,
  warnings: []string
)

# Best first: by score, or by a metric. 20 rows unless a limit is given.
method GetRanking(limit: ?int, by: ?Metric) -> (ranking: []RankingRow, omitted: ?int)

method ListAttachments() -> (attachments: []Attachment, omitted: ?int)

# The stacks of one process, largest value first; on_cpu unless told otherwise; as far back as is kept where no
# since_s is given.
method GetStacks(pid: int, probe: ?Probe, since_s: ?float, series: ?bool) -> (
  process: Process,
  probe: Probe,
  # how far back the values reach
  window_s: float,
  # length of a step of the series
  step_s: ?float,
  total: int,
  stacks: []Stack,
  omitted: ?int,
  lost: Losses
)

# Newest first.
method ListAlerts(since: ?string, state: ?AlertState) -> (alerts: []Alert, omitted: ?int)

method GetAlert(id: string) -> (alert: Alert)

# Call it with `more`. With `since`, what ListAlerts would answer comes first, oldest first; then every change of an
# alert as it happens, until the client goes. A client that does not read is disconnected.
method Subscribe(since: ?string, state: ?AlertState) -> (alert: Alert)

error NoSuchProcess (pid: int, message: string)

error NotAttached (pid: int, message: string)

error NoSuchAlert (id: string)

# The message was no Varlink request, or longer than 64 KiB; the connection is closed.
error InvalidMessage (reason: string)

# The connection is closed at once.
error TooManyClients (limit: int)

error Failed (message: string)
)idl";

const std::string_view kServiceInterface = R"idl(# What every Varlink service can do.
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)

error MethodNotFound (method: string)

error MethodNotImplemented (method: string)

error InvalidParameter (parameter: string)

error PermissionDenied ()

error ExpectedMore ()
)idl";

}  // namespace stackwatch
