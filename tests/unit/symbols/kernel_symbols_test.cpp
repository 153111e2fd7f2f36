// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/kernel_symbols.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "elf_builder.h"

namespace stackwatch {
namespace {

/// A memory file is at its end after writing; kallsyms is read from where it stands.
bool load(KernelSymbols& symbols, std::string_view text) {
  const UniqueFd file = memory_file(text);
  ::lseek(file.get(), 0, SEEK_SET);
  return symbols.load(file.get());
}

TEST(KernelSymbols, GarbageIsSkipped) {
  KernelSymbols symbols;
  EXPECT_FALSE(load(symbols, ""));
  EXPECT_FALSE(load(symbols, "\n\n\n"));
  EXPECT_FALSE(load(symbols, std::string(300'000, 'x')));
  EXPECT_FALSE(load(symbols, std::string(1000, '\0')));
  EXPECT_FALSE(symbols.load(-1));
  EXPECT_TRUE(load(symbols, "ffffffff81000000\nffffffff81000000 T\nzzz T a\nffffffff81000010 T good\nffffffff8100002"));
  EXPECT_EQ(symbols.size(), 1U);
  EXPECT_EQ(symbols.find(0xffffffff81000014)->name, "good");
}

TEST(KernelSymbols, HiddenAddressesAreNoSymbols) {
  KernelSymbols symbols;
  EXPECT_FALSE(load(symbols, "0000000000000000 T _text\n0000000000000000 t helper\t[module]\n"));
  EXPECT_FALSE(symbols.find(0));
}

TEST(KernelSymbols, NearestBelowWithinAFunctionsLength) {
  KernelSymbols symbols;
  ASSERT_TRUE(load(symbols,
                   "ffffffff81000200 T second\nffffffff81000100 t first\nffffffff81000180 D data\n"
                   "ffffffffc0200000 t in_module\t[some_module]\n"));
  EXPECT_FALSE(symbols.find(0xffffffff810000ff));
  EXPECT_EQ(symbols.find(0xffffffff810001ff)->name, "first") << "data is no function";
  EXPECT_EQ(symbols.find(0xffffffff81000200)->name, "second");
  EXPECT_EQ(symbols.find(0xffffffff81000200)->module, "");
  EXPECT_FALSE(symbols.find(0xffffffff81000200 + (1 << 20))) << "no function is a megabyte long";
  EXPECT_EQ(symbols.find(0xffffffffc0200010)->module, "some_module");
}

TEST(KernelSymbols, OfAliasesTheGlobalWithFewestUnderscores) {
  KernelSymbols symbols;
  ASSERT_TRUE(
      load(symbols, "ffffffff81000100 T __x64_sys_read\nffffffff81000100 t a\nffffffff81000100 T sys_read_alias\n"));
  EXPECT_EQ(symbols.find(0xffffffff81000100)->name, "sys_read_alias");
  EXPECT_EQ(symbols.size(), 1U);
}

TEST(KernelSymbols, LoadingAgainReplaces) {
  KernelSymbols symbols;
  ASSERT_TRUE(load(symbols, "ffffffff81000100 T old\n"));
  ASSERT_TRUE(load(symbols, "ffffffff81000100 T new\n"));
  EXPECT_EQ(symbols.find(0xffffffff81000100)->name, "new");
  EXPECT_EQ(symbols.size(), 1U);
}

TEST(KernelSymbols, ThisKernelFitsTheBound) {
  KernelSymbols symbols;
  const UniqueFd file(::open("/proc/kallsyms", O_RDONLY | O_CLOEXEC));
  if (!symbols.load(file.get())) GTEST_SKIP() << "the kernel hides its addresses here (needs CAP_SYSLOG)";
  EXPECT_GT(symbols.size(), 10'000U);
  EXPECT_LT(symbols.bytes(), 8U << 20);
}

}  // namespace
}  // namespace stackwatch
