// SPDX-License-Identifier: Apache-2.0
#include "core/stacks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stackwatch {
namespace {

using ::testing::ElementsAre;

TEST(FunctionTable, SameNameInAnotherObjectIsAnotherFunction) {
  FunctionTable table;
  const FunctionId a = table.intern("aaaa", "read");
  EXPECT_EQ(table.intern("aaaa", "read"), a);
  EXPECT_NE(table.intern("bbbb", "read"), a);
  EXPECT_EQ(table[a].name, "read");
  EXPECT_EQ(table[a].object, "aaaa");
}

TEST(FunctionTable, FullTableAnswersOtherAndCounts) {
  FunctionTable table(4);  // [other], [unnamed] and two more
  const FunctionId a = table.intern("o", "a");
  table.intern("o", "b");
  EXPECT_EQ(table.intern("o", "c"), FunctionTable::kOther);
  EXPECT_EQ(table.overflowed(), 1U);
  EXPECT_EQ(table.intern("o", "a"), a) << "known functions are still found";
  EXPECT_EQ(table.overflowed(), 1U);
}

TEST(StackTable, InternsByContent) {
  FunctionTable functions;
  StackTable stacks;
  const std::vector<FunctionId> frames = {functions.intern("o", "main"), functions.intern("o", "work")};
  const StackId id = stacks.intern(frames);
  EXPECT_EQ(stacks.intern(frames), id);
  EXPECT_THAT(stacks[id], ElementsAre(frames[0], frames[1]));
  EXPECT_NE(stacks.intern(std::vector{frames[0]}), id);
}

TEST(StackTable, RecursionCountsAFunctionOnce) {
  StackTable stacks;
  const FunctionId f{5};
  const FunctionId g{6};
  const StackId id = stacks.intern(std::vector{f, g, f, g, f});
  EXPECT_THAT(stacks.unique_functions(id), ElementsAre(f, g));
}

TEST(StackTable, FullTableAnswersOther) {
  StackTable stacks(2);
  const StackId one = stacks.intern(std::vector{FunctionId{7}});
  EXPECT_EQ(stacks.intern(std::vector{FunctionId{8}}), StackTable::kOther);
  EXPECT_EQ(stacks.intern(std::vector{FunctionId{7}}), one);
  EXPECT_EQ(stacks.size(), 2U);
}

}  // namespace
}  // namespace stackwatch
