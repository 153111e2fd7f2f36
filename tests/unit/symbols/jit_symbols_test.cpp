// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/jit_symbols.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <random>
#include <string>

#include "elf_builder.h"
#include "symbols/protocol.h"

namespace stackwatch {
namespace {

/// A file that grows under the reader, as a JIT's does.
class JitSymbolsTest : public ::testing::Test {
 protected:
  void append(const std::string& text) {
    ASSERT_EQ(::write(file.get(), text.data(), text.size()), ssize_t(text.size()));
  }
  std::string name_at(uint64_t address) {
    jit.refresh();
    const auto found = jit.find(address);
    return found ? found->name : "";
  }
  static std::string record(uint32_t id, const std::string& body) {
    const uint32_t head[2] = {id, static_cast<uint32_t>(16 + body.size())};
    return std::string(reinterpret_cast<const char*>(head), 8) + std::string(8, '\0') + body;
  }
  static std::string words(std::initializer_list<uint64_t> values) {
    std::string text(8, '\0');  // pid and tid
    for (const uint64_t value : values) text.append(reinterpret_cast<const char*>(&value), 8);
    return text;
  }
  static std::string dump_header() {
    const uint32_t head[10] = {0x4a695444, 1, 40, 62};
    return {reinterpret_cast<const char*>(head), sizeof head};
  }

  UniqueFd file = memory_file("");
  JitSymbols jit{UniqueFd(::dup(file.get()))};
};

TEST_F(JitSymbolsTest, GarbageBetweenGoodLinesIsLeftOut) {
  append("zzz\n\n1000\n1000 \n1000 10\n-5 10 minus\n1000 0 empty\nffffffffffffffff 10 wraps\n" +
         std::string(3000, '\0') + "\n2000 10 good one\n" + std::string(300'000, 'x') +
         "\n3000 10 after the long line\n");
  EXPECT_EQ(name_at(0x2008), "good one");
  EXPECT_EQ(name_at(0x3000), "after the long line");
  EXPECT_EQ(name_at(0x1000), "");
  EXPECT_EQ(jit.size(), 2U);
}

TEST_F(JitSymbolsTest, RandomBytesDoNoHarm) {
  std::mt19937 random(3);
  for (int i = 0; i < 50; ++i) {
    std::string bytes(random() % 5000, '\0');
    for (char& byte : bytes) byte = static_cast<char>("0123456789abcdef \n\nx"[random() % 20]);
    append(i % 2 == 0 ? bytes : record(static_cast<uint32_t>(random() % 6), bytes));
    jit.refresh();
  }
  EXPECT_LE(jit.size(), kMaxJitFunctions);
}

TEST_F(JitSymbolsTest, NameOfAMegabyte) {
  append("1000 10 " + std::string(1 << 20, 'n') + "\n2000 10 next\n");
  EXPECT_EQ(name_at(0x2000), "next");
  append("3000 10 " + std::string(10'000, 'n') + "\n");
  EXPECT_EQ(name_at(0x3000).size(), protocol::kMaxNameBytes);
}

TEST_F(JitSymbolsTest, IsReadOnAsItGrows) {
  append("1000 10 first\n2000 10 half a li");
  EXPECT_EQ(name_at(0x1000), "first");
  EXPECT_EQ(name_at(0x2000), "");
  append("ne\n0x3000 0x20 with prefix\n");
  EXPECT_EQ(name_at(0x2000), "half a line");
  EXPECT_EQ(name_at(0x301f), "with prefix");
  EXPECT_EQ(name_at(0x3020), "");
}

TEST_F(JitSymbolsTest, NewCodeReplacesWhatItOverlaps) {
  append("1000 100 old\n2000 10 other\n10f0 20 new\n");
  EXPECT_EQ(name_at(0x10f8), "new");
  EXPECT_EQ(name_at(0x1000), "");
  EXPECT_EQ(name_at(0x2000), "other");
}

TEST_F(JitSymbolsTest, FileThatIsWrittenAnew) {
  append("1000 10 before\n");
  EXPECT_EQ(name_at(0x1000), "before");
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  ASSERT_EQ(::lseek(file.get(), 0, SEEK_SET), 0);
  append("1000 8 anew\n");
  EXPECT_EQ(name_at(0x1000), "anew");
}

TEST_F(JitSymbolsTest, JitdumpLoadsAndMoves) {
  append(dump_header() + record(0, words({0, 0x5000, 0x40, 1}) + std::string("loaded\0code", 11)) + record(2, "debug"));
  EXPECT_EQ(name_at(0x5010), "loaded");
  append(record(1, words({0, 0x5000, 0x7000, 0x40, 1})));
  EXPECT_EQ(name_at(0x5010), "");
  EXPECT_EQ(name_at(0x7010), "loaded");
}

TEST_F(JitSymbolsTest, JitdumpWithBrokenRecords) {
  append(dump_header() + record(0, words({0, 0x5000, 0x40, 1}) + std::string("kept\0", 5)) + std::string(64, '\1'));
  EXPECT_EQ(name_at(0x5010), "kept");  // the rest claims to be longer than there is
  append(std::string(16, '\0') + std::string(100, '\0'));
  EXPECT_EQ(name_at(0x5010), "kept");
}

TEST_F(JitSymbolsTest, FullTakesNoMore) {
  std::string text;
  for (size_t i = 0; i < kMaxJitFunctions + 10; ++i) {
    char line[64];
    text.append(line, static_cast<size_t>(std::snprintf(line, sizeof line, "%zx 10 f\n", 0x10000 + i * 16)));
  }
  append(text);
  EXPECT_EQ(name_at(0x10000), "f");
  EXPECT_EQ(jit.size(), kMaxJitFunctions);
}

}  // namespace
}  // namespace stackwatch
