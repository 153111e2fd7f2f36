// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/client.h"
#include "cli/options.h"
#include "cli/table.h"
#include "core/result.h"

namespace stackwatch {

/// The parameters of GetRanking for a command line; `rows` where it does not say how many.
[[nodiscard]] std::string ranking_parameters(const Options& options, size_t rows);

/// The answer to that as a table. `max_columns` cuts the lines; 0 does not.
[[nodiscard]] std::string render_top(const JsonValue& reply, const Options& options, const Style& style,
                                     size_t max_columns = 0);

/// Shows the ranking on the terminal, anew each tick of the daemon, until the person has seen enough.
[[nodiscard]] Result<void> run_live_top(Client& client, const Options& options, const Style& style);

}  // namespace stackwatch
