// SPDX-License-Identifier: Apache-2.0
// Cost that has another name or another caller and did not grow: told as that. What grew is told as a change.
#include "detectors/cost_shift.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "detectors/composition.h"
#include "simulated_process.h"

namespace stackwatch {
namespace {

using Leaf = SimulatedProcess::Leaf;
using Kind = CostShift::Kind;

/// Two states of a program, as many samples as shares say.
class TwoStates {
 public:
  TwoStates& stack(const std::vector<std::string>& frames, double before, double after) {
    std::vector<FunctionId> ids;
    for (const std::string& name : frames) ids.push_back(functions_.intern("program", name));
    const StackId id = stacks_.intern(ids);
    before_.entries.push_back({id.value, static_cast<float>(before * kBaseline)});
    after_.entries.push_back({id.value, static_cast<float>(after * since_)});
    before_.total += before * kBaseline;
    after_.total += after * since_;
    return *this;
  }
  /// In front of the stacks.
  TwoStates& samples_since(double samples) {
    since_ = samples;
    return *this;
  }
  TwoStates& cores(double before, double after) {
    before_.cpu_s = before * kSeconds;
    after_.cpu_s = after * kSeconds;
    return *this;
  }
  std::optional<CostShift> find() { return find_where_worth(0); }
  std::optional<CostShift> find_where_worth(double cores) {
    StackIndex index;
    index.follow(&stacks_);
    before_.interval_s = after_.interval_s = kSeconds;
    StackCounts before;
    StackCounts after;
    before.add(before_, index);
    after.add(after_, index);
    return find_cost_shift(index, before, after, {1.5, 0.02, 0.1, cores});
  }
  std::string name(const std::optional<FunctionId>& id) const { return id ? functions_[*id].name : ""; }

