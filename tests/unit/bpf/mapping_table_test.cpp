// SPDX-License-Identifier: Apache-2.0
#include "bpf/mapping_table.h"

#include <gtest/gtest.h>

#include <limits>

namespace stackwatch {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kStack = 100;
constexpr uint64_t kOther = 200;
constexpr uint64_t kThread = 1;

class MappingTableTest : public ::testing::Test {
 protected:
  uint64_t enter(uint64_t page, uint64_t pages, uint64_t hash = kStack) {
    uint64_t replaced = 0;
    EXPECT_TRUE(table_.enter(page * kPage, pages * kPage, hash, replaced));
    return replaced / kPage;
  }
  uint64_t leave(uint64_t page, uint64_t pages, uint64_t thread = kThread) {
    return table_.leave(thread, page * kPage, pages * kPage) / kPage;
  }
  uint64_t unmap(uint64_t page, uint64_t pages) {
    const uint64_t known = leave(page, pages);
    table_.left(kThread);
    return known;
  }
  [[nodiscard]] int64_t pages(uint64_t hash = kStack) const {
    const auto found = table_.bytes().find(hash);
    return found == table_.bytes().end() ? 0 : found->second / static_cast<int64_t>(kPage);
  }

  MappingTable table_;
};

TEST_F(MappingTableTest, WhatIsNotKnownLeavesNothing) {
  EXPECT_EQ(unmap(10, 5), 0U);
  table_.left(kThread);
  table_.stays(kThread);
  EXPECT_TRUE(table_.bytes().empty());
}

TEST_F(MappingTableTest, LengthsBeyondTheEndOfAllAddressesAreCut) {
  enter(10, 4);
  EXPECT_EQ(table_.leave(kThread, 12 * kPage, std::numeric_limits<uint64_t>::max()), 2 * kPage);
  table_.left(kThread);
  EXPECT_EQ(pages(), 2);
}

TEST_F(MappingTableTest, PartsGoAndTheRestStays) {
  enter(10, 10);
  EXPECT_EQ(unmap(13, 2), 2U);
  EXPECT_EQ(unmap(13, 2), 0U);
  EXPECT_EQ(unmap(9, 2), 1U);
  EXPECT_EQ(unmap(19, 5), 1U);
  EXPECT_EQ(pages(), 6);
  EXPECT_EQ(unmap(0, 100), 6U);
  EXPECT_EQ(pages(), 0);
}

TEST_F(MappingTableTest, OneCallMayTakePartsOfSeveral) {
  enter(10, 4);
  enter(14, 4, kOther);
  EXPECT_EQ(unmap(12, 4), 4U);
  EXPECT_EQ(pages(), 2);
  EXPECT_EQ(pages(kOther), 2);
}

TEST_F(MappingTableTest, WhatEntersReplacesWhatWasThere) {
  enter(10, 10);
  EXPECT_EQ(enter(12, 3, kOther), 3U);
  EXPECT_EQ(pages(), 7);
  EXPECT_EQ(pages(kOther), 3);
}

TEST_F(MappingTableTest, WhatLeavesCountsUntilItHasLeftAndComesBackWhereRefused) {
  enter(10, 10);
  EXPECT_EQ(leave(12, 3), 3U);
  EXPECT_EQ(pages(), 10);
  table_.stays(kThread);
  EXPECT_EQ(unmap(10, 10), 10U);
}

TEST_F(MappingTableTest, AnotherThreadMayGetAnAddressBeforeTheFirstHasReturned) {
  enter(10, 4);
  leave(10, 4);
  EXPECT_EQ(enter(10, 2, kOther), 0U);
  table_.left(kThread);
  EXPECT_EQ(pages(), 0);
  EXPECT_EQ(pages(kOther), 2);
}

TEST_F(MappingTableTest, ACallWhoseEndWasLostIsTakenAsDone) {
  enter(10, 4);
  enter(20, 4);
  leave(10, 4);
  leave(20, 4);
  table_.stays(kThread);
  EXPECT_EQ(pages(), 4);
}

TEST_F(MappingTableTest, AnotherProgramHasNothing) {
  enter(10, 4);
  leave(10, 1);
  table_.clear();
  table_.stays(kThread);
  EXPECT_EQ(pages(), 0);
  EXPECT_EQ(unmap(10, 4), 0U);
  EXPECT_EQ(table_.bytes().size(), 1U) << "still to be told that it has nothing";
  table_.drop_empty();
  EXPECT_TRUE(table_.bytes().empty());
}

TEST_F(MappingTableTest, WhatHasNoRoomIsRefused) {
  for (uint64_t i = 0; i < MappingTable::kMaxMappings; ++i) enter(2 * i, 1);
  uint64_t replaced = 0;
  EXPECT_FALSE(table_.enter(1 * kPage, kPage, kOther, replaced));
  EXPECT_EQ(unmap(0, 1), 1U);
  EXPECT_TRUE(table_.enter(1 * kPage, kPage, kOther, replaced));
}

}  // namespace
}  // namespace stackwatch
