// SPDX-License-Identifier: Apache-2.0
#include "cli/count_arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <optional>
#include <string_view>

#include "cli/standalone.h"
#include "config/rule.h"
#include "config/units.h"

namespace stackwatch {
namespace {

/// The options of `count` as they are typed.
struct CountArguments {
  std::vector<int32_t> pids;
  std::vector<std::string> command;
  bool all = false;
  bool children = false;
  bool no_children = false;
  bool mmap = false;
  std::vector<std::string> probes = {"on_cpu"};
  std::optional<double> frequency_hz;
  std::string duration;
  std::string interval;
  std::string format = "tree";
  bool json = false;
  std::string output;
};

/// Counts are taken out of the kernel no more often than this.
constexpr double kMinIntervalS = 0.1;

/// A number of seconds, or a duration with its unit.
Result<double> seconds_of(const std::string& option, const std::string& text, double at_least) {
  double seconds = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, seconds, std::chars_format::fixed);
  if (error != std::errc{} || stop != end) {
    const Result<double> duration = parse_duration(text);
    if (!duration) {
      return fail(ErrorKind::kUsage, option + " " + text, "it is no number of seconds", "like 5, 0.5, 10s or 2m");
    }
    seconds = *duration;
  }
  if (!(seconds >= at_least && seconds > 0 && seconds <= kMaxDurationS)) {
    return fail(ErrorKind::kUsage, option + " " + text, "it is out of range",
                at_least > 0 ? "at least 0.1 seconds" : "more than 0 seconds");
  }
  return seconds;
}

Result<TargetOptions> understand_target(const CountArguments& typed, const char* verb) {
  const std::string what(verb);
  TargetOptions target;
  const int given = (typed.pids.empty() ? 0 : 1) + (typed.command.empty() ? 0 : 1) + (typed.all ? 1 : 0);
  if (given != 1) {
    return fail(ErrorKind::kUsage, what,
                given == 0 ? "it names neither a process nor a command" : "it names more than one kind of target",
                "stackwatch " + what + " -p PID, or stackwatch " + what + " -- COMMAND");
  }
  if (typed.children && typed.no_children) {
    return fail(ErrorKind::kUsage, what, "--children and --no-children exclude each other");
  }
  for (const int32_t pid : typed.pids) {
    if (std::ranges::find(target.pids, pid) == target.pids.end()) target.pids.push_back(pid);
  }
  target.command = typed.command;
  target.all = typed.all;
  if (!target.command.empty() && target.command.front().empty()) {
    return fail(ErrorKind::kUsage, what, "the command is empty");
  }
  target.children = typed.children || (!typed.command.empty() && !typed.no_children);
  auto probes = parse_probes(typed.probes);
  if (!probes) return Failure(probes.error());
  target.probes = std::move(*probes);
  target.mmap = typed.mmap;
  if (typed.mmap && std::ranges::find(target.probes, ProbeKind::kMemory) == target.probes.end()) {
    return fail(ErrorKind::kUsage, what + " --mmap", "it is a part of the probe memory", "--probe memory --mmap");
  }
  if (typed.all && target.probes != std::vector{ProbeKind::kOnCpu}) {
    return fail(ErrorKind::kUsage, what + " --all", "the survey of all processes counts on_cpu alone",
                "name the processes for more: -p PID");
  }
  target.frequency_hz = typed.frequency_hz.value_or(typed.all ? SurveyConfig{}.frequency_hz : target.frequency_hz);
  if (!typed.duration.empty()) {
    auto seconds = seconds_of("-d", typed.duration, 0);
    if (!seconds) return Failure(seconds.error());
    target.duration_s = *seconds;
  }
  target.output = typed.output;
  return target;
}

void add_target_options(CLI::App& verb, CountArguments& typed) {
  verb.add_option("-p,--pid", typed.pids, "These processes, with all their threads: -p 12 -p 34, or -p 12,34")
      ->type_name("PID")
      ->delimiter(',')
      ->check(CLI::Range(int32_t{1}, std::numeric_limits<int32_t>::max()));
  verb.add_flag("--children", typed.children, "Their descendants too: what a command does without asking");
  verb.add_flag("--no-children", typed.no_children, "A command alone, without its descendants");
  verb.add_option("--probe", typed.probes,
                  "on_cpu, off_cpu (blocked and run_queue), memory, page_fault; several with ,")
      ->type_name("PROBES")
      ->delimiter(',')
      ->capture_default_str();
  verb.add_flag("--mmap", typed.mmap,
                "memory: also what they map themselves (mmap, munmap, mremap); each system call of the machine pays");
  verb.add_option("-F,--frequency", typed.frequency_hz, "Samples a second of on_cpu (default: 99; with --all 19)")
      ->type_name("HZ")
      ->check(CLI::Range(kMinFrequencyHz, kMaxFrequencyHz));
  verb.add_option("-d,--duration", typed.duration,
                  "At most so long (default: until Ctrl-C, or until they have ended); a command runs on")
      ->type_name("SECONDS");
}

/// The options of the verb are those before the first "--": what is behind it belongs to the command.
int take_command(int argc, const char* const* argv, std::vector<std::string>& command) {
  for (int i = 2; i < argc; ++i) {
    if (std::string_view(argv[i]) != "--") continue;
    command.assign(argv + i + 1, argv + argc);
    return i;
  }
  return argc;
}

void add_options(CLI::App& verb, CountArguments& typed) {
  add_target_options(verb, typed);
  verb.add_option("-i,--interval", typed.interval, "Print every so many seconds instead of once")->type_name("SECONDS");
  verb.add_option("--format", typed.format, "How to print it")
      ->check(CLI::IsMember({"classic", "tree", "folded", "json"}))
      ->capture_default_str();
  verb.add_flag("--json", typed.json, "The same as --format json: one document, with -i one line each");
  verb.add_option("-o,--output", typed.output, "Into a file instead of standard output")->type_name("FILE");
  verb.footer(
      "A command is attached before its first instruction, gets the signals, and gives its exit code.\n"
      "Example:\n  stackwatch count -p 4711 -d 10 --format folded > redis.folded\n"
      "  stackwatch count -F 499 -- make -j2");
}

Result<CountOptions> understand_count(const CountArguments& typed) {
  static const std::map<std::string, CountFormat> kFormats = {{"classic", CountFormat::kClassic},
                                                              {"tree", CountFormat::kTree},
                                                              {"folded", CountFormat::kFolded},
                                                              {"json", CountFormat::kJson}};
  CountOptions options;
  auto target = understand_target(typed, "count");
  if (!target) return Failure(target.error());
  options.target = std::move(*target);
  options.format = typed.json ? CountFormat::kJson : kFormats.at(typed.format);
  if (!typed.interval.empty()) {
    auto seconds = seconds_of("-i", typed.interval, kMinIntervalS);
    if (!seconds) return Failure(seconds.error());
    options.interval_s = *seconds;
  }
  return options;
}

std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

/// Reads the options in front of a command; the help where that is asked for, else nothing.
Result<std::string> parse_verb(CLI::App& verb, int argc, const char* const* argv, CountArguments& typed) {
  const int own = take_command(argc, argv, typed.command);
  try {
    verb.parse(own - 1, argv + 1);  // the verb stands for the program's name
  } catch (const CLI::CallForHelp&) {
    return verb.help();
  } catch (const CLI::ParseError& error) {
    return fail(ErrorKind::kUsage, "command line", one_line(error.what()), "see " + verb.get_name() + " --help");
  }
  return std::string();
}

std::string description_of(std::string_view verb) {
  return std::ranges::find(standalone_verbs(), verb, &StandaloneVerb::name)->description;
}

}  // namespace

