// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "core/unique_fd.h"
#include "daemon/sink.h"

namespace stackwatch {

/// The lines that a person in front of a terminal sees for an alert, each ending in a newline.
[[nodiscard]] std::string console_text(const Alert& alert, bool colour);

/// True where `fd` is a terminal and the environment has no (or an empty) NO_COLOR and TERM is not "dumb".
[[nodiscard]] bool wants_colour(int fd);

/// Writes alerts to a terminal, pipe, socket or file. A reader that has gone or does not read costs the text (counted),
/// never a wait and never a signal.
class ConsoleSink final : public Sink {
 public:
  /// `fd` stays the caller's and outlives the sink.
  ConsoleSink(int fd, bool colour);

  [[nodiscard]] std::string_view name() const override { return "console"; }
  /// Fails where nobody reads; the text, or its end, is lost then.
  [[nodiscard]] Result<void> publish(const Alert& alert) override;
  [[nodiscard]] uint64_t lost() const { return lost_; }

 private:
  int fd_;
  UniqueFd own_;  ///< the same pipe or terminal, opened again so that it can be non-blocking; none for others
  bool colour_;
  uint64_t lost_ = 0;
};

}  // namespace stackwatch
