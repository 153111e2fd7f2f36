// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// How a child of ours must find its signals: as we found them when we were started.
struct InheritedSignals {
  sigset_t mask{};
  bool pipe_ignored = false;   ///< SIGPIPE
  bool child_ignored = false;  ///< SIGCHLD
};

/// A command that was forked and waits: not an instruction of it has run until release(). It is in our process group
/// and on our terminal, with our environment, our descriptors 0 to 2 and those that we inherited ourselves, and with
/// the signals that we were started with. If it is not released, or if we die before that, it ends without having run.
class HeldCommand {
 public:
  /// Forks; the caller should have one thread and little memory still. `words` has at least one.
  [[nodiscard]] static Result<HeldCommand> fork(const std::vector<std::string>& words,
                                                const InheritedSignals& inherited);
  HeldCommand(HeldCommand&&) noexcept;
  HeldCommand& operator=(HeldCommand&&) = delete;
  ~HeldCommand();

  /// Lets it execute its program; returns when it does. The errno of execvp() where it cannot; 0.
  [[nodiscard]] int release();

  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Passes a signal on; nothing happens where it has ended.
  void signal(int number);
  /// Its exit code, or 128 and the signal that ended it; nothing while it runs.
  [[nodiscard]] std::optional<int> poll_end();
  /// The same, waiting.
  [[nodiscard]] int wait_end();

 private:
  HeldCommand() = default;
  void note_end(int status);

  pid_t pid_ = -1;
  UniqueFd gate_;    ///< write end; closed: it may go no more
  UniqueFd report_;  ///< read end: errno of execvp(), or its end
  std::optional<int> end_;
};

/// What a shell returns for a program that it could not execute: 127 where there is none, 126 else.
[[nodiscard]] int exec_failure_exit_code(int error_number);

}  // namespace stackwatch
