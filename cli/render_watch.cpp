// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "cli/render.h"
#include "cli/text.h"

namespace stackwatch {
namespace {

constexpr size_t kPathFrames = 4;  // the function, and enough callers to tell where it was called from
constexpr size_t kSharesFrameColumns = 40;
constexpr size_t kShownProcesses = 3;
constexpr size_t kMatcherColumns = 40;
/// About once in a thousand rows by chance.
constexpr double kStrikingScore = 3.3;

/// Leaf first.
std::string path_text(const JsonValue& frames) {
  std::string text;
  size_t shown = 0;
  for (auto frame = frames.End(); frame != frames.Begin() && shown < kPathFrames; ++shown) {
    --frame;
    if (shown > 0) text += " < ";
    text += frame->IsString() ? safe_text({frame->GetString(), frame->GetStringLength()}, kSharesFrameColumns) : "?";
  }
  if (frames.Size() > shown) text += " < " + std::to_string(frames.Size() - shown) + " more";
  return text.empty() ? "(no frames)" : text;
}

std::string shares_text(const JsonValue& shares) {
  std::string text;
  size_t shown = 0;
  for (const JsonValue& share : shares.GetArray()) {
    if (shown == kShownProcesses) break;
    if (shown++ > 0) text += ",";
    text += process_text(object_of(share, "process"));
  }
  if (shares.Size() > shown) text += " +" + std::to_string(shares.Size() - shown);
  return text;
}

std::string matchers_text(const JsonValue& watch) {
  static constexpr std::array kMatchers = {"name", "exe", "cmdline", "cgroup", "unit", "user"};
  std::string text;
  for (const char* matcher : kMatchers) {
    if (!watch.IsObject() || !watch.HasMember(matcher)) continue;
    text +=
        (text.empty() ? "" : " ") + std::string(matcher) + "=" + safe_text(text_of(watch, matcher), kMatcherColumns);
  }
  if (const int64_t pid = integer_of(watch, "pid"); pid != 0) {
    text += (text.empty() ? "" : " ") + std::string("pid=") + std::to_string(pid);
  }
  return text;
}

}  // namespace

std::string render_unusual_stacks(const JsonValue& reply, const Style& style, size_t max_columns) {
  using enum Table::Align;
  Table table({{"SCORE", kRight}, {"CPU BEFORE", kRight}, {"NOW", kRight}, {"PROCESSES"}, {"STACK (LEAF < CALLERS)"}});
  for (const JsonValue& row : array_of(reply, "stacks").GetArray()) {
    const bool striking = std::abs(number_of(row, "score").value_or(0)) > kStrikingScore;
    table.add({fixed_text(number_of(row, "score"), 1), fixed_text(number_of(row, "before_cores"), 3),
               fixed_text(number_of(row, "now_cores"), 3), shares_text(array_of(row, "processes")),
               path_text(array_of(row, "frames"))},
              striking ? Table::Emphasis::kWarning : Table::Emphasis::kNone);
  }
  return table.text(style, max_columns) + omitted_text(reply);
}

std::string render_watches(const JsonValue& reply, const Style& style) {
  using enum Table::Align;
  Table table({{"ID"}, {"PROCESSES", kRight}, {"PROBES"}, {"HZ", kRight}, {"CHILDREN"}, {"MATCHES"}, {"FROM"}});
  for (const JsonValue& row : array_of(reply, "watches").GetArray()) {
    table.add({safe_text(text_of(row, "id"), 64), std::to_string(integer_of(row, "processes")),
               joined_text(array_of(row, "probes")), fixed_text(number_of(row, "frequency"), 0),
               flag_of(row, "children") ? "yes" : "no", matchers_text(row), safe_text(text_of(row, "source"))});
  }
  return table.text(style) + omitted_text(reply);
}

}  // namespace stackwatch
