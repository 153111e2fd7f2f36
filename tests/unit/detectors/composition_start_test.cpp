// SPDX-License-Identifier: Apache-2.0
// The first seconds of an attachment and of a restarted process: stacks without roots, and those of another program.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "detectors/composition.h"
#include "simulated_process.h"

namespace stackwatch {
namespace {

using Leaf = SimulatedProcess::Leaf;

std::vector<Leaf> server(const std::string& root, double share = 1) {
  std::vector<Leaf> leaves{{{root, "main", "loop", "hot"}, 0.05 * share}};
  for (int i = 0; i < 5; ++i) leaves.push_back({{root, "main", "loop", "work" + std::to_string(i)}, 0.19 * share});
  return leaves;
}

TEST(CompositionStart, SecondsWithoutUnwindTablesDoNotSpoilTheBaseline) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    std::vector<Leaf> leaves = server("_start");
    for (const Leaf& whole : server("_start")) {
      leaves.push_back({{whole.stack.begin() + 2, whole.stack.end()}, 20 * whole.share});
    }
    SimulatedProcess process(leaves, seed, 40);
    CompositionDetector detector({}, {});
    for (int i = 0; i < 15; ++i) {
      NamedDelta delta = process.tick();
      delta.lost[LossReason::kUnwindIncomplete] = 38;
      ASSERT_FALSE(detector.observe(delta));
    }
    for (size_t i = 6; i < 12; ++i) process.set_share(i, 0);
    for (int i = 0; i < 240; ++i) ASSERT_FALSE(detector.observe(process.tick())) << seed << ": " << i;
    process.move_share(1, 0, 0.06);
    int ticks = 0;
    while (ticks < 100 && !detector.observe(process.tick())) ++ticks;
    EXPECT_LT(ticks, 100) << seed;
  }
}

TEST(CompositionStart, StacksThatNeverGetTheirRootsAreJudgedAsTheyAre) {
  SimulatedProcess process(server("[anon]"), 3);
  CompositionDetector detector({}, {});
  bool found = false;
  for (int i = 0; i < 300 && !found; ++i) {
    if (i == 200) process.move_share(1, 0, 0.2);
    NamedDelta delta = process.tick();
    delta.lost[LossReason::kUnwindIncomplete] = 50;
    found = detector.observe(delta).has_value();
    ASSERT_TRUE(i >= 200 || !found) << i;
  }
  EXPECT_TRUE(found);
}

// A restarted process is a fork of its parent for a moment, and both programs have a _start.
TEST(CompositionStart, WhatAPredecessorLeftGoesToTheFunctionOfThatNameThatStays) {
  SimulatedProcess first(server("_start"), 5);
  CompositionDetector before({}, {});
  for (int i = 0; i < 300; ++i) ASSERT_FALSE(before.observe(first.tick()));

  std::vector<Leaf> leaves = server("_start");
  leaves.push_back({{"_start", "python"}, 1.0, "python"});
  SimulatedProcess second(leaves, 6);
  CompositionDetector after({}, {});
  ASSERT_TRUE(after.restore(before.save()));
  ASSERT_FALSE(after.observe(second.tick()));
  second.set_share(6, 0);
  for (int i = 0; i < 600; ++i) {
    const auto finding = after.observe(second.tick());
    ASSERT_FALSE(finding) << i << ": " << second.name(finding->frame.value_or(FunctionId{}));
  }
}

/// The same program while nothing is known of its memory: its frames have no names, but those of the kernel.
std::vector<Leaf> unknown_server() {
  std::vector<Leaf> leaves = server("_start");
  for (size_t i = 0; i < leaves.size(); ++i) {
    leaves[i].stack.assign(3 + i, "[unknown]");
    leaves[i].stack.insert(leaves[i].stack.end(), {"entry_SYSCALL_64_[k]", "do_syscall_64_[k]", "__x64_sys_read_[k]",
                                                   "vfs_read_[k]", "pipe_read_[k]", "copy_page_to_iter_[k]"});
  }
  return leaves;
}

TEST(CompositionStart, WhatHadNoNamesLeavesNoPastToCompareNamesWith) {
  SimulatedProcess first(unknown_server(), 8);
  CompositionDetector before({}, {});
  for (int i = 0; i < 300; ++i) ASSERT_FALSE(before.observe(first.tick()));
  EXPECT_FALSE(before.is_learning());
  EXPECT_TRUE(before.save().empty());
}

TEST(CompositionStart, WhoHasNoNamesIsNotComparedWithWhatHad) {
  SimulatedProcess first(server("_start"), 9);
  CompositionDetector before({}, {});
  for (int i = 0; i < 300; ++i) ASSERT_FALSE(before.observe(first.tick()));

  SimulatedProcess second(unknown_server(), 10);
  CompositionDetector after({}, {});
  ASSERT_TRUE(after.restore(before.save()));
  for (int i = 0; i < 300; ++i) ASSERT_FALSE(after.observe(second.tick())) << i;
  EXPECT_FALSE(after.remembers());
  EXPECT_FALSE(after.is_learning()) << "it has learned by itself";
}

// A process with more stacks than its table holds: what is new is all one stack, which says nothing about functions.
TEST(CompositionStart, StacksThatNoLongerFitAreNotBlamed) {
  SimulatedProcess process(server("_start"), 7);
  CompositionDetector detector({}, {});
  for (int i = 0; i < 500; ++i) {
    NamedDelta delta = process.tick();
    if (i > 300) delta.values.push_back({StackTable::kOther, 8});
    const auto finding = detector.observe(delta);
    ASSERT_FALSE(finding && finding->frame == FunctionTable::kOther) << i;
  }
}

}  // namespace
}  // namespace stackwatch
