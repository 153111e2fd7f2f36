// SPDX-License-Identifier: Apache-2.0
#include "bpf/cpu_events.h"

#include <linux/perf_event.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace stackwatch {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;

/// Sets how often a stopped event that we were given is told.
bool set_period(int fd, const CpuEvent& event) {
  uint64_t period = event.frequency_hz > 0 ? kNsPerSecond / event.frequency_hz : event.period;
  return ioctl(fd, PERF_EVENT_IOC_PERIOD, &period) == 0;
}

}  // namespace

// The store may have some of an earlier start, of CPUs that are offline now.
void CpuEvents::give(EventsByCpu events) {
  given_cpus_ = read_online_cpus();
  for (const int cpu : parse_cpu_list(given_cpus_)) {
    if (const auto event = events.find(cpu); event != events.end()) {
      given_[cpu] = {std::move(event->second), nullptr, -1};
    }
  }
  were_given_ = !given_.empty();
}

Result<void> CpuEvents::open(bpf_program& program, const CpuEvent& event, bool were_away,
                             const std::function<void()>& between) {
  std::string online = read_online_cpus();
  const std::vector<int> cpus = parse_cpu_list(online);
  if (cpus.empty()) return fail("open events on all CPUs", std::string("the kernel does not say which are online"));
  const bool given_are_gone = were_away || online != given_cpus_;  // no event survives its CPU
  std::vector<UniqueFd> opened;
  for (const int cpu : cpus) {
    if (!given_are_gone && given_.contains(cpu)) continue;
    auto one = open_own(cpu, event);
    if (!one) return Failure(one.error());
    opened.push_back(std::move(*one));
  }
  close();
  if (given_are_gone) given_.clear();
  between();
  const LibbpfMessages messages;
  for (auto it = given_.begin(); it != given_.end();) {
    const auto current = it++;
    if (start_given(current->second, program, event)) continue;
    auto one = open_own(current->first, event);
    if (!one) return Failure(one.error());
    opened.push_back(std::move(*one));
    given_.erase(current);
  }
  for (UniqueFd& one : opened) {
    BpfLink link(bpf_program__attach_perf_event(&program, one.get()));
    if (!link) return fail_bpf("attach the sampling program", errno, messages);
    static_cast<void>(one.release());  // the link owns it now
    own_.push_back(std::move(link));
  }
  online_ = std::move(online);
  event_ = event;
  is_open_ = true;
  return {};
}

Result<UniqueFd> CpuEvents::open_own(int cpu, const CpuEvent& event) {
  auto opened = open_cpu_event(cpu, event);
  // A rate that the kernel refuses is no reason to start again.
  const CpuEvent slowest = {.config = event.config, .frequency_hz = 0, .period = kNsPerSecond};
  if (!opened && were_given_ && !open_cpu_event(cpu, slowest)) are_lost_ = true;
  return opened;
}

// It stays attached for good, since before Linux 5.15 an event keeps its program; it is started and stopped instead.
bool CpuEvents::start_given(Given& given, bpf_program& program, const CpuEvent& event) {
  if (!set_period(given.fd >= 0 ? given.fd : given.unused.get(), event)) return false;
  if (given.link) return ioctl(given.fd, PERF_EVENT_IOC_ENABLE, 0) == 0;
  given.link.reset(bpf_program__attach_perf_event(&program, given.unused.get()));  // which starts it
  if (!given.link) return false;
  given.fd = given.unused.release();  // the link owns it now
  return true;
}

void CpuEvents::close() {
  own_.clear();
  for (auto& [cpu, given] : given_) {
    if (given.link) ioctl(given.fd, PERF_EVENT_IOC_DISABLE, 0);
  }
  is_open_ = false;
}

bool CpuEvents::cpus_changed() const { return is_open() && read_online_cpus() != online_; }

}  // namespace stackwatch
