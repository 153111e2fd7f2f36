// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"

namespace stackwatch {

enum class Verb {
  kStatus,
  kTop,
  kAttachments,
  kStacks,
  kAlerts,
  kShow,
  kWatchAdd,
  kWatchRemove,
  kWatchList,
  kRun,
  kReplay,
  kImport,
  kDoctor,
  kDetect
};
enum class StacksFormat { kTree, kFolded, kJson };

/// A watch rule as it is asked for, checked; the daemon completes it.
struct WatchRequest {
  std::optional<std::string> id;
  std::optional<std::string> name;
  std::optional<std::string> exe;
  std::optional<std::string> cmdline;
  std::optional<std::string> cgroup;
  std::optional<std::string> unit;
  std::optional<std::string> user;
  std::optional<int32_t> pid;
  std::vector<std::string> probes;  ///< names; empty: the daemon's default
  std::optional<double> frequency_hz;
  bool children = false;
  bool mmap = false;
};

/// A checked command line. Members that the verb does not know keep their defaults.
struct Options {
  Verb verb = Verb::kStatus;
  std::string socket;
  bool json = false;

  std::optional<size_t> top_rows;  ///< none: what fits on the screen, 20 elsewhere
  std::string top_by;              ///< empty: the score; "stacks": no processes, but unusual stacks
  bool once = false;

  int32_t pid = 0;
  std::string probe = "on_cpu";
  double stacks_since_s = 0;  ///< 0: as far back as is kept
  bool series = false;
  StacksFormat format = StacksFormat::kTree;

  std::string alerts_since;  ///< ISO 8601 in UTC; empty: all
  std::string alerts_state;  ///< empty: every state
  bool follow = false;

  std::string alert_id;

  WatchRequest watch;                ///< watch add; run, without a matcher
  std::string watch_id;              ///< watch remove
  std::vector<std::string> command;  ///< run; at least one word

  std::string input;        ///< replay, import: a file; "-" is standard input
  std::string output;       ///< import
  std::string config_file;  ///< replay; empty: the built-in defaults
  std::string import_event;
  std::optional<double> import_frequency_hz;
  double import_tick_s = 1;
  uint64_t import_started_ns = 0;  ///< CLOCK_REALTIME
  bool skip_bad_lines = false;

  std::vector<std::string> columns;  ///< detect; empty: all
};

/// What a command line asks for: a verb, or a text (help, version) to be printed.
struct Invocation {
  std::optional<Options> options;
  std::string text;
};

/// Reads a command line and the environment's STACKWATCH_SOCKET. Error: of kind kUsage always.
[[nodiscard]] Result<Invocation> parse_options(int argc, const char* const* argv, const Clock& clock);

}  // namespace stackwatch
