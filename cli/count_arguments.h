// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/count_options.h"
#include "core/result.h"

namespace stackwatch {

/// What a command line asks for: counting, or a text (help) to be printed.
struct CountInvocation {
  std::optional<CountOptions> options;
  std::string text;
};

struct RecordInvocation {
  std::optional<TargetOptions> options;
  std::string text;
};

/// Reads a command line of `stackwatch count`. What is behind the first "--" is the command with its own options.
/// Error: of kind kUsage.
[[nodiscard]] Result<CountInvocation> parse_count(int argc, const char* const* argv);
/// The same of `stackwatch record`.
[[nodiscard]] Result<RecordInvocation> parse_record(int argc, const char* const* argv);

}  // namespace stackwatch