 private:
  static constexpr double kBaseline = 30'000;
  static constexpr double kSeconds = 20;
  FunctionTable functions_;
  StackTable stacks_;
  double since_ = 2'000;
  Tick before_;
  Tick after_;
};

TEST(CostShift, NothingWithoutCounts) {
  EXPECT_FALSE(TwoStates().find());
  EXPECT_FALSE(TwoStates().stack({"main"}, 1, 0).find());
}

TEST(CostShift, NothingWhereNothingChanged) {
  EXPECT_FALSE(TwoStates().stack({"main", "a"}, 0.4, 0.4).stack({"main", "b"}, 0.6, 0.6).find());
}

TEST(CostShift, Renamed) {
  TwoStates state;
  state.stack({"main", "serve", "find"}, 0.2, 0).stack({"main", "serve", "lookup"}, 0, 0.2);
  state.stack({"main", "serve", "other"}, 0.5, 0.5).stack({"main", "flush"}, 0.3, 0.3);
  const auto shift = state.find();
  ASSERT_TRUE(shift);
  EXPECT_EQ(shift->kind, Kind::kRenamed);
  EXPECT_EQ(state.name(shift->from), "find");
  EXPECT_EQ(state.name(shift->to), "lookup");
  EXPECT_EQ(state.name(shift->under), "serve");
  EXPECT_TRUE(shift->certain);
}

TEST(CostShift, RenamedWithItsCallees) {
  TwoStates state;
  state.stack({"main", "find", "hash"}, 0.1, 0).stack({"main", "lookup", "hash"}, 0, 0.1);
  state.stack({"main", "find", "compare"}, 0.1, 0).stack({"main", "lookup", "compare"}, 0, 0.1);
  state.stack({"main", "flush"}, 0.8, 0.8);
  const auto shift = state.find();
  ASSERT_TRUE(shift);
  EXPECT_EQ(shift->kind, Kind::kRenamed);
  EXPECT_EQ(state.name(shift->to), "lookup");
}

TEST(CostShift, AWholeNamespaceRenamed) {
  TwoStates state;
  state.stack({"main", "old::a", "old::b"}, 0.2, 0).stack({"main", "new::a", "new::b"}, 0, 0.2);
  state.stack({"main", "old::a", "old::c"}, 0.1, 0).stack({"main", "new::a", "new::c"}, 0, 0.1);
  state.stack({"main", "flush"}, 0.7, 0.7);
  const auto shift = state.find();
  ASSERT_TRUE(shift);
  EXPECT_EQ(state.name(shift->from), "old::a");
  EXPECT_EQ(state.name(shift->to), "new::a");
}

// An interrupt that happened to come ten times, and whom it hit by chance.
TEST(CostShift, WhatIsTooSmallToBeToldIsNoObjection) {
  TwoStates state;
  state.stack({"main", "serve", "find"}, 0.2, 0).stack({"main", "serve", "lookup"}, 0, 0.2);
  state.stack({"main", "other"}, 0.5, 0.475).stack({"main", "other", "interrupt", "softirq"}, 0.001, 0.015);
  state.stack({"main", "flush"}, 0.299, 0.31);
  const auto shift = state.find();
  ASSERT_TRUE(shift);
  EXPECT_EQ(state.name(shift->to), "lookup");
}

TEST(CostShift, ASmallFunctionThatAppearsExplainsNothing) {
  TwoStates state;
  state.stack({"main", "other"}, 0.5, 0.485).stack({"main", "other", "small"}, 0, 0.015);
  state.stack({"main", "flush"}, 0.5, 0.5);
  EXPECT_FALSE(state.find());
}

TEST(CostShift, RenamedAndMoreExpensiveIsAChange) {
  TwoStates state;
  state.stack({"main", "find"}, 0.2, 0).stack({"main", "lookup"}, 0, 0.3).stack({"main", "flush"}, 0.8, 0.7);
  EXPECT_FALSE(state.find());
}

// Of 400 samples 37 hit what usually has 21: at dispersion 1.5 less than 3.5 standard errors. Of 2,000 it is no chance.
TEST(CostShift, RenamedIsWhatDiffersByChanceAlone) {
  for (const double samples : {400.0, 2000.0}) {
    TwoStates state;
    state.samples_since(samples);
    state.stack({"main", "serve", "find"}, 0.052, 0).stack({"main", "serve", "lookup"}, 0, 0.0925);
    state.stack({"main", "flush"}, 0.948, 0.9075);
    const auto shift = state.find();
    EXPECT_EQ(shift.has_value(), samples < 1000) << samples;
    EXPECT_TRUE(!shift || !shift->certain) << "more samples may tell another thing";
  }
}

// In a process that uses little, ten points are not worth telling by their size alone: that is no measure of a rename.
TEST(CostShift, FiveNewFunctionsThatTakeSixTimesAsMuchAreAChange) {
  for (const size_t pairs : {1, 5}) {
    TwoStates state;
    state.cores(0.2, 0.2);
    const double grown = 0.099 * static_cast<double>(pairs);
    for (size_t i = 0; i < pairs; ++i) {
      state.stack({"main", "old" + std::to_string(i)}, 0.021, 0);
      state.stack({"main", "new" + std::to_string(i)}, 0, 0.12);
    }
    for (int i = 0; i < 10; ++i) {
      const double share = (1 - 0.021 * static_cast<double>(pairs)) / 10;
      state.stack({"main", "other" + std::to_string(i)}, share, share - grown / 10);
    }
    EXPECT_FALSE(state.find_where_worth(0.02)) << pairs;
  }
}

TEST(CostShift, OneEndsAndAnotherBeginsElsewhereIsAChange) {
  TwoStates state;
  state.stack({"main", "serve", "find"}, 0.2, 0).stack({"main", "flush", "sync"}, 0, 0.2);
  state.stack({"main", "serve"}, 0.4, 0.4).stack({"main", "flush"}, 0.4, 0.4);
  EXPECT_FALSE(state.find());
}

TEST(CostShift, AGrownFunctionIsAChange) {
  TwoStates state;
  state.stack({"main", "serve", "hot"}, 0.1, 0.3);
  for (const char* name : {"a", "b", "c"}) state.stack({"main", "serve", name}, 0.3, 0.7 / 3);
  EXPECT_FALSE(state.find());
}

TEST(CostShift, ANewFunctionIsAChange) {
  TwoStates state;
  state.stack({"main", "serve", "fresh"}, 0, 0.2);
  for (const char* name : {"a", "b", "c", "d"}) state.stack({"main", "serve", name}, 0.25, 0.2);
  EXPECT_FALSE(state.find());
}

TEST(CostShift, AFunctionThatVanishedIsAChange) {
  TwoStates state;
  state.stack({"main", "serve", "gone"}, 0.2, 0);
  for (const char* name : {"a", "b", "c", "d"}) state.stack({"main", "serve", name}, 0.2, 0.25);
  EXPECT_FALSE(state.find());
}

TEST(CostShift, Inlined) {
  TwoStates state;
  state.stack({"main", "serve", "find"}, 0.15, 0)
      .stack({"main", "serve"}, 0.1, 0.25)
      .stack({"main", "flush"}, 0.75, 0.75);
  const auto shift = state.find();
  ASSERT_TRUE(shift);
  EXPECT_EQ(shift->kind, Kind::kInlined);
  EXPECT_EQ(state.name(shift->from), "find");
  EXPECT_EQ(state.name(shift->to), "serve");
}

TEST(CostShift, InlinedWithACallee) {
  TwoStates state;
  state.stack({"main", "serve", "find", "hash"}, 0.15, 0).stack({"main", "serve", "hash"}, 0, 0.15);
  state.stack({"main", "serve"}, 0.1, 0.1).stack({"main", "flush"}, 0.75, 0.75);
  const auto shift = state.find();
  ASSERT_TRUE(shift);
  EXPECT_EQ(shift->kind, Kind::kInlined);
}

TEST(CostShift, Outlined) {
  TwoStates state;
  state.stack({"main", "serve", "find"}, 0, 0.15)
      .stack({"main", "serve"}, 0.25, 0.1)
      .stack({"main", "flush"}, 0.75, 0.75);
  const auto shift = state.find();
  ASSERT_TRUE(shift);
  EXPECT_EQ(shift->kind, Kind::kOutlined);
  EXPECT_EQ(state.name(shift->from), "serve");
  EXPECT_EQ(state.name(shift->to), "find");
}

TEST(CostShift, InlinedAndMoreExpensiveIsAChange) {
  TwoStates state;
  state.stack({"main", "serve", "find"}, 0.15, 0)
      .stack({"main", "serve"}, 0.1, 0.35)
      .stack({"main", "flush"}, 0.75, 0.65);
  EXPECT_FALSE(state.find());
}

// All shares become smaller by what is new. Of a caller that did most by itself that is hard to see.
TEST(CostShift, ANewFunctionUnderACallerWithMostOfTheWorkIsAChange) {
  for (const double own : {0.55, 0.7, 0.8, 0.9}) {
    for (const double fresh : {0.1, 0.2, 0.3}) {
      SCOPED_TRACE(testing::Message() << own << ", new " << fresh);
      TwoStates state;
      state.stack({"main", "serve", "fresh"}, 0, fresh).stack({"main", "serve"}, own, own * (1 - fresh));
      state.stack({"main", "flush"}, 1 - own, (1 - own) * (1 - fresh));
      EXPECT_FALSE(state.find());
    }
  }
}

TEST(CostShift, ANewCallerOfAFunctionWithMostOfTheWorkIsAChange) {
  TwoStates state;
  state.stack({"main", "serve", "fresh", "copy"}, 0, 0.1).stack({"main", "serve", "copy"}, 0.6, 0.54);
  state.stack({"main", "serve"}, 0.2, 0.18).stack({"main", "flush"}, 0.2, 0.18);
  EXPECT_FALSE(state.find());
}

TEST(CostShift, WorkThatVanishedFromACallerWithMostOfItIsAChange) {
  for (const double own : {0.5, 0.6, 0.7}) {
    SCOPED_TRACE(own);
    TwoStates state;
    state.stack({"main", "serve", "gone"}, 0.2, 0).stack({"main", "serve"}, own, own / 0.8);
    state.stack({"main", "flush"}, 0.8 - own, (0.8 - own) / 0.8);
    EXPECT_FALSE(state.find());
  }
}

TEST(CostShift, OutlinedFromACallerWithMostOfTheWork) {
  for (const double own : {0.55, 0.7, 0.85}) {
    SCOPED_TRACE(own);
    TwoStates state;
    state.stack({"main", "serve", "find"}, 0, 0.3).stack({"main", "serve"}, own, own - 0.3);
    state.stack({"main", "flush"}, 1 - own, 1 - own);
    const auto shift = state.find();
    ASSERT_TRUE(shift);
    EXPECT_EQ(shift->kind, Kind::kOutlined);
  }
}

TEST(CostShift, Moved) {
  TwoStates state;
  state.stack({"main", "serve", "get", "checksum"}, 0.15, 0).stack({"main", "serve", "put", "checksum"}, 0.05, 0.2);
  state.stack({"main", "serve", "get"}, 0.2, 0.2).stack({"main", "serve", "put"}, 0.2, 0.2);
  state.stack({"main", "flush"}, 0.4, 0.4);
  const auto shift = state.find();
  ASSERT_TRUE(shift);
  EXPECT_EQ(shift->kind, Kind::kMoved);
  EXPECT_EQ(state.name(shift->what), "checksum");
  EXPECT_EQ(state.name(shift->from), "get");
  EXPECT_EQ(state.name(shift->to), "put");
}

// All work is in one leaf: a caller that asks for more of it, and others that get less because shares add up to 1.
// A handler had nearly all of the work: a growth elsewhere would look the same to it, but not that the call vanished.
TEST(CostShift, MovedAwayFromWhoHadMost) {
  TwoStates state;
  state.stack({"main", "big", "checksum"}, 0.14, 0).stack({"main", "small", "checksum"}, 0, 0.14);
  state.stack({"main", "big", "rest"}, 0.75, 0.75).stack({"main", "small", "other"}, 0.11, 0.11);
  const auto shift = state.find();
  ASSERT_TRUE(shift);
  EXPECT_EQ(shift->kind, Kind::kMoved);
  EXPECT_EQ(state.name(shift->what), "checksum");
}

TEST(CostShift, MovedIsWhatDiffersByChanceAlone) {
  for (const double samples : {350.0, 2000.0}) {
    TwoStates state;
    state.samples_since(samples);
    state.stack({"main", "get", "hash"}, 0.107, 0).stack({"main", "put", "hash"}, 0, 0.165);
    state.stack({"main", "get", "find"}, 0.2, 0.2).stack({"main", "put", "store"}, 0.3, 0.3);
    state.stack({"main", "flush"}, 0.393, 0.335);
    EXPECT_EQ(state.find().has_value(), samples < 1000) << samples;
  }
}

TEST(CostShift, MovedAndTwiceAsExpensiveIsAChangeInAProcessThatUsesLittle) {
  TwoStates state;
  state.cores(0.2, 0.2);
  state.stack({"main", "get", "hash"}, 0.1, 0).stack({"main", "put", "hash"}, 0, 0.199);
  state.stack({"main", "get", "find"}, 0.2, 0.18).stack({"main", "put", "store"}, 0.3, 0.27);
  state.stack({"main", "flush"}, 0.4, 0.351);
  EXPECT_FALSE(state.find_where_worth(0.02));
}

TEST(CostShift, MovedAndMoreExpensiveIsAChange) {
  TwoStates state;
  state.stack({"main", "get", "checksum"}, 0.1, 0).stack({"main", "put", "checksum"}, 0, 0.25);
  state.stack({"main", "get"}, 0.3, 0.25).stack({"main", "put"}, 0.6, 0.5);
  EXPECT_FALSE(state.find());
}

// Two small changes beside a large one: what is worth telling in CPU time decides.
TEST(CostShift, ALittleElseThatIsNotWorthTellingIsNoObjection) {
  TwoStates state;
  state.stack({"main", "serve", "find"}, 0.2, 0).stack({"main", "serve", "lookup"}, 0, 0.2);
  state.stack({"main", "a"}, 0.05, 0.08).stack({"main", "flush"}, 0.75, 0.72);
  EXPECT_FALSE(state.cores(0.5, 0.5).find());
  EXPECT_TRUE(state.find_where_worth(0.02)) << "3 points of half a core are 0.015 cores";
}

TEST(CostShift, AGrownCallerOfASharedLeafIsAChange) {
  TwoStates state;
  state.stack({"main", "hot", "work"}, 0.1, 0.3);
  for (const char* name : {"a", "b", "c"}) state.stack({"main", name, "work"}, 0.3, 0.7 / 3);
  EXPECT_FALSE(state.find());
}

TEST(CostShift, OfTwoCallersOfASharedLeafNobodyKnows) {
  TwoStates state;
  state.stack({"main", "hot", "work"}, 0.3, 0.5).stack({"main", "other", "work"}, 0.7, 0.5);
  EXPECT_FALSE(state.find());
}

TEST(CostShift, AllThatThereIsUnderAnotherNameIsTheSameWhereTheCpuTimeIs) {
  const auto state = [] { return TwoStates().stack({"main", "find"}, 1, 0).stack({"main", "lookup"}, 0, 1); };
  EXPECT_FALSE(state().find()) << "nothing to compare with";
  EXPECT_TRUE(state().cores(0.5, 0.55).find());
  EXPECT_FALSE(state().cores(0.5, 0.9).find());
}

TEST(CostShift, AnotherPhaseOfWorkIsAChange) {
  TwoStates state;
  for (int i = 0; i < 10; ++i) {
    state.stack({"main", "load", "l" + std::to_string(i)}, 0.1, 0);
    state.stack({"main", "serve", "s" + std::to_string(i)}, 0, 0.1);
  }
  EXPECT_FALSE(state.cores(1, 1).find());
}

TEST(CostShift, RecursionIsNoTrap) {
  TwoStates state;
  state.stack({"main", "walk", "walk", "find"}, 0.2, 0).stack({"main", "walk", "walk", "lookup"}, 0, 0.2);
  state.stack({"main", "walk", "walk"}, 0.5, 0.5).stack({"main", "flush"}, 0.3, 0.3);
  const auto shift = state.find();
  ASSERT_TRUE(shift);
  EXPECT_EQ(state.name(shift->to), "lookup");
}

// ---- in the detector, with noise

std::vector<Leaf> program() {
  return {{{"main", "serve", "get", "find"}, 0.12}, {{"main", "serve", "get", "lookup"}, 0},
          {{"main", "serve", "get"}, 0.15},         {{"main", "serve", "put"}, 0.18},
          {{"main", "serve", "put", "find"}, 0},    {{"main", "flush"}, 0.3},
          {{"main", "expire", "scan"}, 0.25}};
}

struct Told {
  int found = 0;
  int shifts = 0;  // as the first finding says
  int at_last = 0;
  int wrong = 0;  // findings after the shift was learned
};

/// Ten minutes of the program, then `move` of the share of find, watched for three minutes.
Told tell(size_t to, double grown = 0) {
  Told out;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SimulatedProcess process(program(), seed);
    process.set_dispersion(2);
    CompositionDetector detector({}, {});
    for (int i = 0; i < 600; ++i) EXPECT_FALSE(detector.observe(process.tick()));
    process.move_share(0, to, 0.12);
    if (grown > 0) process.move_share(5, to, grown);
    std::optional<Finding> finding;
    for (int i = 0; i < 80 && !finding; ++i) finding = detector.observe(process.tick());
    if (!finding) continue;
    ++out.found;
    if (finding->shift) ++out.shifts;
    std::optional<Finding> last = finding;
    for (int i = 0; i < 40; ++i) last = detector.observe(process.tick());
    if (last && last->shift) ++out.at_last;
    for (int i = 0; i < 150; ++i) last = detector.observe(process.tick());
    if (last) ++out.wrong;
  }
  return out;
}

TEST(CompositionCostShift, ARenamedFunctionIsToldAsOneAndLearned) {
  const Told told = tell(1);
  EXPECT_EQ(told.found, 10);
  EXPECT_GE(told.shifts, 9);
  EXPECT_GE(told.at_last, 9);
  EXPECT_LE(told.wrong, 1);
}

TEST(CompositionCostShift, AnInlinedFunctionIsToldAsOne) {
  const Told told = tell(2);
  EXPECT_EQ(told.found, 10);
  EXPECT_GE(told.shifts, 9);
}

TEST(CompositionCostShift, AMovedFunctionIsToldAsOne) {
  const Told told = tell(4);
  EXPECT_EQ(told.found, 10);
  EXPECT_GE(told.at_last, 8);
}

TEST(CompositionCostShift, ARenamedFunctionThatTakesMoreIsAChange) {
  const Told told = tell(1, 0.1);
  EXPECT_EQ(told.found, 10);
  EXPECT_EQ(told.at_last, 0);
  EXPECT_LE(told.shifts, 1);
  EXPECT_EQ(told.wrong, 10) << "and stands";
}

// ---- over a restart: what vanished is in no stack of the successor

struct AfterRestart {
  int found = 0;
  int shifts = 0;
  std::optional<CostShift> last;
  std::string from, to, what;
};

AfterRestart restarted(const std::vector<Leaf>& before, const std::vector<Leaf>& after) {
  AfterRestart out;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SimulatedProcess first(before, seed);
    first.set_dispersion(2);
    CompositionDetector predecessor({}, {});
    for (int i = 0; i < 600; ++i) EXPECT_FALSE(predecessor.observe(first.tick()));
    SimulatedProcess second(after, seed + 100);
    second.set_dispersion(2);
    CompositionDetector successor({}, {});
    EXPECT_TRUE(successor.restore(predecessor.save()));
    std::optional<Finding> finding;
    for (int i = 0; i < 120 && !finding; ++i) finding = successor.observe(second.tick());
    if (!finding) continue;
    ++out.found;
    for (int i = 0; i < 20; ++i) finding = successor.observe(second.tick());
    if (!finding || !finding->shift) continue;
    ++out.shifts;
    out.last = finding->shift;
    const auto name = [&](const std::optional<FunctionId>& id) { return id ? second.name(*id) : ""; };
    out.from = name(finding->shift->from);
    out.to = name(finding->shift->to);
    out.what = name(finding->shift->what);
  }
  return out;
}

