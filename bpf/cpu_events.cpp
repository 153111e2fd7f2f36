// SPDX-License-Identifier: Apache-2.0
#include "bpf/cpu_events.h"

#include <linux/perf_event.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace stackwatch {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;

/// Sets how often a stopped event that we were given is told.
Result<void> set_period(int fd, const CpuEvent& event) {
  uint64_t period = event.frequency_hz > 0 ? kNsPerSecond / event.frequency_hz : event.period;
  if (ioctl(fd, PERF_EVENT_IOC_PERIOD, &period) == 0) return {};
  return fail_errno("set the period of an event", errno, "restart the service: it is given new ones");
}

}  // namespace

void CpuEvents::give(EventsByCpu events) {
  given_cpus_ = read_online_cpus();
  for (auto& [cpu, descriptor] : events) given_[cpu] = {std::move(descriptor), nullptr, -1};
}

Result<void> CpuEvents::open(bpf_program& program, const CpuEvent& event, const std::function<void()>& between) {
  std::string online = read_online_cpus();
  const std::vector<int> cpus = parse_cpu_list(online);
  if (cpus.empty()) return fail("open events on all CPUs", std::string("the kernel does not say which are online"));
  // No event survives its CPU, and to be asked for the same again means that some have been away.
  const bool given_are_gone = online != given_cpus_ || (is_open_ && event == event_);
  std::vector<UniqueFd> opened;
  for (const int cpu : cpus) {
    if (!given_are_gone && given_.contains(cpu)) continue;
    auto one = open_cpu_event(cpu, event);
    if (!one) return Failure(one.error());
    opened.push_back(std::move(*one));
  }
  close();
  if (given_are_gone) given_.clear();
  between();
  const LibbpfMessages messages;
  for (auto& [cpu, given] : given_) {
    if (auto started = start_given(given, program, event, messages); !started) return started;
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

// It stays attached for good, since before Linux 5.15 an event keeps its program; it is started and stopped instead.
Result<void> CpuEvents::start_given(Given& given, bpf_program& program, const CpuEvent& event,
                                    const LibbpfMessages& messages) {
  if (auto set = set_period(given.fd >= 0 ? given.fd : given.unused.get(), event); !set) return set;
  if (given.link) {
    if (ioctl(given.fd, PERF_EVENT_IOC_ENABLE, 0) == 0) return {};
    return fail_errno("start an event", errno, "restart the service: it is given new ones");
  }
  given.link.reset(bpf_program__attach_perf_event(&program, given.unused.get()));  // which starts it
  if (!given.link) return fail_bpf("attach the sampling program", errno, messages);
  given.fd = given.unused.release();  // the link owns it now
  return {};
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
