// SPDX-License-Identifier: Apache-2.0
#include "cli/top.h"

#include <unistd.h>

#include <algorithm>
#include <string>

#include "cli/render.h"
#include "cli/terminal.h"
#include "cli/text.h"
#include "daemon/control/json.h"

namespace stackwatch {
namespace {

/// A screen is drawn no more often than people see, and often enough to see that it lives.
constexpr double kFastest_s = 0.25;
constexpr double kSlowest_s = 10;
constexpr size_t kHeadLines = 3;  // the summary, an empty line, the titles

std::string summary(const JsonValue& status, const Style& style) {
  const auto count = [&](const char* name) { return std::to_string(integer_of(status, name)); };
  const std::string firing = count("alerts_firing") + " alerts firing";
  return style.bold("stackwatch") + " " + count("processes") + " processes, " + count("suspects") + " suspects, " +
         count("attachments") + " attachments, " +
         (integer_of(status, "alerts_firing") > 0 ? style.alarm(firing) : firing) + "  (q ends)\n\n";
}

}  // namespace

std::string ranking_parameters(const Options& options, size_t rows) {
  JsonWriter json;
  json.begin_object();
  json.member("limit", options.top_rows.value_or(rows));
  if (!options.top_by.empty()) json.member("by", options.top_by);
  json.end_object();
  return std::string(json.text());
}

std::string render_top(const JsonValue& reply, const Options& options, const Style& style, size_t max_columns) {
  return options.top_by == "stacks" ? render_unusual_stacks(reply, style, max_columns)
                                    : render_ranking(reply, style, max_columns);
}

Result<void> run_live_top(Client& client, const Options& options, const Style& style) {
  Result<Screen> screen = Screen::open();
  if (!screen) return Failure(screen.error());
  for (;;) {
    const TerminalSize size = terminal_size(STDOUT_FILENO);
    const size_t rows = size.rows > kHeadLines + 1 ? size.rows - kHeadLines - 1 : 1;
    const Result<Reply> status = client.call("GetStatus");
    if (!status) return Failure(status.error());
    const Result<Reply> ranking = client.call("GetRanking", ranking_parameters(options, rows));
    if (!ranking) return Failure(ranking.error());
    const std::string text =
        summary(status->parameters(), style) + render_top(ranking->parameters(), options, style, size.columns);
    if (const auto drawn = screen->draw(text); !drawn) return drawn;
    const double tick_s = number_of(status->parameters(), "tick_s").value_or(1);
    if (screen->wait(std::clamp(tick_s, kFastest_s, kSlowest_s)) == Screen::Event::kQuit) return {};
  }
}

}  // namespace stackwatch