std::vector<Leaf> replaced(std::vector<Leaf> leaves, size_t leaf, const std::vector<std::string>& stack) {
  leaves.push_back({stack, std::exchange(leaves[leaf].share, 0)});
  return leaves;
}

TEST(CompositionCostShift, ARenamedFunctionOfARestartedProcessIsToldAsOne) {
  const AfterRestart told = restarted(program(), replaced(program(), 0, {"main", "serve", "get", "find_v2"}));
  EXPECT_EQ(told.found, 10);
  EXPECT_GE(told.shifts, 9);
  ASSERT_TRUE(told.last);
  EXPECT_EQ(told.last->kind, Kind::kRenamed);
  EXPECT_EQ(told.from, "find") << "somebody has a function of this name";
  EXPECT_EQ(told.to, "find_v2");
}

TEST(CompositionCostShift, WhatARestartedProcessWasCalledMayBeUnknown) {
  std::vector<Leaf> after = program();
  for (Leaf& leaf : after) std::ranges::replace(leaf.stack, "find", "find_v2");
  const AfterRestart told = restarted(program(), after);
  EXPECT_GE(told.shifts, 9);
  ASSERT_TRUE(told.last);
  EXPECT_FALSE(told.last->from);
  EXPECT_EQ(told.to, "find_v2");
}

TEST(CompositionCostShift, ACallerThatVanishedWithARestartIsSeen) {
  const std::vector<Leaf> before = replaced(program(), 0, {"main", "serve", "only_caller", "find"});
  const AfterRestart told = restarted(before, program());
  EXPECT_EQ(told.found, 10);
  EXPECT_GE(told.shifts, 9);
  ASSERT_TRUE(told.last);
  EXPECT_EQ(told.last->kind, Kind::kMoved);
  EXPECT_EQ(told.what, "find");
  EXPECT_EQ(told.to, "get");
}

TEST(CompositionCostShift, ARenamedFunctionOfARestartedProcessThatTakesMoreIsAChange) {
  std::vector<Leaf> after = replaced(program(), 0, {"main", "serve", "get", "find_v2"});
  after.back().share = 0.25;
  const AfterRestart told = restarted(program(), after);
  EXPECT_EQ(told.found, 10);
  EXPECT_EQ(told.shifts, 0);
}

TEST(CompositionCostShift, WhatStoppedWithARestartIsAChange) {
  std::vector<Leaf> after = program();
  after[6].share = 0;  // nobody takes the place of expire
  EXPECT_EQ(restarted(program(), after).shifts, 0);
}

}  // namespace
}  // namespace stackwatch