Result<CountInvocation> parse_count(int argc, const char* const* argv) {
  CountArguments typed;
  CLI::App verb(description_of("count"), "stackwatch count");
  add_options(verb, typed);
  auto help = parse_verb(verb, argc, argv, typed);
  if (!help) return Failure(help.error());
  if (!help->empty()) return CountInvocation{std::nullopt, std::move(*help)};
  auto options = understand_count(typed);
  if (!options) return Failure(options.error());
  return CountInvocation{std::move(*options), ""};
}

Result<RecordInvocation> parse_record(int argc, const char* const* argv) {
  CountArguments typed;
  CLI::App verb(description_of("record"), "stackwatch record");
  add_target_options(verb, typed);
  verb.add_flag("--all", typed.all, "Every process that uses the CPU for some seconds, as the daemon's survey does");
  verb.add_option("-o,--output", typed.output, "The capture; - is standard output")->type_name("FILE")->required();
  verb.footer(
      "A command is attached before its first instruction, gets the signals, and gives its exit code.\n"
      "Example:\n  stackwatch record -p 4711 -d 600 -o redis.capture\n"
      "  stackwatch replay redis.capture");
  auto help = parse_verb(verb, argc, argv, typed);
  if (!help) return Failure(help.error());
  if (!help->empty()) return RecordInvocation{std::nullopt, std::move(*help)};
  auto options = understand_target(typed, "record");
  if (!options) return Failure(options.error());
  return RecordInvocation{std::move(*options), ""};
}

}  // namespace stackwatch
