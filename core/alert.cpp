// SPDX-License-Identifier: Apache-2.0
#include "core/alert.h"

#include <array>

namespace stackwatch {
namespace {

constexpr std::array<std::string_view, 3> kStateNames = {"pending", "firing", "resolved"};

}  // namespace

std::string_view to_string(AlertState state) { return kStateNames[static_cast<size_t>(state)]; }

std::optional<AlertState> parse_alert_state(std::string_view name) {
  for (size_t i = 0; i < kStateNames.size(); ++i) {
    if (kStateNames[i] == name) return static_cast<AlertState>(i);
  }
  return std::nullopt;
}

void Alert::set_keys(const ProcessKey& of_process) {
  const ProcessKey told = process.key;
  process.key = of_process;
  const bool shown = of_process.pid == process.pid_in_ns;
  for (Member& member : processes) {
    ProcessIdentity& each = member.process;
    const bool own = each.key.start_time_ns == told.start_time_ns && each.pid_in_ns == process.pid_in_ns;
    if (own) {
      each.key = of_process;
    } else if (shown) {
      each.key.pid = each.pid_in_ns;
    }
  }
}

bool same_service(const ProcessIdentity& a, const ProcessIdentity& b) {
  if (a.exe.empty() || a.exe != b.exe || a.comm != b.comm || a.unit != b.unit) return false;
  return !a.unit.empty() || a.cgroup == b.cgroup;
}

}  // namespace stackwatch
