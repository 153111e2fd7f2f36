// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cli/client.h"
#include "cli/options.h"
#include "cli/table.h"
#include "core/result.h"

namespace stackwatch {

/// When a process began (CLOCK_BOOTTIME), from the text of /proc/PID/stat; nothing where that makes no sense.
[[nodiscard]] std::optional<uint64_t> start_time_of_stat(std::string_view stat, uint64_t ticks_per_s);
/// The same of a process that our own /proc shows; nothing where it shows none.
[[nodiscard]] std::optional<uint64_t> start_time_of(int32_t pid);

/// Has the daemon watch; the id of the rule. A pid goes with the time that its process began, so that the daemon can
/// tell it from one of the same pid in another pid namespace.
[[nodiscard]] Result<std::string> add_watch(Client& client, const WatchRequest& request);
/// Until the daemon counts everything that was asked for of the process: it loads programs that nobody has wanted
/// before, which takes some 100 ms each. After kLoadPatienceS it is given up: `stackwatch attachments` tells what is
/// missing.
[[nodiscard]] Result<void> wait_until_loaded(Client& client, int32_t pid, const Clock& clock);
[[nodiscard]] Result<void> remove_watch(Client& client, const std::string& id);

[[nodiscard]] Result<void> run_watch_add(Client& client, const Options& options);
[[nodiscard]] Result<void> run_watch_remove(Client& client, const Options& options);
[[nodiscard]] Result<void> run_watch_list(Client& client, const Options& options, const Style& style);

}  // namespace stackwatch
