// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>

#include "cli/render.h"
#include "cli/text.h"

namespace stackwatch {
namespace {

constexpr size_t kFrameColumns = 60;

std::string frame_text(const JsonValue& alert, size_t columns) {
  const std::string_view frame = text_of(alert, "frame");
  return frame.empty() ? "(whole process)" : safe_text(frame, columns);
}

std::string measure_of(const JsonValue& object, const char* name, const JsonValue& alert) {
  return measure_text(number_of(object, name), text_of(alert, "unit_of_measure"));
}

std::string state_text(const JsonValue& alert, const Style& style) {
  const std::string state = safe_text(text_of(alert, "state"), 16);
  if (state == "firing") return style.alarm(state);
  if (state == "resolved") return style.good(state);
  return style.warning(state);
}

std::string row(const std::string& label, const std::string& value) {
  constexpr size_t kLabelColumns = 14;
  return "  " + label + std::string(kLabelColumns - std::min(kLabelColumns, label.size()), ' ') + value + "\n";
}

std::string stack_text(const JsonValue& alert) {
  std::string text = "  stack, root first\n";
  for (const JsonValue& frame : array_of(alert, "stack").GetArray()) {
    if (frame.IsString()) text += "    " + safe_text({frame.GetString(), frame.GetStringLength()}) + "\n";
  }
  return text;
}

std::string contributors_text(const JsonValue& alert) {
  using enum Table::Align;
  const auto contributors = array_of(alert, "contributors").GetArray();
  if (contributors.Empty()) return "";
  Table table({{"    BEFORE", kRight}, {"AFTER", kRight}, {"CHANGED WITH IT"}});
  for (const JsonValue& contributor : contributors) {
    table.add({measure_of(contributor, "before", alert), measure_of(contributor, "after", alert),
               safe_text(text_of(contributor, "frame"))});
  }
  return table.text(Style{});
}

std::string parts_text(const JsonValue& alert) {
  using enum Table::Align;
  const auto parts = array_of(alert, "parts").GetArray();
  if (parts.Empty()) return "";
  Table table({{"    BEFORE", kRight}, {"AFTER", kRight}, {"UNIT"}, {"PROBE"}, {"ONSET"}, {"STANDS"}, {"PART"}});
  for (const JsonValue& part : parts) {
    table.add({measure_of(part, "before", part), measure_of(part, "after", part),
               safe_text(text_of(part, "unit_of_measure"), 32), safe_text(text_of(part, "probe"), 16),
               local_time_text(text_of(part, "onset")), flag_of(part, "stands") ? "yes" : "no",
               frame_text(part, kFrameColumns)});
  }
  return table.text(Style{});
}

int64_t process_count(const JsonValue& alert) {
  const int64_t listed = static_cast<int64_t>(array_of(alert, "processes").GetArray().Size());
  return std::max<int64_t>(1, listed + integer_of(alert, "processes_omitted"));
}

std::string and_more(const JsonValue& alert) {
  const int64_t more = process_count(alert) - 1;
  return more > 0 ? " and " + std::to_string(more) + " more" : "";
}

std::string processes_text(const JsonValue& alert) {
  using enum Table::Align;
  if (process_count(alert) == 1) return "";
  Table table({{"    PROCESS"}, {"ONSET"}, {"BEFORE", kRight}, {"AFTER", kRight}, {"STANDS"}});
  for (const JsonValue& member : array_of(alert, "processes").GetArray()) {
    table.add({"    " + process_text(object_of(member, "process")), local_time_text(text_of(member, "onset")),
               measure_of(member, "before", alert), measure_of(member, "after", alert),
               flag_of(member, "stands") ? "yes" : "no"});
  }
  const int64_t omitted = integer_of(alert, "processes_omitted");
  return table.text(Style{}) + (omitted > 0 ? "    (" + std::to_string(omitted) + " more)\n" : "");
}

}  // namespace

std::string render_alerts(const JsonValue& reply, const Style& style) {
  using enum Table::Align;
  Table table(
      {{"ID"}, {"STATE"}, {"ONSET"}, {"PROCESS"}, {"DETECTOR"}, {"BEFORE", kRight}, {"AFTER", kRight}, {"FRAME"}});
  for (const JsonValue& alert : array_of(reply, "alerts").GetArray()) {
    const bool firing = text_of(alert, "state") == "firing";
    table.add({safe_text(text_of(alert, "id"), 64), safe_text(text_of(alert, "state"), 16),
               local_time_text(text_of(alert, "onset")), process_text(object_of(alert, "process")) + and_more(alert),
               safe_text(text_of(alert, "detector"), 24), measure_of(alert, "before", alert),
               measure_of(alert, "after", alert), frame_text(alert, kFrameColumns)},
              firing ? Table::Emphasis::kAlarm : Table::Emphasis::kNone);
  }
  const int64_t omitted = integer_of(reply, "omitted");
  return table.text(style) + (omitted > 0 ? "(" + std::to_string(omitted) + " more)\n" : "");
}

std::string render_alert_line(const JsonValue& alert, const Style& style) {
  return local_time_text(text_of(alert, "updated")) + " " + state_text(alert, style) + " " +
         process_text(object_of(alert, "process")) + and_more(alert) + ": " + frame_text(alert, kFrameColumns) + " " +
         measure_of(alert, "before", alert) + " -> " + measure_of(alert, "after", alert) + " since " +
         local_time_text(text_of(alert, "onset")) + " (" + safe_text(text_of(alert, "detector"), 24) + ") " +
         safe_text(text_of(alert, "id"), 64) + "\n";
}

std::string render_alert(const JsonValue& alert, const Style& style) {
  const JsonValue& process = object_of(alert, "process");
  std::string text = style.bold(process_text(process) + and_more(alert)) + " " + frame_text(alert, kFrameColumns) +
                     ": " + measure_of(alert, "before", alert) + " -> " + measure_of(alert, "after", alert) + " " +
                     state_text(alert, style) + "\n";
  text += row("alert", safe_text(text_of(alert, "id"), 64));
  text += row("onset", local_time_text(text_of(alert, "onset")));
  text += row("opened", local_time_text(text_of(alert, "opened")));
  text += row("updated", local_time_text(text_of(alert, "updated")));
  if (const std::string_view resolved = text_of(alert, "resolved"); !resolved.empty()) {
    text += row("resolved", local_time_text(resolved) + " " + safe_text(text_of(alert, "resolution")));
  }
  const JsonValue& shift = object_of(alert, "shift");
  if (const std::string_view kind = text_of(shift, "kind"); !kind.empty()) {
    const std::string_view what = text_of(shift, "what");
    text += row(safe_text(kind, 16), (what.empty() ? "" : safe_text(what, kFrameColumns) + ": ") +
                                         safe_text(text_of(shift, "from"), kFrameColumns) + " -> " +
                                         safe_text(text_of(shift, "to"), kFrameColumns));
  }
  text += row("executable", safe_text(text_of(process, "exe")));
  text += row("unit", safe_text(text_of(process, "unit")));
  text += row("cgroup", safe_text(text_of(process, "cgroup")));
  text += row("detector", safe_text(text_of(alert, "detector"), 24) + " on " + safe_text(text_of(alert, "probe"), 16) +
                              ", " + safe_text(text_of(alert, "unit_of_measure"), 32));
  text += row("change", fixed_text(number_of(alert, "change_cores"), 3) + " cores");
  text += row("confidence", "score " + fixed_text(number_of(alert, "score"), 1) +
                                " (natural logarithm of the evidence); budget " +
                                safe_text(text_of(alert, "false_alarm_budget"), 32));
  text += row("lost", losses_text(object_of(alert, "lost")));
  return text + processes_text(alert) + stack_text(alert) + contributors_text(alert) + parts_text(alert);
}

}  // namespace stackwatch
