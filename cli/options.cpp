// SPDX-License-Identifier: Apache-2.0
#include "cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <map>
#include <utility>

#include "capture/perf_script.h"
#include "cli/standalone.h"
#include "config/rule.h"
#include "config/units.h"
#include "core/alert.h"
#include "core/time_text.h"
#include "daemon/control/interface.h"

namespace stackwatch {
namespace {

/// More processes than a machine has (pid_max is at most 2^22).
constexpr size_t kMaxRows = size_t{1} << 22U;

/// The options as they are typed, before they are understood.
struct Typed {
  Options options;
  std::string stacks_since;
  std::string alerts_since;
  std::string format = "tree";
  std::string import_tick;
  std::string import_started;
};

/// Read here and not by CLI11, which lets the environment of the verbs that are not called win over the option.
std::string default_socket() {
  const char* path = std::getenv("STACKWATCH_SOCKET");
  return path != nullptr && *path != '\0' ? path : std::string(kDefaultSocketPath);
}

CLI::App& add_verb(CLI::App& app, Typed& typed, const char* name, const char* description, const char* example) {
  CLI::App& verb = *app.add_subcommand(name, description);
  verb.footer("Example:\n  " + std::string(example));
  verb.add_option("--socket", typed.options.socket, "The daemon's control socket; also STACKWATCH_SOCKET")
      ->type_name("PATH")
      ->capture_default_str();
  verb.add_flag("--json", typed.options.json, "One JSON document (JSON lines with --follow)");
  return verb;
}

void add_top(CLI::App& app, Typed& typed) {
  CLI::App& top =
      add_verb(app, typed, "top", "The ranking of all processes, or unusual stacks, refreshed each tick on a terminal",
               "stackwatch top -n 5 --by rss --once\n  stackwatch top --by stacks");
  top.add_option("-n", typed.options.top_rows, "So many rows")->type_name("N")->check(CLI::Range(size_t{1}, kMaxRows));
  top.add_option("--by", typed.options.top_by,
                 "Order by a metric instead of the score; stacks: stacks of unusual frequency instead")
      ->check(CLI::IsMember({"on_cpu", "run_queue", "switches", "faults", "rss", "io", "stacks"}));
  top.add_flag("--once", typed.options.once, "Print it once and end");
}

void add_stacks(CLI::App& app, Typed& typed) {
  CLI::App& stacks = add_verb(app, typed, "stacks", "The call stacks of one attached process",
                              "stackwatch stacks 4711 --since 10m --format folded > redis.folded");
  stacks.add_option("PID", typed.options.pid, "The process")
      ->required()
      ->check(CLI::Range(int32_t{1}, std::numeric_limits<int32_t>::max()));
  stacks.add_option("--probe", typed.options.probe, "What to show; off_cpu is blocked and run_queue together")
      ->check(CLI::IsMember({"on_cpu", "off_cpu", "blocked", "run_queue", "memory", "page_fault"}))
      ->capture_default_str();
  stacks.add_option("--since", typed.stacks_since, "How far back, like 30s, 10m, 2h (default: all that is kept)")
      ->type_name("DUR");
  stacks.add_flag("--series", typed.options.series, "The largest stacks over time");
  stacks.add_option("--format", typed.format, "How to print them")
      ->check(CLI::IsMember({"tree", "folded", "json"}))
      ->capture_default_str();
}

void add_alerts(CLI::App& app, Typed& typed) {
  CLI::App& alerts =
      add_verb(app, typed, "alerts", "What has changed, newest first", "stackwatch alerts --since 2h --state firing");
  alerts.add_option("--since", typed.alerts_since, "From this time on: 10m (ago), 2026-11-22, '2026-11-22 03:12'")
      ->type_name("T");
  alerts.add_option("--state", typed.options.alerts_state, "Only these")
      ->check(CLI::IsMember({"pending", "firing", "resolved"}));
  alerts.add_flag("--follow,-f", typed.options.follow,
                  "Wait for changes and print each; earlier ones come first only where --since is given");
}

void add_rule_options(CLI::App& verb, Typed& typed) {
  WatchRequest& watch = typed.options.watch;
  verb.add_option("--probe", watch.probes,
                  "on_cpu (the default), off_cpu (blocked and run_queue), memory, page_fault; several with ,")
      ->type_name("PROBES")
      ->delimiter(',');
  verb.add_option("-F,--frequency", watch.frequency_hz, "Samples of on_cpu a second (default: 99)")->type_name("HZ");
  verb.add_flag("--mmap", watch.mmap, "memory: also what they map themselves; each system call of the machine pays");
}

void add_watch_add(CLI::App& watch, Typed& typed) {
  CLI::App& add = add_verb(watch, typed, "add", "Watch more processes, until the rule is removed or the daemon ends",
                           "stackwatch watch add --name 'redis*' --probe on_cpu,off_cpu --children");
  WatchRequest& rule = typed.options.watch;
  add.add_option("--name", rule.name, "Name of the process; this and those below: globs, all that are given must hold")
      ->type_name("GLOB");
  add.add_option("--exe", rule.exe, "Path of its executable")->type_name("GLOB");
  add.add_option("--cmdline", rule.cmdline, "Its arguments, with blanks between them")->type_name("GLOB");
  add.add_option("--cgroup", rule.cgroup, "Its cgroup")->type_name("GLOB");
  add.add_option("--unit", rule.unit, "Its systemd unit")->type_name("GLOB");
  add.add_option("--user", rule.user, "Its user")->type_name("GLOB");
  add.add_option("--pid", rule.pid, "One process; the rule goes when it and the children that it brought in have ended")
      ->type_name("PID")
      ->check(CLI::Range(int32_t{1}, std::numeric_limits<int32_t>::max()));
  add_rule_options(add, typed);
  add.add_flag("--children", rule.children, "With all descendants");
  add.add_option("--id", rule.id, "What the rule is called (default: added-N)");
}

void add_watch(CLI::App& app, Typed& typed) {
  CLI::App& watch = *app.add_subcommand("watch", "Watch rules at run time: add, remove, list");
  watch.footer("Example:\n  stackwatch watch add --name redis-server --id redis\n  stackwatch watch remove redis");
  watch.require_subcommand(1);
  add_watch_add(watch, typed);
  add_verb(watch, typed, "remove", "Remove a rule that was added at run time", "stackwatch watch remove added-1")
      .add_option("ID", typed.options.watch_id, "As `stackwatch watch list` prints it")
      ->required();
  add_verb(watch, typed, "list", "All watch rules, those of the configuration first", "stackwatch watch list");
}

void add_run(CLI::App& app, Typed& typed) {
  CLI::App& run =
      *app.add_subcommand("run", "Run a command that the daemon watches with its children, from the first instruction");
  run.add_option("--socket", typed.options.socket, "The daemon's control socket; also STACKWATCH_SOCKET")
      ->type_name("PATH")
      ->capture_default_str();
  add_rule_options(run, typed);
  run.footer(
      "COMMAND stands behind --. It gets the signals, and its exit code is passed on. While it runs: stackwatch "
      "attachments.\n"
      "Example:\n  stackwatch run --probe on_cpu,off_cpu -- make -j2");
}

/// The options of `run` are those before the first "--": what is behind it belongs to the command.
int take_command(int argc, const char* const* argv, std::vector<std::string>& command) {
  if (argc < 2 || std::string_view(argv[1]) != "run") return argc;
  for (int i = 2; i < argc; ++i) {
    if (std::string_view(argv[i]) != "--") continue;
    command.assign(argv + i + 1, argv + argc);
    return i;
  }
  return argc;
}

/// Verbs that need no daemon.
CLI::App& add_offline_verb(CLI::App& app, const char* name, const char* description, const char* example) {
  CLI::App& verb = *app.add_subcommand(name, description);
  verb.footer("Example:\n  " + std::string(example));
  return verb;
}

void add_replay(CLI::App& app, Typed& typed) {
  CLI::App& replay = add_offline_verb(app, "replay", "Run the detectors over a capture, as fast as it goes",
                                      "stackwatch replay --json night.capture");
  replay.add_option("FILE", typed.options.input, "The capture; - is standard input")->required();
  replay.add_option("--config", typed.options.config_file, "The daemon's configuration (default: what is built in)")
      ->type_name("FILE");
  replay.add_flag("--json", typed.options.json, "A JSON line for each alert that fires or is resolved");
}

void add_import(CLI::App& app, Typed& typed) {
  CLI::App& import = add_offline_verb(app, "import", "Make a capture of what another profiler has recorded",
                                      "perf record -a -g -F 997 -- sleep 600; perf script -F +pid |\n"
                                      "    stackwatch import perf-script - -o perf.capture");
  import.require_subcommand(1);
  CLI::App& perf = *import.add_subcommand("perf-script", "The text of `perf script`");
  perf.footer("Example:\n  stackwatch import perf-script perf.txt -o perf.capture");
  perf.add_option("FILE", typed.options.input, "The text, also compressed by zstd; - is standard input")->required();
  perf.add_option("-o,--output", typed.options.output, "The capture; - is standard output")
      ->type_name("FILE")
      ->required();
  perf.add_option("--event", typed.options.import_event,
                  "The event to take (default: cpu-clock, task-clock, cycles or cpu-cycles, else the only one)");
  perf.add_option("-F,--frequency", typed.options.import_frequency_hz,
                  "How often a busy CPU was sampled (default: by the periods or the distances of samples)")
      ->type_name("HZ")
      ->check(CLI::Range(kLeastPerfHz, kMostPerfHz));
  perf.add_option("--tick", typed.import_tick, "Length of a tick, like 500ms, 1s (default: 1s)")->type_name("DUR");
  perf.add_option("--started", typed.import_started,
                  "When the first sample was taken, like 2026-11-22T12:00:00Z; the text does not tell")
      ->type_name("TIME");
  perf.add_flag("--skip-bad-lines", typed.options.skip_bad_lines, "Count lines that make no sense instead of ending");
}

void add_doctor(CLI::App& app, Typed& typed) {
  CLI::App& doctor = add_offline_verb(
      app, "doctor", "What this kernel and these privileges allow, and what to do about it", "sudo stackwatch doctor");
  doctor.add_option("--socket", typed.options.socket, "The daemon's control socket; also STACKWATCH_SOCKET")
      ->type_name("PATH")
      ->capture_default_str();
  doctor.add_flag("--json", typed.options.json, "One JSON document");
}

void add_detect(CLI::App& app, Typed& typed) {
  CLI::App& detect = add_offline_verb(app, "detect", "Score each row of a series in CSV by what came before it",
                                      "stackwatch detect --columns cpu,memory < series.csv");
  detect
      .add_option("--columns", typed.options.columns,
                  "Names of the columns to look at, with commas (default: all but the first, which is the timestamp)")
      ->type_name("NAMES")
      ->delimiter(',');
}

/// A duration before now, or a time; as ISO 8601 in UTC.
Result<std::string> since_time(const std::string& text, const Clock& clock) {
  if (const auto time_ns = parse_time(text, ZonelessTime::kLocal)) return format_utc(*time_ns);
  const Result<double> ago_s = parse_duration(text);
  if (!ago_s) {
    return fail(ErrorKind::kUsage, "--since " + text, "it is neither a duration nor a time",
                "like 10m, 2026-11-22 or '2026-11-22 03:12:00'");
  }
  const auto now_s = static_cast<double>(clock.realtime_ns()) * 1e-9;
  return format_utc(static_cast<uint64_t>(std::max(0.0, now_s - *ago_s) * 1e9));
}

/// Says what is wrong with a rule without asking the daemon.
Result<void> check_rule(const WatchRequest& request, std::optional<int32_t> pid) {
  WatchRule rule;
  rule.id = request.id.value_or("");
  rule.name = request.name;
  rule.exe = request.exe;
  rule.cmdline = request.cmdline;
  rule.cgroup = request.cgroup;
  rule.unit = request.unit;
  rule.user = request.user;
  rule.pid = pid;
  rule.frequency_hz = request.frequency_hz.value_or(rule.frequency_hz);
  if (!request.probes.empty()) {
    if (const auto probes = parse_probes(request.probes); !probes) return Failure(probes.error());
  }
  if (const auto checked = checked_rule(std::move(rule)); !checked) {
    Error error = checked.error();
    error.what = "watch rule" + (error.what.empty() ? "" : ", " + error.what);
    if (error.hint.empty()) error.hint = "see stackwatch watch add --help";
    return Failure(std::move(error));
  }
  return {};
}

Result<void> check_watch(const Options& options) {
  if (options.verb == Verb::kWatchAdd) return check_rule(options.watch, options.watch.pid);
  if (options.verb != Verb::kRun) return {};
  if (options.command.empty() || options.command.front().empty()) {
    return fail(ErrorKind::kUsage, "run", "it names no command", "stackwatch run -- COMMAND");
  }
  return check_rule(options.watch, 1);  // which pid it will be is not known yet
}

Result<Options> understand(const Typed& typed, const Clock& clock) {
  static const std::map<std::string, StacksFormat> kFormats = {
      {"tree", StacksFormat::kTree}, {"folded", StacksFormat::kFolded}, {"json", StacksFormat::kJson}};
  Options options = typed.options;
  if (auto checked = check_watch(options); !checked) return Failure(checked.error());
  options.format = options.json ? StacksFormat::kJson : kFormats.at(typed.format);
  if (options.series && options.format == StacksFormat::kFolded) {
    return fail(ErrorKind::kUsage, "--series", "the folded format has one value per stack",
                "use --format tree or json");
  }
  if (!typed.stacks_since.empty()) {
    const Result<double> since_s = parse_duration(typed.stacks_since);
    if (!since_s) return Failure(since_s.error());
    options.stacks_since_s = *since_s;
  }
  if (!typed.alerts_since.empty()) {
    Result<std::string> since = since_time(typed.alerts_since, clock);
    if (!since) return Failure(since.error());
    options.alerts_since = std::move(*since);
  }
  if (!typed.import_tick.empty()) {
    const Result<double> tick_s = parse_duration(typed.import_tick);
    if (!tick_s) return Failure(tick_s.error());
    if (*tick_s < 0.01 || *tick_s > 3600) {
      return fail(ErrorKind::kUsage, "--tick " + typed.import_tick, "it is out of range", "between 10ms and 1h");
    }
    options.import_tick_s = *tick_s;
  }
  if (!typed.import_started.empty()) {
    const auto started_ns = parse_time(typed.import_started, ZonelessTime::kLocal);
    if (!started_ns) {
      return fail(ErrorKind::kUsage, "--started " + typed.import_started, "it is no time", "like 2026-11-22T12:00:00Z");
    }
    options.import_started_ns = *started_ns;
  }
  return options;
}

std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

Failure wrong_use(const CLI::App& app, const CLI::ParseError& error, int argc, const char* const* argv) {
  const auto verbs = app.get_subcommands();
  const std::string help = "see stackwatch " + (verbs.empty() ? "" : verbs.front()->get_name() + " ") + "--help";
  if (verbs.empty() && argc > 1 && argv[1][0] != '-') {
    return fail(ErrorKind::kUsage, argv[1], "there is no such verb", help);
  }
  if (verbs.empty() && argc <= 1) return fail(ErrorKind::kUsage, "command line", "it names no verb", help);
  return fail(ErrorKind::kUsage, "command line", one_line(error.what()), help);
}

}  // namespace

Result<Invocation> parse_options(int argc, const char* const* argv, const Clock& clock) {
  Typed typed;
  typed.options.socket = default_socket();
  CLI::App app("Which process has changed, in which call stack, since when, by how much.", "stackwatch");
  app.set_version_flag("--version", "stackwatch " STACKWATCH_VERSION);
  app.require_subcommand(1);
  app.footer("Example:\n  stackwatch top --once");
  add_verb(app, typed, "status", "What the daemon does, its load, its losses", "stackwatch status --json");
  add_top(app, typed);
  add_verb(app, typed, "attachments", "What is attached to whom, since when, why", "stackwatch attachments");
  add_stacks(app, typed);
  add_alerts(app, typed);
  add_verb(app, typed, "show", "The evidence of one alert", "stackwatch show bd9f59484791")
      .add_option("ALERT_ID", typed.options.alert_id, "As `stackwatch alerts` prints it")
      ->required();
  add_watch(app, typed);
  add_run(app, typed);
  for (const StandaloneVerb& verb : standalone_verbs()) {
    if (verb.description != nullptr) app.add_subcommand(std::string(verb.name), verb.description);
  }
  add_replay(app, typed);
  add_import(app, typed);
  add_doctor(app, typed);
  add_detect(app, typed);

  try {
    app.parse(take_command(argc, argv, typed.options.command), argv);
  } catch (const CLI::CallForHelp&) {
    const auto verbs = app.get_subcommands();
    if (verbs.empty()) return Invocation{std::nullopt, app.help()};
    const auto kinds = verbs.front()->get_subcommands();  // of import, watch
    return Invocation{std::nullopt, kinds.empty() ? verbs.front()->help("stackwatch")
                                                  : kinds.front()->help("stackwatch " + verbs.front()->get_name())};
  } catch (const CLI::CallForVersion& version) {
    return Invocation{std::nullopt, std::string(version.what()) + "\n"};
  } catch (const CLI::ParseError& error) {
    return wrong_use(app, error, argc, argv);
  }
  static const std::map<std::string, Verb> kVerbs = {{"status", Verb::kStatus},
                                                     {"top", Verb::kTop},
                                                     {"attachments", Verb::kAttachments},
                                                     {"stacks", Verb::kStacks},
                                                     {"alerts", Verb::kAlerts},
                                                     {"show", Verb::kShow},
                                                     {"add", Verb::kWatchAdd},
                                                     {"remove", Verb::kWatchRemove},
                                                     {"list", Verb::kWatchList},
                                                     {"run", Verb::kRun},
                                                     {"replay", Verb::kReplay},
                                                     {"perf-script", Verb::kImport},
                                                     {"doctor", Verb::kDoctor},
                                                     {"detect", Verb::kDetect}};
  const CLI::App* verb = app.get_subcommands().front();
  if (const auto kinds = verb->get_subcommands(); !kinds.empty()) verb = kinds.front();
  typed.options.verb = kVerbs.at(verb->get_name());
  Result<Options> options = understand(typed, clock);
  if (!options) return Failure(options.error());
  return Invocation{std::move(*options), ""};
}

}  // namespace stackwatch
