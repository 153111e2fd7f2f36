// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <termios.h>

#include <cstddef>
#include <optional>
#include <string_view>

#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

struct TerminalSize {
  size_t rows = 24;
  size_t columns = 80;
};
/// What the terminal says; 24 x 80 where it says nothing.
[[nodiscard]] TerminalSize terminal_size(int fd);

/// Takes a terminal over for a screen that is drawn again and again: the alternate screen, no cursor, keys without
/// Enter. Given back at the end, and while the program is suspended. The signals that would end or suspend the program
/// are taken by wait() meanwhile. One per program.
class Screen {
 public:
  enum class Event { kTimeout, kQuit, kRedraw };

  /// Standard input and output must be terminals.
  [[nodiscard]] static Result<Screen> open();
  Screen(Screen&&) noexcept = default;
  Screen& operator=(Screen&&) = delete;
  ~Screen();

  /// Replaces what is shown.
  [[nodiscard]] Result<void> draw(std::string_view text) const;
  /// Until a key (q), a signal or the timeout.
  [[nodiscard]] Event wait(double timeout_s);

 private:
  Screen() = default;
  void enter() const;
  void leave() const;
  [[nodiscard]] Event on_signal() const;
  [[nodiscard]] static Event on_key();

  UniqueFd signals_;
  termios saved_{};
};

}  // namespace stackwatch
