// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/allocator_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/symbols/elf_builder.h"

namespace stackwatch {
namespace {

FoundAllocator find_in(std::string file) {
  auto object = ElfObject::open(memory_file(file));
  return object ? find_allocator(**object) : FoundAllocator();
}

// The builder's code is all zeroes, which is `add %al, (%rax)`: nothing is emulated or returns.
constexpr uint64_t at(uint64_t place) { return ElfBuilder::kCodeOffset + place; }

TEST(AllocatorSearch, BrokenTablesHaveNoAllocator) {
  ElfBuilder builder;
  builder.symbol("malloc", 0x10, 16);
  builder.symbol_section().sh_offset = 1U << 30;
  EXPECT_TRUE(find_in(builder.build()).places.empty());
  std::string cut = ElfBuilder().symbol("malloc", 0x10, 16).build();
  for (size_t length = 0; length < cut.size(); length += 97) find_in(cut.substr(0, length));
}

TEST(AllocatorSearch, NamesOfOnePlaceAreFoundOnceWithOrWithoutVersion) {
  const auto found = find_in(ElfBuilder()
                                 .symbol("malloc@@GLIBC_2.2.5", 0x10, 16)
                                 .symbol("malloc", 0x10, 16)
                                 .symbol("free", 0x40, 16)
                                 .symbol("cfree@GLIBC_2.2.5", 0x40, 16)
                                 .symbol("realloc", 0x80, 16)
                                 .symbol("mallocate", 0xc0, 16)
                                 .build());
  EXPECT_THAT(found.places, ::testing::ElementsAre(AllocatorPlace{AllocatorRole::kMalloc, true, at(0x10)},
                                                   AllocatorPlace{AllocatorRole::kFree, true, at(0x40)},
                                                   AllocatorPlace{AllocatorRole::kRealloc, true, at(0x80)}));
  EXPECT_FALSE(found.uncounted_new);
}

TEST(AllocatorSearch, LocalFunctionsDataAndThoseChosenAtRunTimeAreNone) {
  const auto found = find_in(ElfBuilder()
                                 .symbol("malloc", 0x10, 16, STT_GNU_IFUNC)
                                 .symbol("free", 0x40, 16, STT_FUNC, STB_LOCAL)
                                 .symbol("calloc", 0x80, 16, STT_OBJECT)
                                 .symbol("realloc", 0x7000'0000, 16)
                                 .build());
  EXPECT_TRUE(found.places.empty());
}

TEST(AllocatorSearch, AnOperatorNewWhoseEndsAreNotFoundIsTold) {
  const auto found = find_in(ElfBuilder().symbol("malloc", 0x10, 16).symbol("_Znwm", 0x40, 16).build());
  EXPECT_TRUE(found.uncounted_new);
}

}  // namespace
}  // namespace stackwatch
