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
  abandoned_call: int,
  # the user stack ends before its thread's start: counted, the root is missing
  unwind_incomplete: int
)

type Probe (on_cpu, blocked, run_queue, memory, page_fault)

type AlertState (pending, firing, resolved)

# Of an alert: census is what the kernel counts of a whole process.
type AlertProbe (on_cpu, blocked, run_queue, memory, page_fault, census)

# What a rule and GetStacks may name besides: blocked and run_queue together.
type ProbeName (on_cpu, off_cpu, blocked, run_queue, memory, page_fault)

# `stacks` orders no processes: see GetRanking.
type Metric (on_cpu, run_queue, switches, faults, rss, io, stacks)

type Contributor (frame: string, before: float, after: float)

# One of the processes that an alert is about. stands: its part is not over.
type AlertProcess (
  process: Process,
  onset: string,
  before: float,
  after: float,
  stands: bool
)

# How another probe shows the incident that an alert is about. stands: it is not over.
type AlertPart (
  probe: AlertProbe,
  detector: string,
  frame: string,
  onset: string,
  before: float,
  after: float,
  unit_of_measure: string,
  stands: bool
)

# Cost that moved and did not grow; such an alert never fires. `what` is called by `to` instead of `from`: moved.
type Shift (
  kind: (renamed, inlined, outlined, moved),
  from: string,
  to: string,
  under: ?string,
  what: ?string
)

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
  # of several workers of one service with one cause: all, `process` first
  processes: ?[]AlertProcess,
  processes_omitted: ?int,
  shift: ?Shift,
  detector: string,
  probe: AlertProbe,
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
  contributors: []Contributor,
  parts: ?[]AlertPart,
  # when its function was found, where it was told before without one
  named: ?string
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
  # asked for too, and counted as soon as their programs are loaded, which takes some 100 ms once
  loading: ?[]Probe,
  frequency_hz: float,
  since: string,
  reason: string,
  samples: int,
  # distinct ones so far
  stacks: int,
  lost: Losses,
  # why a probe that was asked for is missing, or counts less than was asked for
  problem: ?string,
  # what sampling and off-CPU counting cost it, of its CPU time, estimated
  overhead_percent: float
)

# A limit and what is used of it, in the unit of its key.
type LimitUse (name: string, limit: float, used: float)

# What is kept over restarts.
type State (
  path: string,
  storing: bool,
  # why not; else empty
  problem: string,
  bytes: int,
  # writes that were given up
  dropped: int
)

# One process's part in an unusual stack; in cores, on a CPU.
type StackShare (process: Process, before_cores: float, now_cores: float)

# A stack that is on a CPU more or less often than in its own past, on the whole machine.
type UnusualStack (
  # root first
  frames: []string,
  # about a number of standard deviations; negative: less often
  score: float,
  before_cores: float,
  now_cores: float,
  # largest change first
  processes: []StackShare
)

# A watch rule: all matchers that it has must hold. Globs, but for pid.
type Watch (
  id: string,
  name: ?string,
  exe: ?string,
  cmdline: ?string,
  cgroup: ?string,
  unit: ?string,
  user: ?string,
  pid: ?int,
  probes: []Probe,
  # samples of on_cpu per second of CPU time
  frequency: float,
  # with all descendants
  children: bool,
  # memory counts what they map themselves too
  mmap: bool,
  # from a file; else added at run time
  configured: bool,
  # the file and line
  source: string,
  # attached by it now, children included
  processes: int
)

# In samples (on_cpu), nanoseconds (blocked, run_queue), bytes (memory) or faults (page_fault).
type Stack (
  # root first
  frames: []string,
  # where in the source each frame was once, `/src/dict.c:512`; empty for a frame without debug information, and left out
  # where no frame has any
  places: ?[]string,
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
  # processes that the survey samples
  surveyed: int,
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
  # by the keys of [limits]
  limits: []LimitUse,
  # what the daemon does without to stay below them, and why; empty where nothing
  shedding: string,
  state: State,
  lost: Losses,
  warnings: []string
)

# Best first: by score, or by a metric: then `ranking` is there. By stacks: then `stacks` is there, most unusual first.
# 20 rows unless a limit is given.
method GetRanking(limit: ?int, by: ?Metric) -> (ranking: ?[]RankingRow, stacks: ?[]UnusualStack, omitted: ?int)

method ListAttachments() -> (attachments: []Attachment, omitted: ?int)

# The stacks of one process, largest value first; on_cpu unless told otherwise; as far back as is kept where no
# since_s is given. By off_cpu, a stack's value is its sum of blocked and run_queue.
method GetStacks(pid: int, probe: ?ProbeName, since_s: ?float, series: ?bool) -> (
  process: Process,
  probe: ProbeName,
  # how far back the values reach
  window_s: float,
  # length of a step of the series
  step_s: ?float,
  total: int,
  # with off_cpu: how much of the total is waiting for a CPU
  run_queue: ?int,
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

# For root. The rule is in force when this answers: processes that match are attached. It lasts until it is removed or
# the daemon ends; with a pid, until that process has ended with all children that it brought in. Of several rules that
# match a process the first of these wins: added ones with a pid, those of the configuration, other added ones. A pid is
# one of the daemon's pid namespace; start_time_ns, which is when that process began by CLOCK_BOOTTIME, makes sure that it
# is the caller's too. Probes are on_cpu, the frequency 99, children and mmap false unless told otherwise.
method AddWatch(
  id: ?string,
  name: ?string,
  exe: ?string,
  cmdline: ?string,
  cgroup: ?string,
  unit: ?string,
  user: ?string,
  pid: ?int,
  start_time_ns: ?int,
  probes: ?[]ProbeName,
  frequency: ?float,
  children: ?bool,
  mmap: ?bool
) -> (id: string)

# For root. Rules of the configuration cannot be removed. What was attached by the rule alone is dropped at the next tick.
method RemoveWatch(id: string) -> ()

# Those of the configuration first.
method ListWatches() -> (watches: []Watch, omitted: ?int)

# The rule makes no sense.
error InvalidWatch (message: string)

# There is no rule with this id among those that may be removed.
error NoSuchWatch (id: string, message: string)

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
