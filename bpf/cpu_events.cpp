// SPDX-License-Identifier: Apache-2.0
#include "bpf/cpu_events.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <fstream>

#include "core/unique_fd.h"

namespace stackwatch {
namespace {

constexpr const char* kOnlinePath = "/sys/devices/system/cpu/online";
constexpr int kMaxCpus = 8192;  // CONFIG_NR_CPUS of the largest distribution kernels

std::string read_online() {
  std::ifstream file(kOnlinePath);
  std::string text;
  std::getline(file, text);
  return text;
}

Result<UniqueFd> open_on(int cpu, const CpuEvent& event) {
  perf_event_attr attributes{};
  attributes.size = sizeof(attributes);
  attributes.type = PERF_TYPE_SOFTWARE;  // works in virtual machines, where hardware counters often don't
  attributes.config = event.config;
  attributes.freq = event.frequency_hz > 0 ? 1 : 0;
  if (event.frequency_hz > 0) {
    attributes.sample_freq = event.frequency_hz;
  } else {
    attributes.sample_period = event.period;
  }
  attributes.exclude_idle = 1;
  attributes.disabled = 1;  // attaching the program starts it
  UniqueFd opened(static_cast<int>(syscall(SYS_perf_event_open, &attributes, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
  if (opened) return opened;
  if (errno == EINVAL && event.frequency_hz > 0) {
    return fail(ErrorKind::kUnsupported, "open a clock event of " + std::to_string(event.frequency_hz) + " Hz",
                "the kernel refuses it", "see sysctl kernel.perf_event_max_sample_rate");
  }
  return fail_errno("open an event on CPU " + std::to_string(cpu), errno,
                    "run as root, or grant CAP_PERFMON; in a container, allow perf_event_open");
}

}  // namespace

std::vector<int> parse_cpu_list(const std::string& text) {
  std::vector<int> cpus;
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  while (at < end) {
    int first = 0;
    auto parsed = std::from_chars(at, end, first);
    if (parsed.ec != std::errc{}) return {};
    int last = first;
    at = parsed.ptr;
    if (at < end && *at == '-') {
      parsed = std::from_chars(at + 1, end, last);
      if (parsed.ec != std::errc{}) return {};
      at = parsed.ptr;
    }
    if (first < 0 || last < first || last >= kMaxCpus) return {};
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (at < end && *at != ',') return {};
    ++at;
  }
  return cpus;
}

Result<void> CpuEvents::open(bpf_program& program, const CpuEvent& event, const std::function<void()>& between) {
  std::string online = read_online();
  const std::vector<int> cpus = parse_cpu_list(online);
  if (cpus.empty()) return fail("open events on all CPUs", std::string("no CPU list in ") + kOnlinePath);
  std::vector<UniqueFd> opened;
  for (const int cpu : cpus) {
    auto one = open_on(cpu, event);
    if (!one) return Failure(one.error());
    opened.push_back(std::move(*one));
  }
  close();
  between();
  const LibbpfMessages messages;
  std::vector<BpfLink> links;
  for (UniqueFd& one : opened) {
    BpfLink link(bpf_program__attach_perf_event(&program, one.get()));
    if (!link) return fail_bpf("attach the sampling program", errno, messages);
    static_cast<void>(one.release());  // the link owns it now
    links.push_back(std::move(link));
  }
  links_ = std::move(links);
  online_ = std::move(online);
  event_ = event;
  return {};
}

void CpuEvents::close() { links_.clear(); }

bool CpuEvents::cpus_changed() const { return is_open() && read_online() != online_; }

}  // namespace stackwatch
