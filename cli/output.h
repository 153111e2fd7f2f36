// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "core/result.h"

namespace stackwatch {

/// Writes everything to a descriptor. Error: it could not be written, as on a full disk; a reader that has gone is
/// reader_is_gone().
[[nodiscard]] Result<void> write_output(int fd, std::string_view text);

/// True for the error of a pipe whose reader has seen enough (`| head`): no failure, nothing to be said about.
[[nodiscard]] bool reader_is_gone(const Error& error);

/// Says on standard error what went wrong, made harmless for a terminal, unless nobody is there any more. The exit
/// code.
[[nodiscard]] int report_error(const Error& error);

}  // namespace stackwatch
