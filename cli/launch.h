// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/count_options.h"
#include "cli/signals.h"
#include "core/clock.h"
#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// The processes that a verb looks at, from before the first is attached until the last has ended, and the signals
/// that come meanwhile. A command's are passed on to it; without one, those that ask to end set asked_to_stop().
class Launch {
 public:
  /// Checks the pids, or forks the command and holds it. Before any other thread exists and before descriptors are
  /// opened that a command would have to inherit knowingly. Errors: see check_pids(); out of processes.
  [[nodiscard]] static Result<Launch> start(const TargetOptions& target, bool pipe_ignored);

  /// As our /proc shows them.
  [[nodiscard]] const std::vector<int32_t>& pids() const { return pids_; }
  /// Lets the command go; nothing without one. False where it cannot be executed: that has been said on standard error,
  /// and end_code() is 126 or 127.
  [[nodiscard]] bool release();
  /// The command was let go, or there is none.
  [[nodiscard]] bool has_begun() const { return begun_; }

  /// What is to be polled, and what is to be done when poll() has returned. The order of the entries stays the same
  /// between the two.
  void add_to(std::vector<pollfd>& entries) const;
  void handle(std::span<const pollfd> entries);
  /// How many entries add_to() adds.
  [[nodiscard]] size_t entries() const { return 1 + alive_.size(); }

  [[nodiscard]] bool all_ended() const { return !endless_ && alive_.empty(); }
  [[nodiscard]] bool asked_to_stop() const { return asked_to_stop_; }
  [[nodiscard]] bool has_command() const { return command_.has_value(); }
  /// Waits for the command, passing signals on; its exit code. 0 without one.
  [[nodiscard]] int end_code();

 private:
  Launch() = default;
  void take_signals();

  std::optional<SignalInbox> inbox_;
  std::optional<HeldCommand> command_;
  std::string command_name_;
  std::vector<int32_t> pids_;
  std::vector<UniqueFd> alive_;  // pidfds
  std::optional<int> exec_failed_;
  bool begun_ = false;
  bool endless_ = false;  // every process is looked at
  bool asked_to_stop_ = false;
};

/// Waits until one of the entries is ready or the time (CLOCK_MONOTONIC) has come. Whether one is.
[[nodiscard]] bool poll_until(std::vector<pollfd>& entries, uint64_t until_ns, const Clock& clock);

}  // namespace stackwatch
