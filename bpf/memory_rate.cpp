// SPDX-License-Identifier: Apache-2.0
#include "bpf/memory_rate.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <string_view>

namespace stackwatch {

void MemoryRate::begin(pid_t pid, uint64_t now_ns) {
  stat_ = UniqueFd(::open((proc_root_ + "/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
  begun_ns_ = now_ns;
  begun_cpu_ns_ = cpu_ns().value_or(0);
  begun_ = {};
}

// Fields 14 and 15 of /proc/PID/stat: user and system time of all threads, dead ones too, in clock ticks. The name in
// field 2 may hold anything, so count from its end.
std::optional<uint64_t> MemoryRate::cpu_ns() const {
  static constexpr int kSpacesBefore = 12;
  std::array<char, 1024> buffer{};
  const ssize_t size = stat_ ? ::pread(stat_.get(), buffer.data(), buffer.size(), 0) : -1;
  if (size <= 0) return std::nullopt;
  const std::string_view text(buffer.data(), static_cast<size_t>(size));
  size_t at = text.rfind(')');
  for (int i = 0; i < kSpacesBefore && at != std::string_view::npos; ++i) at = text.find(' ', at + 1);
  if (at == std::string_view::npos) return std::nullopt;
  uint64_t user = 0;
  uint64_t system = 0;
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data() + at + 1, end, user);
  if (first.ec != std::errc{} || first.ptr == end) return std::nullopt;
  if (std::from_chars(first.ptr + 1, end, system).ec != std::errc{}) return std::nullopt;
  return (user + system) * (1'000'000'000ULL / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK)));
}

bool MemoryRate::is_too_slow(const Totals& totals, uint64_t now_ns, double limit_percent) {
  const uint64_t elapsed_ns = now_ns - std::min(now_ns, begun_ns_);
  const auto cpu = cpu_ns();
  if (elapsed_ns < kShortestNs || !cpu) return false;
  const auto calls = static_cast<double>(totals.calls - begun_.calls);
  const double cost_ns = totals.cost_ns - begun_.cost_ns;
  const auto own_ns = static_cast<double>(*cpu - std::min(*cpu, begun_cpu_ns_)) - cost_ns;
  const auto wall_ns = static_cast<double>(elapsed_ns);
  calls_per_s_ = calls * 1e9 / wall_ns;
  if (calls > 0) ns_per_call_ = cost_ns / calls;
  // CPU time is told in steps of 10 ms, and the cost is an estimate: what is left may come out as nothing.
  overhead_percent_ = 100 * cost_ns / std::max(own_ns, 0.001 * wall_ns);
  const bool over = cost_ns > kNegligible * wall_ns && overhead_percent_ > limit_percent;
  const bool whole_window = elapsed_ns >= kWindowNs;
  if (whole_window) {
    begun_ = totals;
    begun_ns_ = now_ns;
    begun_cpu_ns_ = *cpu;
  }
  return over && (whole_window || overhead_percent_ > kAtOnce * limit_percent);
}

}  // namespace stackwatch
