// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "core/result.h"

namespace stackwatch {

/// A verb that works without a daemon and is a program of its own, since what it links (the engines, libelf) would make
/// every start of the client 0.4 ms slower (of 3.7, measured).
struct StandaloneVerb {
  std::string_view name;
  const char* description;  ///< none: its options are read by parse_options(), which describes it
};
[[nodiscard]] std::span<const StandaloneVerb> standalone_verbs();
[[nodiscard]] bool is_standalone(std::string_view verb);

/// The program with these verbs: the one beside ours (a build tree), else the installed one.
[[nodiscard]] std::string default_standalone_program();

/// Becomes that program, with the same arguments. Returns only where that is impossible.
[[nodiscard]] Failure become_standalone(const char* const* argv);

/// That program: reads the command line, runs the verb, says on standard error what went wrong. The exit code.
[[nodiscard]] int run_standalone(int argc, const char* const* argv);

}  // namespace stackwatch
