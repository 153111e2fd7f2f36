// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "daemon/alerting/message.h"

namespace stackwatch {
namespace {

constexpr std::string_view kCut = "…";

struct Character {
  char32_t code = 0;
  size_t length = 0;  ///< bytes; 0 where the text is no UTF-8 here
};

/// The character at the beginning of a text that is not empty. Strict: no overlong forms, no surrogates.
Character decode(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return {};
  char32_t code = lead & (0xffU >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code = (code << 6) | (byte(i) & 0x3f);
  }
  const char32_t smallest = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;
  if (code < smallest || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return {};
  return {code, length};
}

/// Unicode's format characters and line separators that change how the rest of a line looks, and no-characters.
bool misleads(char32_t code) {
  struct Range {
    char32_t first, last;
  };
  static constexpr std::array kRanges = {Range{0xad, 0xad},      Range{0x61c, 0x61c},   Range{0x180e, 0x180e},
                                         Range{0x200b, 0x200f},  Range{0x2028, 0x202e}, Range{0x2060, 0x206f},
                                         Range{0xfeff, 0xfeff},  Range{0xfff9, 0xfffb}, Range{0xfffe, 0xffff},
                                         Range{0xe0000, 0xe007f}};
  return std::ranges::any_of(kRanges, [&](const Range& r) { return code >= r.first && code <= r.last; });
}

bool inside_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

std::string cut_in_the_middle(const std::string& text, size_t max_bytes) {
  const size_t room = std::max<size_t>(max_bytes, 16) - kCut.size();
  size_t head = room - room / 2;
  size_t tail = text.size() - room / 2;
  while (head > 0 && inside_character(text[head])) --head;
  while (tail < text.size() && inside_character(text[tail])) ++tail;
  return text.substr(0, head).append(kCut).append(text, tail);
}

}  // namespace

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character c = decode(text);
    const bool control = c.code < 0x20 || (c.code >= 0x7f && c.code < 0xa0);
    if (c.length == 0 || control) {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}",
                     c.length == 0 ? static_cast<unsigned char>(text[0]) : static_cast<unsigned>(c.code));
    } else if (misleads(c.code)) {
      fmt::format_to(std::back_inserter(out), "\\u{{{:04X}}}", static_cast<unsigned>(c.code));
    } else {
      out.append(text, 0, c.length);
    }
    text.remove_prefix(std::max<size_t>(c.length, 1));
  }
  return out.size() <= std::max<size_t>(max_bytes, 16) ? out : cut_in_the_middle(out, max_bytes);
}

}  // namespace stackwatch
