// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace stackwatch {

/// What a user wrote, for one line of an error message: in quotes, control bytes as \xNN, cut after 80 bytes.
[[nodiscard]] std::string in_quotes(std::string_view text);

/// The same without the quotes and without cutting.
[[nodiscard]] std::string printable(std::string_view text);

/// `did you mean "frequency"?` where one of `known` is at most a third of the name away (insert, remove, replace,
/// swap), else `known: a, b, c`; empty where nothing is known.
[[nodiscard]] std::string suggestion(std::string_view name, std::span<const std::string_view> known);

/// The shortest text that reads back as the same number.
[[nodiscard]] std::string format_number(double value);

}  // namespace stackwatch
