// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/count_options.h"
#include "core/result.h"

namespace CLI {
class App;
}

namespace stackwatch {

/// The options of `count` as they are typed.
struct CountArguments {
  std::vector<int32_t> pids;
  std::vector<std::string> command;
  bool children = false;
  bool no_children = false;
  std::vector<std::string> probes = {"on_cpu"};
  double frequency_hz = 99;
  std::string duration;
  std::string interval;
  std::string format = "tree";
  bool json = false;
  std::string output;
};

/// Cuts a command (what is behind the first "--") off the command line of a verb that takes one; how many arguments are
/// left. Done before the options are read: the command's own are none of ours.
[[nodiscard]] int take_command(int argc, const char* const* argv, std::vector<std::string>& command);

void add_count(CLI::App& app, CountArguments& typed);
/// Error: of kind kUsage.
[[nodiscard]] Result<CountOptions> understand_count(const CountArguments& typed);

}  // namespace stackwatch
