// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "cli/json_view.h"
#include "cli/table.h"

namespace stackwatch {

/// Each makes text for people of the parameters of a reply; lines with their ends. Pure functions. What comes from
/// processes (names, command lines, paths) is made harmless for a terminal. Members that a reply lacks are shown as
/// missing.

[[nodiscard]] std::string render_status(const JsonValue& status, const Style& style);
/// `max_columns` cuts the lines; 0 does not.
[[nodiscard]] std::string render_ranking(const JsonValue& reply, const Style& style, size_t max_columns = 0);
/// `max_columns` as above.
[[nodiscard]] std::string render_unusual_stacks(const JsonValue& reply, const Style& style, size_t max_columns = 0);
[[nodiscard]] std::string render_watches(const JsonValue& reply, const Style& style);
[[nodiscard]] std::string render_attachments(const JsonValue& reply, const Style& style);

[[nodiscard]] std::string render_alerts(const JsonValue& reply, const Style& style);
/// One alert on one line, for a stream of them.
[[nodiscard]] std::string render_alert_line(const JsonValue& alert, const Style& style);
/// One alert with its evidence.
[[nodiscard]] std::string render_alert(const JsonValue& alert, const Style& style);

/// Branches below this share of the total are left out of a tree, and counted.
inline constexpr double kPruneShare = 0.005;
/// An indented call tree with inclusive percentages.
[[nodiscard]] std::string render_stack_tree(const JsonValue& report, double prune_share = kPruneShare);
/// `comm;frame;…;frame VALUE`, root first. A ';' in a name becomes ':': it would be read as two frames.
[[nodiscard]] std::string render_folded(const JsonValue& report);
/// The largest stacks over time: at most ten stacks and ten steps (sums of the report's own steps).
[[nodiscard]] std::string render_series(const JsonValue& report, const Style& style);

/// "(3 more)" and a line end where a reply is not the whole list.
[[nodiscard]] std::string omitted_text(const JsonValue& reply);
/// The texts of an array with commas between them.
[[nodiscard]] std::string joined_text(const JsonValue& texts);
/// `redis-server[4711]`
[[nodiscard]] std::string process_text(const JsonValue& process);
/// `3 unwind_failed, 1 names_late`, or "none".
[[nodiscard]] std::string losses_text(const JsonValue& lost);

}  // namespace stackwatch
