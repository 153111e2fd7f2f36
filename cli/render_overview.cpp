// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/render.h"
#include "cli/text.h"

namespace stackwatch {
namespace {

/// comm has at most 15 bytes, of which each may need an escape; more than this hides the columns behind it.
constexpr size_t kCommColumns = 20;
constexpr size_t kReasonColumns = 60;

std::string count(const JsonValue& object, const char* name) { return std::to_string(integer_of(object, name)); }

std::string labelled(const std::string& label, const std::string& value) {
  constexpr size_t kLabelColumns = 13;
  return label + std::string(kLabelColumns - std::min(kLabelColumns, label.size()), ' ') + value + "\n";
}

std::string warnings_text(const JsonValue& status, const Style& style) {
  std::string text;
  for (const JsonValue& warning : array_of(status, "warnings").GetArray()) {
    if (!warning.IsString()) continue;
    text += labelled("warning", style.warning(safe_text({warning.GetString(), warning.GetStringLength()})));
  }
  return text;
}

// "memory 41.0 MB of 256 MB, cpu_percent 3.1 of 5, …": the names are those of [limits].
std::string limits_text(const JsonValue& status) {
  std::string text;
  for (const JsonValue& limit : array_of(status, "limits").GetArray()) {
    const std::string name = safe_text(text_of(limit, "name"), 32);
    const bool bytes = name == "memory" || name == "disk";
    const bool percent = name.find("percent") != std::string::npos;
    const auto value = [&](const char* key) {
      const std::optional<double> number = number_of(limit, key);
      return bytes ? bytes_text(number) : fixed_text(number, percent ? 1 : 0);
    };
    text += (text.empty() ? "" : ", ") + name + " " + value("used") + " of " + value("limit");
  }
  return text;
}

std::string daemon_state_text(const JsonValue& status, const Style& style) {
  const JsonValue& state = object_of(status, "state");
  const std::string path = safe_text(text_of(state, "path"), 256);
  if (path.empty()) return "none";
  if (!flag_of(state, "storing")) return style.alarm("not storing") + " in " + path;
  return path + ", " + bytes_text(number_of(state, "bytes")) + ", " + count(state, "dropped") + " writes dropped";
}

}  // namespace

std::string omitted_text(const JsonValue& reply) {
  const int64_t omitted = integer_of(reply, "omitted");
  return omitted > 0 ? "(" + std::to_string(omitted) + " more)\n" : "";
}

std::string joined_text(const JsonValue& texts) {
  std::string joined;
  for (const JsonValue& text : texts.GetArray()) {
    if (!joined.empty()) joined += ",";
    if (text.IsString()) joined += safe_text({text.GetString(), text.GetStringLength()}, 16);
  }
  return joined;
}

std::string process_text(const JsonValue& process) {
  return safe_text(text_of(process, "comm"), kCommColumns) + "[" + count(process, "pid") + "]";
}

std::string losses_text(const JsonValue& lost) {
  std::string text;
  for (const auto& reason : lost.GetObject()) {
    if (!reason.value.IsUint64() || reason.value.GetUint64() == 0) continue;
    if (!text.empty()) text += ", ";
    text += std::to_string(reason.value.GetUint64()) + " " +
            safe_text({reason.name.GetString(), reason.name.GetStringLength()}, 32);
  }
  return text.empty() ? "none" : text;
}

std::string render_status(const JsonValue& status, const Style& style) {
  const auto ms = [&](const char* name) { return fixed_text(number_of(status, name), 1) + " ms"; };
  const auto bytes = [&](const char* name) { return bytes_text(number_of(status, name)); };
  std::string text = style.bold("stackwatchd " + safe_text(text_of(status, "version"), 32)) + ", pid " +
                     count(status, "pid") + ", up " + duration_text(number_of(status, "uptime_s")) + "\n";
  text += labelled("ticks", count(status, "ticks") + " of " + duration_text(number_of(status, "tick_s")) + ", " +
                                count(status, "missed_ticks") + " missed; the last took " + ms("last_tick_ms") +
                                ", the longest " + ms("max_tick_ms"));
  text += labelled("census", count(status, "processes") + " processes, " + count(status, "tasks") + " tasks in " +
                                 ms("census_ms") + " (" + safe_text(text_of(status, "census_method"), 32) + ")");
  text +=
      labelled("watching", count(status, "attachments") + " attachments, " + count(status, "suspects") + " suspects, " +
                               count(status, "surveyed") + " surveyed, " + count(status, "watch_rules") +
                               " watch rules, " + count(status, "functions") + " functions named");
  const std::string alerts = count(status, "alerts_firing") + " firing";
  text += labelled("alerts", (integer_of(status, "alerts_firing") > 0 ? style.alarm(alerts) : alerts) + ", " +
                                 count(status, "alerts_pending") + " pending");
  text += labelled("load", percent_text(number_of(status, "cpu_share")) + " of one core, " + bytes("resident_bytes") +
                               " resident, worker " + bytes("worker_resident_bytes") + ", BPF maps " +
                               bytes("bpf_map_bytes") + ", " + count(status, "open_fds") + " open files");
  text += labelled("clients", count(status, "control_clients") + ", " + count(status, "control_refused") +
                                  " refused, " + count(status, "control_dropped") + " dropped");
  text += labelled("limits", limits_text(status));
  text += labelled("state", daemon_state_text(status, style));
  text += labelled("lost", losses_text(object_of(status, "lost")));
  return text + warnings_text(status, style);
}

std::string render_ranking(const JsonValue& reply, const Style& style, size_t max_columns) {
  using enum Table::Align;
  Table table({{"PID", kRight},
               {"COMM"},
               {"SCORE", kRight},
               {"CPU", kRight},
               {"ENTITLED", kRight},
               {"RUNQ", kRight},
               {"SWITCH/s", kRight},
               {"FAULT/s", kRight},
               {"IO/s", kRight},
               {"RSS", kRight},
               {"THR", kRight},
               {"NI", kRight},
               {"WHY"}});
  for (const JsonValue& row : array_of(reply, "ranking").GetArray()) {
    const JsonValue& process = object_of(row, "process");
    const bool suspect = flag_of(row, "suspect");
    table.add(
        {count(process, "pid"), safe_text(text_of(process, "comm"), kCommColumns),
         fixed_text(number_of(row, "score"), 2), fixed_text(number_of(row, "on_cpu_cores"), 2),
         fixed_text(number_of(row, "entitled_cores"), 2), fixed_text(number_of(row, "run_queue_s_per_s"), 2),
         count_text(number_of(row, "switches_per_s")), count_text(number_of(row, "faults_per_s")),
         bytes_text(number_of(row, "io_bytes_per_s")), bytes_text(number_of(row, "rss_bytes")), count(row, "threads"),
         count(row, "nice"), (suspect ? "* " : "") + safe_text(text_of(row, "reason"), kReasonColumns)},
        suspect ? Table::Emphasis::kWarning : Table::Emphasis::kNone);
  }
  return table.text(style, max_columns) + omitted_text(reply);
}

std::string render_attachments(const JsonValue& reply, const Style& style) {
  using enum Table::Align;
  Table table({{"PID", kRight},
               {"COMM"},
               {"PROBES"},
               {"HZ", kRight},
               {"SINCE"},
               {"SAMPLES", kRight},
               {"STACKS", kRight},
               {"WHY"},
               {"LOST"},
               {"PROBLEM"}});
  for (const JsonValue& row : array_of(reply, "attachments").GetArray()) {
    const JsonValue& process = object_of(row, "process");
    std::string problem(text_of(row, "problem"));
    if (const std::string loading = joined_text(array_of(row, "loading")); problem.empty() && !loading.empty()) {
      problem = loading + ": its program is being loaded";
    }
    table.add(
        {count(process, "pid"), safe_text(text_of(process, "comm"), kCommColumns), joined_text(array_of(row, "probes")),
         fixed_text(number_of(row, "frequency_hz"), 0), local_time_text(text_of(row, "since")), count(row, "samples"),
         count(row, "stacks"), safe_text(text_of(row, "reason"), kReasonColumns), losses_text(object_of(row, "lost")),
         problem.empty() ? "" : safe_text(problem)},
        problem.empty() ? Table::Emphasis::kNone : Table::Emphasis::kWarning);
  }
  return table.text(style) + omitted_text(reply);
}

}  // namespace stackwatch
