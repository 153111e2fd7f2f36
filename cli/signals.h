// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "cli/command.h"
#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// Takes the signals that a command must get and that must not end us, from a descriptor. Those that were ignored when
/// we were started stay ignored (nohup). Blocks them in this thread: open it before any other thread exists.
class SignalInbox {
 public:
  struct Signal {
    int number = 0;
    bool from_terminal = false;  ///< a key: the whole process group, and so the command, has got it already
  };

  [[nodiscard]] static Result<SignalInbox> open();

  /// Readable when next() has something.
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::optional<Signal> next();
  /// How a child must find its signals; `pipe_ignored` is the caller's to tell.
  [[nodiscard]] const InheritedSignals& inherited() const { return inherited_; }

 private:
  SignalInbox() = default;
  UniqueFd fd_;
  InheritedSignals inherited_;
};

/// Interrupt, quit, terminate, hang up: what ends a program that does not care.
[[nodiscard]] bool asks_to_end(int signal);

/// Gives the command a signal that we got, and stops ourselves where it stops: a shell must see its job stopped.
void pass_on(const SignalInbox::Signal& signal, HeldCommand& command);

}  // namespace stackwatch
