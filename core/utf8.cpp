// SPDX-License-Identifier: Apache-2.0
#include "core/utf8.h"

#include <cstdint>

namespace stackwatch {
namespace {

/// How a first byte decides about its sequence (Unicode 15, table 3-7): number of bytes after it, its own bits, and
/// the range that the second byte must be in; all later ones are in 80..BF.
struct Lead {
  int following = 0;
  char32_t bits = 0;
  uint8_t second_low = 0x80;
  uint8_t second_high = 0xBF;
};

Lead lead_of(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1, static_cast<char32_t>(byte & 0x1FU), 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0xD, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {2, static_cast<char32_t>(byte & 0x0FU), 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3, static_cast<char32_t>(byte & 0x07U), 0x80, 0xBF};
  if (byte == 0xF4) return {3, 4, 0x80, 0x8F};
  return {};
}

}  // namespace

char32_t next_character(std::string_view text, size_t& position) {
  const auto first = static_cast<uint8_t>(text[position++]);
  if (first < 0x80) return first;
  const Lead lead = lead_of(first);
  if (lead.following == 0) return kReplacementCharacter;

  char32_t character = lead.bits;
  for (int i = 0; i < lead.following; ++i) {
    if (position >= text.size()) return kReplacementCharacter;
    const auto byte = static_cast<uint8_t>(text[position]);
    const uint8_t low = i == 0 ? lead.second_low : 0x80;
    const uint8_t high = i == 0 ? lead.second_high : 0xBF;
    if (byte < low || byte > high) return kReplacementCharacter;
    character = (character << 6U) | (byte & 0x3FU);
    ++position;
  }
  return character;
}

bool is_control_character(char32_t character) {
  return character < 0x20 || (character >= 0x7F && character <= 0x9F) || character == 0x061C ||
         (character >= 0x200E && character <= 0x200F) || (character >= 0x2028 && character <= 0x202E) ||
         (character >= 0x2066 && character <= 0x2069);
}

void append_utf8(std::string& text, char32_t character) {
  const auto push = [&text](char32_t byte) { text.push_back(static_cast<char>(static_cast<uint8_t>(byte))); };
  if (character < 0x80) {
    push(character);
  } else if (character < 0x800) {
    push(0xC0U | (character >> 6U));
    push(0x80U | (character & 0x3FU));
  } else if (character < 0x10000) {
    push(0xE0U | (character >> 12U));
    push(0x80U | ((character >> 6U) & 0x3FU));
    push(0x80U | (character & 0x3FU));
  } else {
    push(0xF0U | (character >> 18U));
    push(0x80U | ((character >> 12U) & 0x3FU));
    push(0x80U | ((character >> 6U) & 0x3FU));
    push(0x80U | (character & 0x3FU));
  }
}

}  // namespace stackwatch
