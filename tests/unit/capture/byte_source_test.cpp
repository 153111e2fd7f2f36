// SPDX-License-Identifier: Apache-2.0
#include "capture/byte_source.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include "capture/line_reader.h"

namespace stackwatch {
namespace {

std::string compressed(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

/// Everything, in pieces of `chunk` bytes; the error's text behind a '!' where there is one.
std::string all_of(ByteSource& source, size_t chunk = 7) {
  std::string text;
  std::string room(chunk, '\0');
  for (;;) {
    const auto count = source.read(room);
    if (!count) return text + "!" + count.error().why;
    if (*count == 0) return text;
    text.append(room, 0, *count);
  }
}

std::string read_compressed(std::string_view bytes) {
  auto source = decompressed(bytes_of(bytes));
  return source ? all_of(**source) : "?" + source.error().message();
}

TEST(ByteSourceTest, DamagedCompressionGivesWhatIsBeforeIt) {
  std::string text;
  for (int i = 0; i < 60'000; ++i) text += std::to_string(i * 7919) + "\n";
  const std::string whole = compressed(text);
  ASSERT_GT(whole.size(), 100'000U);
  const std::string cut = read_compressed(std::string_view(whole).substr(0, whole.size() / 2));
  const size_t end = cut.find('!');
  ASSERT_NE(end, std::string::npos);
  EXPECT_GT(end, 100'000U);
  EXPECT_EQ(cut.substr(0, end), text.substr(0, end));
  EXPECT_EQ(cut.substr(end + 1), "the compressed data ends in the middle");

  std::string broken = whole;
  for (size_t i = whole.size() / 2; i < whole.size() / 2 + 64; ++i) broken[i] = '\x55';
  EXPECT_NE(read_compressed(broken).find('!'), std::string::npos);
  EXPECT_NE(read_compressed(whole + "garbage").find('!'), std::string::npos);
}

TEST(ByteSourceTest, WhatIsNoZstdComesAsItIs) {
  for (const std::string text : {"", "a", "abc", "abcd", "a longer text"}) EXPECT_EQ(read_compressed(text), text);
}

TEST(ByteSourceTest, SeveralFramesAreOneText) {
  EXPECT_EQ(read_compressed(compressed("one ") + compressed("") + compressed("two")), "one two");
}

TEST(ByteSourceTest, AFileThatCannotBeReadIsAnError) {
  EXPECT_FALSE(open_file("/nonexistent/file"));
  const auto directory = open_file("/");
  ASSERT_FALSE(directory);
  EXPECT_NE(directory.error().message().find("directory"), std::string::npos);
}

TEST(LineReaderTest, ALineThatIsTooLongIsAnErrorAfterThoseBeforeIt) {
  const std::string text = "short\n" + std::string(100, 'x') + "\nmore\n";
  LineReader lines(bytes_of(text), "FILE", 99);
  EXPECT_EQ(**lines.next(), "short");
  for (int i = 0; i < 2; ++i) {
    const auto line = lines.next();
    ASSERT_FALSE(line) << "it stays";
    EXPECT_NE(line.error().message().find("read FILE: line 2"), std::string::npos) << line.error().message();
  }
  LineReader enough(bytes_of(text), "FILE", 100);
  EXPECT_EQ(**enough.next(), "short");
  EXPECT_EQ((*enough.next())->size(), 100U);
  LineReader endless(bytes_of(std::string_view(text).substr(6, 100)), "FILE", 99);
  EXPECT_FALSE(endless.next()) << "without any end of line";
}

TEST(LineReaderTest, TheByteIsThatOfTheFileAlsoWhereItIsCompressed) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "the same line\n";
  const std::string small = compressed(text);
  auto plain = decompressed(bytes_of(small));
  ASSERT_TRUE(plain);
  LineReader lines(joined("front\n", std::move(*plain)), "FILE", 100);
  ASSERT_TRUE(lines.next());
  EXPECT_EQ(lines.problem("why").message(), "read FILE: line 1, byte 0: why") << "nothing of the file yet";
  ASSERT_TRUE(lines.next());
  EXPECT_EQ(lines.problem("why").message(), "read FILE: line 2, byte " + std::to_string(small.size()) + ": why");
  LineReader direct(bytes_of("one\ntwo\n"), "FILE", 100);
  ASSERT_TRUE(direct.next());
  EXPECT_EQ(direct.problem("why").message(), "read FILE: line 1, byte 4: why");
}

TEST(LineReaderTest, LinesAreNumberedAndACutOneIsKnown) {
  LineReader lines(bytes_of("one\n\nthree"), "FILE", 100);
  EXPECT_EQ(**lines.next(), "one");
  EXPECT_EQ(**lines.next(), "");
  EXPECT_FALSE(lines.is_cut());
  EXPECT_EQ(**lines.next(), "three");
  EXPECT_TRUE(lines.is_cut());
  EXPECT_EQ(lines.line(), 3U);
  EXPECT_FALSE((*lines.next()).has_value());
  EXPECT_FALSE((*lines.next()).has_value());
}

TEST(LineReaderTest, LinesLongerThanAReadAreWhole) {
  std::string text;
  for (size_t size : {10U, 300'000U, 1U, 700'000U}) text += std::string(size, 'a') + "\n";
  LineReader lines(bytes_of(text), "FILE", 1'000'000);
  for (const size_t size : {10U, 300'000U, 1U, 700'000U}) EXPECT_EQ((*lines.next())->size(), size);
}

}  // namespace
}  // namespace stackwatch
