// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/elf_object.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "elf_builder.h"
#include "symbols/maps.h"
#include "symbols/worker/demangle.h"
#include "target_process.h"

namespace stackwatch {
namespace {

std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Result<std::unique_ptr<ElfObject>> open_path(const std::string& path) {
  return ElfObject::open(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
}

/// Name at an offset from the beginning of a built file's code; empty where there is none.
std::string name_at(const ElfBuilder& builder, uint64_t at) {
  auto object = ElfObject::open(memory_file(builder.build()));
  if (!object) return "not opened: " + object.error().message();
  const auto found = (*object)->find(ElfBuilder::kCodeOffset + at);
  return found ? found->name : "";
}

TEST(ElfObjectBadInput, FilesThatAreNotElfAreRefused) {
  EXPECT_EQ(ElfObject::open(memory_file("")).error().why, "it is empty");
  EXPECT_EQ(ElfObject::open(memory_file("#!/bin/sh\necho hello\n")).error().why, "not an ELF file");
  EXPECT_FALSE(
      ElfObject::open(memory_file("\x7f"
                                  "ELF")));
  EXPECT_FALSE(ElfObject::open(UniqueFd(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC))));
  EXPECT_FALSE(ElfObject::open(UniqueFd(::open("/dev/zero", O_RDONLY | O_CLOEXEC))));
  EXPECT_FALSE(ElfObject::open(UniqueFd()));
}

TEST(ElfObjectBadInput, TruncatedAtAnyLengthNeverNamesWrongly) {
  const std::string whole = ElfBuilder().symbol("alpha", 0x100, 0x20).build();
  int opened = 0;
  for (size_t length = 1; length < whole.size(); length += 13) {
    auto object = ElfObject::open(memory_file(std::string_view(whole).substr(0, length)));
    if (!object) continue;
    ++opened;
    const auto found = (*object)->find(ElfBuilder::kCodeOffset + 0x110);
    EXPECT_FALSE(found && found->name != "alpha") << "at " << length << ": " << found->name;
  }
  EXPECT_GT(opened, 0);
}

TEST(ElfObjectBadInput, ShrinkingWhileReadIsNoCrash) {
  const UniqueFd file = memory_file(ElfBuilder().symbol("alpha", 0x100, 0x20).build());
  auto object = ElfObject::open(UniqueFd(::dup(file.get())));
  ASSERT_TRUE(object);
  ASSERT_EQ(::ftruncate(file.get(), 100), 0);
  EXPECT_FALSE((*object)->find(ElfBuilder::kCodeOffset + 0x110));
}

TEST(ElfObjectBadInput, AbsurdSectionSizesCostTheNamesAndNothingElse) {
  for (const uint64_t size : {UINT64_MAX, uint64_t{1} << 40, uint64_t{1} << 62, uint64_t{25}}) {
    ElfBuilder builder;
    builder.symbol("alpha", 0x100, 0x20);
    builder.symbol_section().sh_size = size;
    EXPECT_EQ(name_at(builder, 0x110), "") << size;
  }
  for (const uint64_t entry : {uint64_t{1}, uint64_t{7}, UINT64_MAX}) {
    ElfBuilder builder;
    builder.symbol("alpha", 0x100, 0x20);
    builder.symbol_section().sh_entsize = entry;
    const std::string name = name_at(builder, 0x110);
    EXPECT_TRUE(name.empty() || name == "alpha") << entry << ": " << name;
  }
  ElfBuilder outside;
  outside.symbol("alpha", 0x100, 0x20).symbol_section().sh_offset = uint64_t{1} << 50;
  EXPECT_EQ(name_at(outside, 0x110), "");
}

TEST(ElfObjectBadInput, NameOfAMegabyteIsCut) {
  const std::string name = name_at(ElfBuilder().symbol(std::string(1 << 20, 'x'), 0x100, 0x20), 0x110);
  EXPECT_EQ(name, std::string(kMaxRawNameBytes, 'x'));
}

TEST(ElfObjectBadInput, RandomDamageIsNoCrash) {
  const std::string whole = slurp(TARGET_PIE);
  ASSERT_GT(whole.size(), 4096U);
  std::mt19937 random(20260101);
  int opened = 0;
  for (int round = 0; round < 300; ++round) {
    std::string damaged = whole;
    // Half of the damage hits the headers, where it does most.
    for (int i = 0; i < 8; ++i) damaged[random() % (i % 2 == 0 ? 1024 : damaged.size())] = static_cast<char>(random());
    damaged.replace(0, 6, whole, 0, 6);
    auto object = ElfObject::open(memory_file(damaged));
    if (!object) continue;
    ++opened;
    for (int i = 0; i < 20; ++i) static_cast<void>((*object)->find(random() % damaged.size()));
  }
  EXPECT_GT(opened, 50) << "the damage must leave something to find";
}

TEST(ElfObject, InnermostSymbolWins) {
  ElfBuilder builder;
  builder.symbol("outer", 0x100, 0x80).symbol("inner", 0x120, 0x10);
  EXPECT_EQ(name_at(builder, 0x100), "outer");
  EXPECT_EQ(name_at(builder, 0x125), "inner");
  EXPECT_EQ(name_at(builder, 0x140), "outer") << "behind the inner one";
  EXPECT_EQ(name_at(builder, 0x17f), "outer");
  EXPECT_EQ(name_at(builder, 0x180), "");
  EXPECT_EQ(name_at(builder, 0xff), "");
}

TEST(ElfObject, OfAliasesTheOneThatPeopleCall) {
  ElfBuilder builder;
  builder.symbol("__libc_malloc", 0x100, 0x20).symbol("malloc", 0x100, 0x20).symbol("memory_allocate", 0x100, 0x20);
  builder.symbol("a", 0x100, 0x20, STT_FUNC, STB_LOCAL).symbol("b", 0x100, 0, STT_FUNC);
  EXPECT_EQ(name_at(builder, 0x110), "malloc");
}

TEST(ElfObject, SymbolsWithoutSizeReachToTheNext) {
  ElfBuilder builder;
  builder.symbol("bare", 0x100, 0).symbol("next", 0x200, 0x10).symbol("label", 0x208, 0, STT_NOTYPE);
  EXPECT_EQ(name_at(builder, 0x1ff), "bare");
  EXPECT_EQ(name_at(builder, 0x208), "next") << "labels inside of functions name nothing";
  EXPECT_EQ(name_at(builder, 0x210), "") << "no function is there";
}

TEST(ElfObject, DataUndefinedAndMarkingSymbolsAreNoFunctions) {
  ElfBuilder builder;
  builder.symbol("object", 0x100, 0x20, STT_OBJECT).symbol("$x", 0x300, 0, STT_NOTYPE, STB_LOCAL);
  builder.symbol("beyond", ElfBuilder::kCodeBytes + 0x100, 0x20);
  EXPECT_EQ(name_at(builder, 0x110), "");
  EXPECT_EQ(name_at(builder, 0x304), "");
  EXPECT_EQ(name_at(builder, ElfBuilder::kCodeBytes + 0x110), "");
}

class RealProgram : public ::testing::TestWithParam<const char*> {};

TEST_P(RealProgram, FunctionsOfEveryKindAreNamed) {
  const TargetProcess target(GetParam());
  auto object = open_path(GetParam());
  ASSERT_TRUE(object);
  const auto name = [&](const char* function, uint64_t inside) {
    const auto found = (*object)->find(target.where(function).file_offset + inside);
    return found ? demangle(found->name) : std::string();
  };
  EXPECT_EQ(name("plain_function", 0), "plain_function") << "not __private_alias";
  EXPECT_EQ(name("plain_function", 1), "plain_function");
  EXPECT_EQ(name("turn", 1), "shapes::Widget::turn(int, double)");
  EXPECT_EQ(name("local_function", 1), "local_function(int)");
  EXPECT_EQ(name("bare_label", 0), "bare_label");
  EXPECT_EQ(name("bare_label", 2), "bare_label");
}

TEST_P(RealProgram, StrippedFunctionsAreToldApartByTheirCallFrameEntries) {
  const TargetProcess target(GetParam());
  auto object = open_path(std::string(GetParam()) + "_stripped");
  ASSERT_TRUE(object);
  const auto plain = (*object)->find(target.where("plain_function").file_offset);
  const auto plain_inside = (*object)->find(target.where("plain_function").file_offset + 1);
  const auto turn = (*object)->find(target.where("turn").file_offset + 1);
  ASSERT_TRUE(plain && plain_inside && turn);
  EXPECT_EQ(plain->name, "");
  EXPECT_EQ(plain->start, plain_inside->start);
  EXPECT_NE(plain->start, turn->start);
  auto whole = open_path(GetParam());
  EXPECT_EQ((*whole)->find(target.where("turn").file_offset + 1)->start, turn->start) << "the symbol's own address";
  EXPECT_FALSE((*object)->find(target.where("bare_label").file_offset)) << "has no call-frame entry either";
}

INSTANTIATE_TEST_SUITE_P(PieAndNot, RealProgram, ::testing::Values(TARGET_PIE, TARGET_FIXED),
                         [](const auto& suite) { return suite.index == 0 ? "Pie" : "Fixed"; });

TEST(ElfObject, LibcIsNamedFromItsDynamicSymbols) {
  const auto address = reinterpret_cast<uint64_t>(::dlsym(RTLD_NEXT, "qsort_r"));
  for (const MapsEntry& entry : parse_maps(slurp("/proc/self/maps"))) {
    if (address < entry.start || address >= entry.end) continue;
    auto object = open_path(entry.path);
    ASSERT_TRUE(object);
    const auto found = (*object)->find(entry.file_offset + (address - entry.start) + 4);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->name, "qsort_r");
    EXPECT_EQ((*object)->build_id().size(), 20U);
    return;
  }
  FAIL() << "libc is not mapped?";
}

TEST(ElfObject, TablesAreGivenBackAndReadAgain) {
  const TargetProcess target(TARGET_PIE);
  auto object = open_path(TARGET_PIE);
  ASSERT_TRUE(object);
  EXPECT_EQ((*object)->table_bytes(), 0U);
  const uint64_t at = target.where("plain_function").file_offset;
  EXPECT_EQ((*object)->find(at)->name, "plain_function");
  EXPECT_GT((*object)->table_bytes(), 0U);
  (*object)->unload();
  EXPECT_EQ((*object)->table_bytes(), 0U);
  EXPECT_EQ((*object)->find(at)->name, "plain_function");
}

}  // namespace
}  // namespace stackwatch
