// SPDX-License-Identifier: Apache-2.0
#include "cli/verbs.h"

#include <unistd.h>

#include <csignal>
#include <string>

#include "cli/client.h"
#include "cli/import.h"
#include "cli/output.h"
#include "cli/render.h"
#include "cli/run.h"
#include "cli/standalone.h"
#include "cli/text.h"
#include "cli/top.h"
#include "cli/watch.h"
#include "daemon/alerting/console_sink.h"
#include "daemon/control/json.h"

namespace stackwatch {
namespace {

constexpr size_t kDefaultRows = 20;

Result<void> print(const std::string& text) { return write_output(STDOUT_FILENO, text); }

Result<void> print_json(const JsonValue& value) {
  const Result<std::string> line = to_json_line(value);
  if (!line) return Failure(line.error());
  return print(*line);
}

std::string stacks_parameters(const Options& options) {
  JsonWriter json;
  json.begin_object();
  json.member("pid", options.pid);
  json.member("probe", options.probe);
  if (options.stacks_since_s > 0) json.member("since_s", options.stacks_since_s);
  if (options.series) json.member("series", true);
  json.end_object();
  return std::string(json.text());
}

std::string alerts_parameters(const Options& options) {
  JsonWriter json;
  json.begin_object();
  if (!options.alerts_since.empty()) json.member("since", options.alerts_since);
  if (!options.alerts_state.empty()) json.member("state", options.alerts_state);
  json.end_object();
  return std::string(json.text());
}

std::string show_parameters(const Options& options) {
  JsonWriter json;
  json.begin_object();
  json.member("id", options.alert_id);
  json.end_object();
  return std::string(json.text());
}

Result<void> run_status(Client& client, const Options& options, const Style& style) {
  const Result<Reply> reply = client.call("GetStatus");
  if (!reply) return Failure(reply.error());
  if (options.json) return print_json(reply->parameters());
  return print(render_status(reply->parameters(), style));
}

Result<void> run_top(Client& client, const Options& options, const Style& style) {
  const bool live = !options.json && !options.once && isatty(STDOUT_FILENO) != 0 && isatty(STDIN_FILENO) != 0;
  if (live) return run_live_top(client, options, style);
  const Result<Reply> reply = client.call("GetRanking", ranking_parameters(options, kDefaultRows));
  if (!reply) return Failure(reply.error());
  if (options.json) return print_json(reply->parameters());
  return print(render_top(reply->parameters(), options, style));
}

Result<void> run_attachments(Client& client, const Options& options, const Style& style) {
  const Result<Reply> reply = client.call("ListAttachments");
  if (!reply) return Failure(reply.error());
  if (options.json) return print_json(reply->parameters());
  return print(render_attachments(reply->parameters(), style));
}

Result<void> run_stacks(Client& client, const Options& options, const Style& style) {
  const Result<Reply> reply = client.call("GetStacks", stacks_parameters(options));
  if (!reply) return Failure(reply.error());
  const JsonValue& report = reply->parameters();
  if (options.format == StacksFormat::kJson) return print_json(report);
  if (options.format == StacksFormat::kFolded) return print(render_folded(report));
  return print(options.series ? render_series(report, style) : render_stack_tree(report));
}

Result<void> follow_alerts(Client& client, const Options& options, const Style& style) {
  return client.stream("Subscribe", alerts_parameters(options), STDOUT_FILENO,
                       [&](const JsonValue& parameters) -> Result<void> {
                         const JsonValue& alert = object_of(parameters, "alert");
                         if (options.json) return print_json(alert);
                         return print(render_alert_line(alert, style));
                       });
}

Result<void> run_alerts(Client& client, const Options& options, const Style& style) {
  if (options.follow) return follow_alerts(client, options, style);
  const Result<Reply> reply = client.call("ListAlerts", alerts_parameters(options));
  if (!reply) return Failure(reply.error());
  if (options.json) return print_json(reply->parameters());
  return print(render_alerts(reply->parameters(), style));
}

Result<void> run_show(Client& client, const Options& options, const Style& style) {
  const Result<Reply> reply = client.call("GetAlert", show_parameters(options));
  if (!reply) return Failure(reply.error());
  const JsonValue& alert = object_of(reply->parameters(), "alert");
  if (options.json) return print_json(alert);
  return print(render_alert(alert, style));
}

}  // namespace

Result<void> run_verb(const Options& options, const Clock& clock) {
  const Style style{wants_colour(STDOUT_FILENO)};

  Result<Client> client = Client::connect(options.socket, clock);
  if (!client) return Failure(client.error());
  switch (options.verb) {
    case Verb::kStatus:
      return run_status(*client, options, style);
    case Verb::kTop:
      return run_top(*client, options, style);
    case Verb::kAttachments:
      return run_attachments(*client, options, style);
    case Verb::kStacks:
      return run_stacks(*client, options, style);
    case Verb::kAlerts:
      return run_alerts(*client, options, style);
    case Verb::kShow:
      return run_show(*client, options, style);
    case Verb::kWatchAdd:
      return run_watch_add(*client, options);
    case Verb::kWatchRemove:
      return run_watch_remove(*client, options);
    case Verb::kWatchList:
      return run_watch_list(*client, options, style);
    case Verb::kRun:
      break;  // see run_watched()
    case Verb::kReplay:
    case Verb::kImport:
    case Verb::kDoctor:
    case Verb::kDetect:
      break;  // see become_standalone()
  }
  return {};
}

int run_stackwatch(int argc, const char* const* argv) {
  if (argc > 1 && is_standalone(argv[1])) return report_error(become_standalone(argv).value());
  // Whether we inherited it ignored or not, a closed pipe shows as an error of write().
  const bool pipe_ignored = std::signal(SIGPIPE, SIG_IGN) == SIG_IGN;
  const SystemClock clock;
  const Result<Invocation> invocation = parse_options(argc, argv, clock);
  if (!invocation) return report_error(invocation.error());
  if (invocation->options && invocation->options->verb == Verb::kRun) {
    const Result<int> code = run_watched(*invocation->options, pipe_ignored, clock);
    return code ? *code : report_error(code.error());
  }
  const Result<void> done =
      invocation->options ? run_verb(*invocation->options, clock) : write_output(STDOUT_FILENO, invocation->text);
  return done ? 0 : report_error(done.error());
}

}  // namespace stackwatch
