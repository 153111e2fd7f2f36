// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace stackwatch {

/// What stands for bytes that are no UTF-8.
inline constexpr char32_t kReplacementCharacter = 0xFFFD;

/// The character at `position`, which moves behind it. A sequence that is cut short, too long, a surrogate or past
/// U+10FFFF gives kReplacementCharacter and moves over the bytes that could have begun a character (at least one).
/// `position` must be inside of `text`.
[[nodiscard]] char32_t next_character(std::string_view text, size_t& position);

/// Characters that act on a terminal or on the order of a line instead of being seen: C0, DEL, C1, line and paragraph
/// separators, bidirectional controls. Names of processes and functions may hold them on purpose.
[[nodiscard]] bool is_control_character(char32_t character);

/// Appends the UTF-8 of a character that next_character() gave.
void append_utf8(std::string& text, char32_t character);

}  // namespace stackwatch
