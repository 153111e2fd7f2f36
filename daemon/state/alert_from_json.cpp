// SPDX-License-Identifier: Apache-2.0
#include "daemon/state/alert_from_json.h"

#include <rapidjson/document.h>

#include <string>
#include <utility>
#include <vector>

#include "core/time_text.h"

namespace stackwatch {
namespace {

using Value = rapidjson::Value;

const Value* member(const Value& object, std::string_view name) {
  const auto found = object.FindMember(Value(name.data(), static_cast<rapidjson::SizeType>(name.size())));
  return found == object.MemberEnd() ? nullptr : &found->value;
}

std::string text(const Value& object, std::string_view name) {
  const Value* value = member(object, name);
  return value != nullptr && value->IsString() ? std::string(value->GetString(), value->GetStringLength()) : "";
}

double number(const Value& object, std::string_view name) {
  const Value* value = member(object, name);
  return value != nullptr && value->IsNumber() ? value->GetDouble() : 0;
}

uint64_t count(const Value& object, std::string_view name) {
  const Value* value = member(object, name);
  return value != nullptr && value->IsUint64() ? value->GetUint64() : 0;
}

uint64_t time(const Value& object, std::string_view name) {
  return parse_time(text(object, name), ZonelessTime::kRefused).value_or(0);
}

ProcessIdentity process_of(const Value& alert) {
  ProcessIdentity process;
  const Value* object = member(alert, "process");
  if (object == nullptr || !object->IsObject()) return process;
  process.key.start_time_ns = count(*object, "start_time_ns");
  const Value* pid = member(*object, "pid");
  process.pid_in_ns = pid != nullptr && pid->IsInt() ? pid->GetInt() : 0;
  process.comm = text(*object, "comm");
  process.exe = text(*object, "exe");
  process.cgroup = text(*object, "cgroup");
  process.unit = text(*object, "unit");
  return process;
}

std::vector<Alert::Member> members_of(const Value& alert) {
  std::vector<Alert::Member> members;
  const Value* list = member(alert, "processes");
  if (list == nullptr || !list->IsArray()) return members;
  for (const Value& each : list->GetArray()) {
    if (!each.IsObject()) continue;
    const Value* stands = member(each, "stands");
    members.push_back({process_of(each), time(each, "onset"), number(each, "before"), number(each, "after"),
                       stands != nullptr && stands->IsBool() && stands->GetBool()});
  }
  return members;
}

// One of an unknown probe is of a later version.
std::vector<Alert::Part> parts_of(const Value& alert) {
  std::vector<Alert::Part> parts;
  const Value* list = member(alert, "parts");
  if (list == nullptr || !list->IsArray()) return parts;
  for (const Value& each : list->GetArray()) {
    if (!each.IsObject()) continue;
    const auto probe = parse_probe_kind(text(each, "probe"));
    const Value* stands = member(each, "stands");
    if (!probe) continue;
    parts.push_back({*probe, text(each, "detector"), text(each, "frame"), time(each, "onset"), number(each, "before"),
                     number(each, "after"), text(each, "unit_of_measure"),
                     stands != nullptr && stands->IsBool() && stands->GetBool()});
  }
  return parts;
}

std::optional<Alert::Shift> shift_of(const Value& alert) {
  const Value* shift = member(alert, "shift");
  if (shift == nullptr || !shift->IsObject()) return std::nullopt;
  return Alert::Shift{text(*shift, "kind"), text(*shift, "from"), text(*shift, "to"), text(*shift, "under"),
                      text(*shift, "what")};
}

std::vector<std::string> stack_of(const Value& alert) {
  std::vector<std::string> frames;
  const Value* stack = member(alert, "stack");
  if (stack == nullptr || !stack->IsArray()) return frames;
  for (const Value& frame : stack->GetArray()) {
    if (frame.IsString()) frames.emplace_back(frame.GetString(), frame.GetStringLength());
  }
  return frames;
}

Losses losses_of(const Value& alert) {
  Losses lost;
  const Value* object = member(alert, "lost");
  if (object == nullptr || !object->IsObject()) return lost;
  for (size_t i = 0; i < kLossReasons; ++i) lost.count[i] = count(*object, to_string(static_cast<LossReason>(i)));
  return lost;
}

std::vector<Alert::Contributor> contributors_of(const Value& alert) {
  std::vector<Alert::Contributor> contributors;
  const Value* list = member(alert, "contributors");
  if (list == nullptr || !list->IsArray()) return contributors;
  for (const Value& each : list->GetArray()) {
    if (each.IsObject()) contributors.push_back({text(each, "frame"), number(each, "before"), number(each, "after")});
  }
  return contributors;
}

}  // namespace

Result<Alert> alert_from_json(std::string_view json) {
  rapidjson::Document document;
  document.Parse<rapidjson::kParseIterativeFlag>(json.data(), json.size());
  if (document.HasParseError() || !document.IsObject()) return fail("read a stored alert", "it is no JSON object");
  Alert alert;
  alert.id = text(document, "id");
  const auto state = parse_alert_state(text(document, "state"));
  const auto probe = parse_probe_kind(text(document, "probe"));
  if (alert.id.empty() || !state || !probe) return fail("read a stored alert", "it lacks its id, state or probe");
  alert.state = *state;
  alert.probe = *probe;
  alert.opened_ns = time(document, "opened");
  alert.onset_ns = time(document, "onset");
  alert.updated_ns = time(document, "updated");
  if (const uint64_t resolved_ns = time(document, "resolved"); resolved_ns > 0) alert.resolved_ns = resolved_ns;
  alert.resolution = text(document, "resolution");
  alert.process = process_of(document);
  alert.processes = members_of(document);
  alert.processes_omitted = count(document, "processes_omitted");
  alert.shift = shift_of(document);
  alert.detector = text(document, "detector");
  alert.frame = text(document, "frame");
  alert.stack = stack_of(document);
  alert.before = number(document, "before");
  alert.after = number(document, "after");
  alert.unit_of_measure = text(document, "unit_of_measure");
  alert.change_cores = number(document, "change_cores");
  alert.score = number(document, "score");
  alert.false_alarm_budget = text(document, "false_alarm_budget");
  alert.lost = losses_of(document);
  alert.contributors = contributors_of(document);
  alert.parts = parts_of(document);
  if (const uint64_t named_ns = time(document, "named"); named_ns > 0) alert.named_ns = named_ns;
  return alert;
}

}  // namespace stackwatch
