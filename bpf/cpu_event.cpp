// SPDX-License-Identifier: Apache-2.0
#include "bpf/cpu_event.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <fstream>

namespace stackwatch {
namespace {

constexpr const char* kOnlinePath = "/sys/devices/system/cpu/online";
constexpr const char* kParanoidPath = "/proc/sys/kernel/perf_event_paranoid";
constexpr int kMostParanoidUpstream = 2;
constexpr int kMaxCpus = 8192;  // CONFIG_NR_CPUS of the largest distribution kernels

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  return text;
}

std::string hint_for_refusal() {
  const std::string level = first_line(kParanoidPath);
  int number = 0;
  std::from_chars(level.data(), level.data() + level.size(), number);
  if (number <= kMostParanoidUpstream) {
    return "run as root, or grant CAP_PERFMON; in a container, allow perf_event_open";
  }
  return "run as root; kernel.perf_event_paranoid is " + level +
         ", with which kernels of Debian and Ubuntu ask for CAP_SYS_ADMIN: stackwatch.service has its events opened by "
         "stackwatch-events";
}

}  // namespace

Result<UniqueFd> open_cpu_event(int cpu, const CpuEvent& event) {
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
  return fail_errno("open an event on CPU " + std::to_string(cpu), errno, hint_for_refusal());
}

std::string read_online_cpus() { return first_line(kOnlinePath); }

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

}  // namespace stackwatch
