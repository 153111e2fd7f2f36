// SPDX-License-Identifier: Apache-2.0
#include "daemon/proc_census.h"

#include <unistd.h>

#include <array>
#include <charconv>
#include <functional>

#include "core/census_fold.h"

namespace stackwatch {
namespace {

constexpr uint64_t kKernelThreadFlag = 0x00200000;  // PF_KTHREAD

uint64_t number_after(std::string_view text, std::string_view key) {
  size_t at = text.find(key);
  if (at == text.npos) return 0;
  at = text.find_first_not_of(" \t", at + key.size());
  if (at == text.npos) return 0;
  uint64_t value = 0;
  std::from_chars(text.data() + at, text.data() + text.size(), value);
  return value;
}

class ProcCensus final : public Census {
 public:
  explicit ProcCensus(Procfs procfs) : procfs_(std::move(procfs)) {}

  Result<std::vector<ProcessSample>> take() override {
    const std::vector<int32_t> pids = procfs_.pids();
    if (pids.empty()) return fail(ErrorKind::kUnsupported, "take a census", "no processes in " + procfs_.root());
    std::vector<ProcessSample> samples;
    std::vector<CensusMemory::ThreadWait> waits;
    samples.reserve(pids.size());
    for (const int32_t pid : pids) {
      if (auto sample = read_process(pid, waits)) samples.push_back(std::move(*sample));
    }
    memory_.correct(samples, waits);
    return samples;
  }

  [[nodiscard]] std::string_view method() const override { return "/proc"; }

 private:
  std::optional<ProcessSample> read_process(int32_t pid, std::vector<CensusMemory::ThreadWait>& waits) const {
    const auto text = procfs_.read(pid, "stat");
    const auto stat = text ? parse_proc_stat(*text) : std::nullopt;
    if (!stat) return std::nullopt;
    if ((stat->state == 'Z' || stat->state == 'X') && stat->threads <= 1) return std::nullopt;
    static const auto ticks_per_s = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
    static const auto page_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    const uint64_t ns_per_tick = 1'000'000'000 / ticks_per_s;

    ProcessSample sample;
    sample.key = {pid, stat->start_ticks * ns_per_tick / kStartTimeGranularityNs * kStartTimeGranularityNs};
    sample.pid_in_ns = pid;
    sample.parent_pid = stat->parent_pid;
    sample.comm = stat->comm;
    sample.cgroup = procfs_.cgroup(pid);
    sample.kernel_thread = (stat->flags & kKernelThreadFlag) != 0;
    // There is no count of execs in /proc; another program almost always has another name or path.
    sample.exec = ExecId{std::hash<std::string>{}(stat->comm + procfs_.exe(pid).value_or(""))};
    sample.on_cpu_ns = stat->cpu_ticks * ns_per_tick;
    sample.minor_faults = stat->minor_faults;
    sample.major_faults = stat->major_faults;
    sample.rss_bytes = stat->rss_pages * page_bytes;
    sample.nice = static_cast<int8_t>(stat->nice);
    sample.policy = static_cast<SchedulingPolicy>(stat->policy);
    sample.threads = stat->threads;
    if (const auto io = procfs_.read(pid, "io")) {
      sample.read_bytes = number_after(*io, "\nread_bytes:");
      sample.write_bytes = number_after(*io, "\nwrite_bytes:");
    }
    read_threads(pid, sample, waits);
    return sample;
  }

  // Switches and run-queue waits stand per thread; those of threads that have ended are nowhere in /proc.
  void read_threads(int32_t pid, ProcessSample& sample, std::vector<CensusMemory::ThreadWait>& waits) const {
    for (const int32_t tid : procfs_.threads(pid)) {
      const std::string task = std::to_string(pid) + "/task/" + std::to_string(tid);
      if (const auto schedstat = read_small_file(procfs_.root() + "/" + task + "/schedstat", 128)) {
        const size_t blank = schedstat->find(' ');
        if (blank != schedstat->npos) waits.push_back({pid, tid, number_after(schedstat->substr(blank), " ")});
      }
      if (const auto status = read_small_file(procfs_.root() + "/" + task + "/status", 8192)) {
        sample.voluntary_switches += number_after(*status, "\nvoluntary_ctxt_switches:");
        sample.involuntary_switches += number_after(*status, "\nnonvoluntary_ctxt_switches:");
        if (tid != pid) continue;
        // "Uid:\treal\teffective\t…"
        const size_t uid = status->find("\nUid:");
        const size_t effective = uid == status->npos ? uid : status->find('\t', uid + 6);
        if (effective != status->npos) {
          sample.uid = static_cast<uint32_t>(number_after(status->substr(effective), "\t"));
        }
      }
    }
  }

  Procfs procfs_;
  CensusMemory memory_;
};

}  // namespace

std::unique_ptr<Census> make_proc_census(Procfs procfs) { return std::make_unique<ProcCensus>(std::move(procfs)); }

std::optional<ProcStat> parse_proc_stat(std::string_view text) {
  // "PID (COMM) STATE PPID …": the name ends at the last bracket, whatever it holds.
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == text.npos || close == text.npos || close < open) return std::nullopt;
  constexpr size_t kFields = 41;  // up to `policy`, the 41st field of the line; the first is the pid
  std::array<int64_t, kFields + 1> field{};
  char state = '?';
  size_t number = 3;  // the state
  size_t at = close + 1;
  while (number <= kFields) {
    at = text.find_first_not_of(' ', at);
    if (at == text.npos) return std::nullopt;
    const size_t end = std::min(text.find(' ', at), text.size());
    if (number == 3) state = text[at];
    if (number > 3) {
      uint64_t value = 0;
      const bool negative = text[at] == '-';
      const auto parsed = std::from_chars(text.data() + at + (negative ? 1 : 0), text.data() + end, value);
      if (parsed.ec != std::errc{}) return std::nullopt;
      field[number] = static_cast<int64_t>(negative ? 0 - value : value);
    }
    at = end;
    ++number;
  }
  const auto natural = [&field](size_t index) { return static_cast<uint64_t>(field[index]); };
  ProcStat stat;
  stat.state = state;
  stat.comm = std::string(text.substr(open + 1, close - open - 1));
  stat.parent_pid = static_cast<int32_t>(field[4]);
  stat.flags = natural(9);
  stat.minor_faults = natural(10);
  stat.major_faults = natural(12);
  stat.cpu_ticks = natural(14) + natural(15);
  stat.nice = field[19];
  stat.threads = static_cast<uint32_t>(field[20]);
  stat.start_ticks = natural(22);
  stat.rss_pages = natural(24);
  stat.policy = natural(41);
  return stat;
}

}  // namespace stackwatch
