// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "daemon/alerting/journal_sink.h"
#include "daemon/alerting/message.h"
#include "systemd/message_ids.h"

namespace stackwatch {
namespace {

/// `journalctl -o json` shows a field of 4096 bytes or more, its name included, as null unless --all is given.
constexpr size_t kMaxField = 4000;
constexpr size_t kMaxFrame = 1000;
constexpr std::string_view kElided = "[…]";

/// A frame as part of a `;`-separated stack.
std::string stack_part(const std::string& frame) {
  std::string out;
  for (const char c : printable(frame, kMaxFrame)) {
    if (c == ';')
      out += "\\x3b";
    else
      out += c;
  }
  return out;
}

/// Root first, separated by `;`. Where that is too long, frames in the middle are left out: the leaf is what the alert
/// is about, the root says which thread or loop it was.
std::string stack_text(const std::vector<std::string>& stack) {
  std::vector<std::string> root_side;
  std::vector<std::string> leaf_side;
  size_t room = kMaxField - kElided.size() - 1;
  size_t low = 0;
  size_t high = stack.size();
  while (low < high) {
    const bool from_leaf = leaf_side.size() <= 2 * root_side.size();  // two at the leaf for one at the root
    std::string part = stack_part(from_leaf ? stack[high - 1] : stack[low]);
    if (part.size() + 1 > room) break;
    room -= part.size() + 1;
    if (from_leaf) {
      leaf_side.push_back(std::move(part));
      --high;
    } else {
      root_side.push_back(std::move(part));
      ++low;
    }
  }
  if (low < high) root_side.emplace_back(kElided);
  root_side.insert(root_side.end(), leaf_side.rbegin(), leaf_side.rend());
  return fmt::format("{}", fmt::join(root_side, ";"));
}

std::string pids_text(const Alert& alert) {
  std::string text;
  for (const Alert::Member& member : alert.processes) {
    const ProcessIdentity& each = member.process;
    text += fmt::format("{}{}", text.empty() ? "" : " ", each.pid_in_ns != 0 ? each.pid_in_ns : each.key.pid);
  }
  return text;
}

std::string field(std::string_view name, std::string_view value) {
  return fmt::format("{}={}", name, printable(value, kMaxField));
}

std::string_view message_id_of(const Alert& alert) {
  if (alert.shift) return kMessageIdCostShift;
  if (alert.state == AlertState::kResolved) return kMessageIdAlertResolved;
  return alert.is_named_later() ? kMessageIdAlertNamed : kMessageIdAlertFiring;
}

/// What people are called for is told once; what is told besides is for those who read on.
std::string_view priority_of(const Alert& alert) {
  if (alert.shift) return "6";
  return alert.state == AlertState::kResolved || alert.is_named_later() ? "5" : "4";
}

}  // namespace

std::vector<std::string> journal_fields(const Alert& alert, bool object_pid) {
  const ProcessIdentity& process = alert.process;
  const int32_t pid = process.pid_in_ns != 0 ? process.pid_in_ns : process.key.pid;
  std::vector<std::string> fields = {
      field("MESSAGE", message_of(alert)),
      field("MESSAGE_ID", message_id_of(alert)),
      field("PRIORITY", priority_of(alert)),
      field("STACKWATCH_ALERT_ID", alert.id),
      field("STACKWATCH_STATE", to_string(alert.state)),
      field("STACKWATCH_PID", fmt::to_string(pid)),
      field("STACKWATCH_COMM", process.comm),
      field("STACKWATCH_EXE", process.exe),
      field("STACKWATCH_CGROUP", process.cgroup),
      field("STACKWATCH_UNIT", process.unit),
      field("STACKWATCH_DETECTOR", alert.detector),
      field("STACKWATCH_PROBE", to_string(alert.probe)),
      field("STACKWATCH_FRAME", alert.frame),
      field("STACKWATCH_STACK", stack_text(alert.stack)),
      field("STACKWATCH_BEFORE", fmt::format("{:.6g}", alert.before)),
      field("STACKWATCH_AFTER", fmt::format("{:.6g}", alert.after)),
      field("STACKWATCH_ONSET", iso8601(alert.onset_ns)),
      field("STACKWATCH_SCORE", fmt::format("{:.6g}", alert.score)),
  };
  if (alert.process_count() > 1) fields.push_back(field("STACKWATCH_PIDS", pids_text(alert)));
  if (alert.shift) fields.push_back(field("STACKWATCH_SHIFT", alert.shift->kind));
  // journald would describe whoever has the pid now, so not after the process has gone.
  if (object_pid && alert.resolution != kProcessExited) fields.push_back(field("OBJECT_PID", fmt::to_string(pid)));
  return fields;
}

}  // namespace stackwatch
