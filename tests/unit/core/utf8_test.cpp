// SPDX-License-Identifier: Apache-2.0
#include "core/utf8.h"

#include <gtest/gtest.h>

#include <vector>

namespace stackwatch {
namespace {

std::vector<char32_t> characters_of(std::string_view text) {
  std::vector<char32_t> characters;
  for (size_t position = 0; position < text.size();) characters.push_back(next_character(text, position));
  return characters;
}

constexpr char32_t kBad = kReplacementCharacter;

TEST(Utf8, BytesThatBeginNothingAreReplacedOneByOne) {
  EXPECT_EQ(characters_of("\x80\xBF\xC0\xC1\xF5\xFF"), std::vector<char32_t>(6, kBad));
}

TEST(Utf8, OverlongFormsSurrogatesAndTooLargeOnesAreRefused) {
  EXPECT_EQ(characters_of("\xE0\x80\x80"), std::vector<char32_t>(3, kBad));
  EXPECT_EQ(characters_of("\xED\xA0\x80"), std::vector<char32_t>(3, kBad));
  EXPECT_EQ(characters_of("\xF4\x90\x80\x80"), std::vector<char32_t>(4, kBad));
  EXPECT_EQ(characters_of("\xF0\x8F\xBF\xBF"), std::vector<char32_t>(4, kBad));
}

TEST(Utf8, ASequenceCutShortIsOneReplacementAndWhatFollowsSurvives) {
  EXPECT_EQ(characters_of("\xE2\x82"), (std::vector<char32_t>{kBad}));
  EXPECT_EQ(characters_of("\xE2\x82(A"), (std::vector<char32_t>{kBad, U'(', U'A'}));
  EXPECT_EQ(characters_of("\xF0\x9F\x98\xC3\xA4"), (std::vector<char32_t>{kBad, U'ä'}));
}

TEST(Utf8, EveryCharacterComesBackAsItWas) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, c);
    size_t position = 0;
    ASSERT_EQ(next_character(text, position), c);
    ASSERT_EQ(position, text.size());
  }
}

TEST(Utf8, WhatActsOnATerminalOrTurnsALineIsAControlCharacter) {
  for (const char32_t c : {0x00, 0x07, 0x0A, 0x1B, 0x7F, 0x80, 0x9B, 0x9F, 0x061C, 0x200F, 0x2028, 0x202E, 0x2066}) {
    EXPECT_TRUE(is_control_character(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0x20, 0x7E, 0xA0, 0xE4, 0x2030, 0xFFFD, 0x1F600}) {
    EXPECT_FALSE(is_control_character(c)) << std::hex << static_cast<uint32_t>(c);
  }
}

}  // namespace
}  // namespace stackwatch
