// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "core/time_text.h"
#include "core/utf8.h"

namespace stackwatch {
namespace {

void append_escaped(std::string& text, char32_t character) {
  switch (character) {
    case U'"':
      text += "\\\"";
      return;
    case U'\\':
      text += "\\\\";
      return;
    case U'\n':
      text += "\\n";
      return;
    case U'\t':
      text += "\\t";
      return;
    default:
      break;
  }
  if (!is_control_character(character)) {
    append_utf8(text, character);
    return;
  }
  std::array<char, 8> escape{};  // all control characters are in the basic plane: four digits
  std::snprintf(escape.data(), escape.size(), "\\u%04x", static_cast<unsigned>(character) & 0xFFFFU);
  text += escape.data();
}

/// How many bytes in front need no escape and no decoding.
size_t plain_prefix(std::string_view text) {
  const auto plain = [](char c) { return c >= 0x20 && c < 0x7F && c != '"' && c != '\\'; };
  return static_cast<size_t>(std::ranges::find_if_not(text, plain) - text.begin());
}

template <class Rows, class WriteRow>
size_t write_list(JsonWriter& json, const Rows& rows, WriteRow write_row) {
  size_t written = 0;
  json.begin_array();
  for (const auto& row : rows) {
    if (json.size() > kMaxListBytes) break;
    write_row(row);
    ++written;
  }
  json.end_array();
  return rows.size() - written;
}

void write_strings(JsonWriter& json, const std::vector<std::string>& texts) {
  json.begin_array();
  for (const std::string& text : texts) json.value(text);
  json.end_array();
}

void write_probes(JsonWriter& json, const std::vector<ProbeKind>& probes) {
  json.begin_array();
  for (const ProbeKind probe : probes) json.value(to_string(probe));
  json.end_array();
}

void write_contributors(JsonWriter& json, const std::vector<Alert::Contributor>& contributors) {
  json.begin_array();
  for (const Alert::Contributor& contributor : contributors) {
    json.begin_object();
    json.member("frame", contributor.frame);
    json.member("before", contributor.before);
    json.member("after", contributor.after);
    json.end_object();
  }
  json.end_array();
}

void write_member(JsonWriter& json, const Alert::Member& member) {
  json.begin_object();
  json.key("process");
  write_process(json, member.process);
  json.member("onset", format_utc(member.onset_ns));
  json.member("before", member.before);
  json.member("after", member.after);
  json.member("stands", member.stands);
  json.end_object();
}

// Of one process alone `process` tells all.
void write_members(JsonWriter& json, const Alert& alert) {
  if (alert.process_count() == 1) return;
  json.key("processes");
  json.begin_array();
  for (const Alert::Member& member : alert.processes) write_member(json, member);
  json.end_array();
  if (alert.processes_omitted > 0) json.member("processes_omitted", alert.processes_omitted);
}

void write_parts(JsonWriter& json, const std::vector<Alert::Part>& parts) {
  json.begin_array();
  for (const Alert::Part& part : parts) {
    json.begin_object();
    json.member("probe", to_string(part.probe));
    json.member("detector", part.detector);
    json.member("frame", part.frame);
    json.member("onset", format_utc(part.onset_ns));
    json.member("before", part.before);
    json.member("after", part.after);
    json.member("unit_of_measure", part.unit_of_measure);
    json.member("stands", part.stands);
    json.end_object();
  }
  json.end_array();
}

void write_shift(JsonWriter& json, const Alert::Shift& shift) {
  json.begin_object();
  json.member("kind", shift.kind);
  json.member("from", shift.from);
  json.member("to", shift.to);
  if (!shift.under.empty()) json.member("under", shift.under);
  if (!shift.what.empty()) json.member("what", shift.what);
  json.end_object();
}

void write_ranking_row(JsonWriter& json, const RankingRow& row) {
  json.begin_object();
  json.key("process");
  write_process(json, row.process);
  json.member("score", row.score);
  json.member("suspect", row.suspect);
  json.member("reason", row.reason);
  json.member("on_cpu_cores", row.on_cpu_cores);
  json.member("entitled_cores", row.entitled_cores);
  json.member("run_queue_s_per_s", row.run_queue_s);
  json.member("switches_per_s", row.switches);
  json.member("faults_per_s", row.faults);
  json.member("io_bytes_per_s", row.io_bytes);
  json.member("rss_bytes", row.rss_bytes);
  json.member("threads", row.threads);
  json.member("nice", row.nice);
  json.end_object();
}

void write_attachment_row(JsonWriter& json, const AttachmentRow& row) {
  json.begin_object();
  json.key("process");
  write_process(json, row.process);
  json.key("probes");
  write_probes(json, row.probes);
  if (!row.loading.empty()) {
    json.key("loading");
    write_probes(json, row.loading);
  }
  json.member("frequency_hz", row.frequency_hz);
  json.member("since", format_utc(row.since_ns));
  json.member("reason", row.reason);
  json.member("samples", row.samples);
  json.member("stacks", row.stacks);
  json.key("lost");
  write_losses(json, row.lost);
  if (!row.problem.empty()) json.member("problem", row.problem);
  json.member("overhead_percent", row.overhead_percent);
  json.end_object();
}

void write_limits(JsonWriter& json, const Status& status) {
  json.key("limits");
  json.begin_array();
  for (const LimitUse& limit : status.limits) {
    json.begin_object();
    json.member("name", limit.name);
    json.member("limit", limit.limit);
    json.member("used", limit.used);
    json.end_object();
  }
  json.end_array();
  json.member("shedding", status.shedding);
  json.key("state");
  json.begin_object();
  json.member("path", status.state.path);
  json.member("storing", status.state.storing);
  json.member("problem", status.state.problem);
  json.member("bytes", status.state.bytes);
  json.member("dropped", status.state.dropped);
  json.end_object();
}

void write_unusual_stack(JsonWriter& json, const UnusualStack& stack) {
  json.begin_object();
  json.key("frames");
  write_strings(json, stack.frames);
  json.member("score", stack.score);
  json.member("before_cores", stack.before_cores);
  json.member("now_cores", stack.now_cores);
  json.key("processes");
  json.begin_array();
  for (const UnusualStack::Share& share : stack.processes) {
    json.begin_object();
    json.key("process");
    write_process(json, share.process);
    json.member("before_cores", share.before_cores);
    json.member("now_cores", share.now_cores);
    json.end_object();
  }
  json.end_array();
  json.end_object();
}

void write_watch_row(JsonWriter& json, const WatchRow& row) {
  const auto optional_member = [&json](const char* name, const auto& value) {
    if (value) json.member(name, *value);
  };
  json.begin_object();
  json.member("id", row.rule.id);
  optional_member("name", row.rule.name);
  optional_member("exe", row.rule.exe);
  optional_member("cmdline", row.rule.cmdline);
  optional_member("cgroup", row.rule.cgroup);
  optional_member("unit", row.rule.unit);
  optional_member("user", row.rule.user);
  optional_member("pid", row.rule.pid);
  json.key("probes");
  write_probes(json, row.rule.probes);
  json.member("frequency", row.rule.frequency_hz);
  json.member("children", row.rule.children);
  json.member("mmap", row.rule.mmap);
  json.member("configured", row.configured);
  json.member("source", row.rule.source);
  json.member("processes", row.processes);
  json.end_object();
}

void write_stack_row(JsonWriter& json, const StacksReport::Row& row, bool series) {
  json.begin_object();
  json.key("frames");
  write_strings(json, row.frames);
  if (!row.places.empty()) {
    json.key("places");
    write_strings(json, row.places);
  }
  json.member("value", row.value);
  if (series) {
    json.key("series");
    json.begin_array();
    for (const int64_t value : row.series) json.value(value);
    json.end_array();
  }
  json.end_object();
}

void write_status_load(JsonWriter& json, const Status& status) {
  json.member("cpu_share", status.cpu_share);
  json.member("resident_bytes", status.resident_bytes);
  json.member("worker_resident_bytes", status.worker_resident_bytes);
  json.member("bpf_map_bytes", status.bpf_map_bytes);
  json.member("open_fds", status.open_fds);
  json.member("control_clients", status.control_clients);
  json.member("control_refused", status.control_refused);
  json.member("control_dropped", status.control_dropped);
}

}  // namespace

void JsonWriter::value(double number) {
  if (std::isfinite(number)) {
    writer_.Double(number);
  } else {
    writer_.Null();
  }
}

void JsonWriter::quoted(std::string_view text) {
  scratch_.assign(1, '"');
  for (size_t position = 0; position < text.size();) {
    // Nearly every name is plain from end to end: copied in one piece.
    const size_t plain = plain_prefix(text.substr(position));
    scratch_.append(text, position, plain);
    position += plain;
    if (position < text.size()) append_escaped(scratch_, next_character(text, position));
  }
  scratch_.push_back('"');
  writer_.RawValue(scratch_.data(), scratch_.size(), rapidjson::kStringType);
}

void write_process(JsonWriter& json, const ProcessIdentity& process) {
  json.begin_object();
  json.member("pid", process.pid_in_ns);
  json.member("start_time_ns", process.key.start_time_ns);
  json.member("comm", process.comm);
  json.member("exe", process.exe);
  json.member("cgroup", process.cgroup);
  json.member("unit", process.unit);
  json.end_object();
}

void write_losses(JsonWriter& json, const Losses& lost) {
  json.begin_object();
  for (size_t i = 0; i < kLossReasons; ++i) json.member(to_string(static_cast<LossReason>(i)), lost.count[i]);
  json.end_object();
}

void write_alert(JsonWriter& json, const Alert& alert) {
  json.begin_object();
  json.member("id", alert.id);
  json.member("state", to_string(alert.state));
  json.member("opened", format_utc(alert.opened_ns));
  json.member("onset", format_utc(alert.onset_ns));
  json.member("updated", format_utc(alert.updated_ns));
  json.key("resolved");
  if (alert.resolved_ns) {
    json.value(format_utc(*alert.resolved_ns));
  } else {
    json.null();
  }
  if (!alert.resolution.empty()) json.member("resolution", alert.resolution);
  json.key("process");
  write_process(json, alert.process);
  write_members(json, alert);
  if (alert.shift) {
    json.key("shift");
    write_shift(json, *alert.shift);
  }
  json.member("detector", alert.detector);
  json.member("probe", to_string(alert.probe));
  json.member("frame", alert.frame);
  json.key("stack");
  write_strings(json, alert.stack);
  json.member("before", alert.before);
  json.member("after", alert.after);
  json.member("unit_of_measure", alert.unit_of_measure);
  json.member("change_cores", alert.change_cores);
  json.member("score", alert.score);
  json.member("false_alarm_budget", alert.false_alarm_budget);
  json.key("lost");
  write_losses(json, alert.lost);
  json.key("contributors");
  write_contributors(json, alert.contributors);
  if (!alert.parts.empty()) {
    json.key("parts");
    write_parts(json, alert.parts);
  }
  if (alert.named_ns) json.member("named", format_utc(*alert.named_ns));
  json.end_object();
}

void write_status(JsonWriter& json, const Status& status) {
  json.begin_object();
  json.member("version", status.version);
  json.member("pid", status.pid);
  json.member("uptime_s", status.uptime_s);
  json.member("tick_s", status.tick_s);
  json.member("ticks", status.ticks);
  json.member("missed_ticks", status.missed_ticks);
  json.member("last_tick_ms", status.last_tick_ms);
  json.member("max_tick_ms", status.max_tick_ms);
  json.member("census_method", status.census_method);
  json.member("census_ms", status.census_ms);
  json.member("processes", status.processes);
  json.member("tasks", status.tasks);
  json.member("suspects", status.suspects);
  json.member("attachments", status.attachments);
  json.member("surveyed", status.surveyed);
  json.member("watch_rules", status.watch_rules);
  json.member("functions", status.functions);
  json.member("alerts_pending", status.alerts_pending);
  json.member("alerts_firing", status.alerts_firing);
  write_status_load(json, status);
  write_limits(json, status);
  json.key("lost");
  write_losses(json, status.lost);
  json.key("warnings");
  write_strings(json, status.warnings);
  json.end_object();
}

size_t write_alert_list(JsonWriter& json, const std::vector<Alert>& alerts) {
  return write_list(json, alerts, [&json](const Alert& alert) { write_alert(json, alert); });
}

size_t write_ranking_list(JsonWriter& json, const std::vector<RankingRow>& rows) {
  return write_list(json, rows, [&json](const RankingRow& row) { write_ranking_row(json, row); });
}

size_t write_attachment_list(JsonWriter& json, const std::vector<AttachmentRow>& rows) {
  return write_list(json, rows, [&json](const AttachmentRow& row) { write_attachment_row(json, row); });
}

size_t write_unusual_stack_list(JsonWriter& json, const std::vector<UnusualStack>& stacks) {
  return write_list(json, stacks, [&json](const UnusualStack& stack) { write_unusual_stack(json, stack); });
}

size_t write_watch_list(JsonWriter& json, const std::vector<WatchRow>& rows) {
  return write_list(json, rows, [&json](const WatchRow& row) { write_watch_row(json, row); });
}

void write_stacks(JsonWriter& json, const StacksReport& report) {
  const bool series = report.step_s > 0;
  json.begin_object();
  json.key("process");
  write_process(json, report.process);
  json.member("probe", report.waits ? std::string_view("off_cpu") : to_string(report.probe));
  json.member("window_s", report.window_s);
  if (series) json.member("step_s", report.step_s);
  json.member("total", report.total);
  if (report.waits) json.member("run_queue", report.waits->run_queue);
  json.key("stacks");
  const size_t omitted =
      write_list(json, report.rows, [&](const StacksReport::Row& row) { write_stack_row(json, row, series); });
  if (omitted > 0) json.member("omitted", omitted);
  json.key("lost");
  write_losses(json, report.lost);
  json.end_object();
}

std::string alert_to_json(const Alert& alert) {
  JsonWriter json;
  write_alert(json, alert);
  return std::string(json.text());
}

}  // namespace stackwatch
