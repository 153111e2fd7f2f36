// SPDX-License-Identifier: Apache-2.0
// What several probes show of one incident is one alert.
#include <gmock/gmock.h>

#include "daemon/alerting/journal_sink.h"
#include "daemon/alerting/message.h"
#include "systemd/message_ids.h"
#include "tests/unit/alerting/policy_fixture.h"

namespace stackwatch {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Field;
using testing::IsEmpty;
using testing::SizeIs;

using Findings = std::map<ProbeKind, std::vector<Finding>>;

class PartsTest : public PolicyTest {
 protected:
  Finding of_process(std::string_view detector, std::string_view unit, double before, double after,
                     double onset_s = -1) {
    Finding f = rate(before, after, onset_s);
    f.detector = detector;
    f.unit_of_measure = unit;
    f.change_cores = 0;
    return f;
  }
  /// The process grows, as the census sees it.
  Finding grows(double onset_s = -1) { return of_process("leak", "bytes of memory, growing", 4e6, 2e7, onset_s); }
  Finding busier(double onset_s = -1) { return of_process("rate", "cores", 0.1, 0.9, onset_s); }
  Finding leak(double onset_s = -1) {
    Finding f = composition({"main", "serve", "encode"}, 0, 2e7, onset_s);
    f.detector = "leak";
    f.unit_of_measure = "bytes outstanding";
    return f;
  }
  Finding waits(std::initializer_list<const char*> names = {"main", "serve", "lookup"}, double onset_s = -1) {
    Finding f = composition(names, 0.01, 0.9, onset_s);
    f.detector = "wait";
    f.unit_of_measure = "threads waiting";
    return f;
  }

  std::vector<Observation> all_of(const ProcessKey& process, const Findings& findings) {
    std::vector<Observation> observations;
    for (const auto& [probe, of_probe] : findings) {
      Observation& o = observations.emplace_back(observation(process, of_probe));
      o.probe = probe;
      for (Finding& f : o.findings) f.probe = probe;
    }
    return observations;
  }

  /// `seconds` ticks in which each of the probes says this; everything that changed in them.
  std::vector<Alert> run_probes(int seconds, const Findings& findings, const std::vector<ProcessKey>& processes) {
    std::vector<Alert> changed;
    for (int s = 0; s < seconds; ++s) {
      std::vector<Observation> observations;
      for (const ProcessKey& process : processes) {
        for (Observation& o : all_of(process, findings)) observations.push_back(std::move(o));
      }
      for (Alert& alert : tick(std::move(observations))) changed.push_back(std::move(alert));
    }
    return changed;
  }
  std::vector<Alert> run_probes(int seconds, const Findings& findings) {
    return run_probes(seconds, findings, {kRedis});
  }

  Alert only() const {
    const auto all = policy_->all();
    EXPECT_THAT(all, SizeIs(1));
    return all.empty() ? Alert{} : all[0];
  }
  void restart() {
    const auto standing = policy_->standing();
    make_policy({});
    policy_->restore(
        standing, [](const Alert&) { return true; }, now_s(),
        static_cast<int64_t>(clock_.realtime_ns() - clock_.monotonic_ns()));
  }

  static constexpr ProbeKind kCensus = ProbeKind::kCensus;
  static constexpr ProbeKind kMemory = ProbeKind::kMemory;
  static constexpr ProbeKind kOnCpu = ProbeKind::kOnCpu;
  static constexpr ProbeKind kBlocked = ProbeKind::kBlocked;
};

TEST_F(PartsTest, ALeakThatTheCensusSawFirstIsOneAlertThatGetsItsFunction) {
  const auto fired = run_probes(8, {{kCensus, {grows(onset_s_ - 12)}}, {kMemory, {}}});
  ASSERT_THAT(fired, SizeIs(1));
  EXPECT_EQ(fired[0].frame, "");
  const auto named = run_probes(60, {{kCensus, {grows(onset_s_ - 12)}}, {kMemory, {leak()}}});
  ASSERT_THAT(named, SizeIs(1)) << "its function is told once";
  EXPECT_EQ(named[0].id, fired[0].id);
  EXPECT_EQ(named[0].opened_ns, fired[0].opened_ns);
  EXPECT_TRUE(named[0].is_named_later());
  EXPECT_EQ(named[0].probe, kMemory);
  EXPECT_EQ(named[0].frame, "encode");
  EXPECT_EQ(named[0].unit_of_measure, "bytes outstanding");
  EXPECT_THAT(named[0].stack, ElementsAre("main", "serve", "encode"));
  ASSERT_THAT(named[0].parts, SizeIs(1));
  EXPECT_EQ(named[0].parts[0].probe, kCensus);
  EXPECT_EQ(named[0].parts[0].unit_of_measure, "bytes of memory, growing");
  EXPECT_DOUBLE_EQ(named[0].parts[0].after, 2e7);
  EXPECT_TRUE(named[0].parts[0].stands);
  EXPECT_EQ(policy_->firing(), 1U);
  EXPECT_EQ(policy_->counters().fired, 1U);
  EXPECT_EQ(policy_->counters().joined, 1U);
}

TEST_F(PartsTest, TheJournalTellsTheFunctionUnderAMessageIdOfItsOwn) {
  const auto fired = run_probes(8, {{kCensus, {grows()}}});
  const auto named = run_probes(8, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  ASSERT_THAT(fired, SizeIs(1));
  ASSERT_THAT(named, SizeIs(1));
  EXPECT_THAT(journal_fields(fired[0], false), Contains(std::string("MESSAGE_ID=") + kMessageIdAlertFiring));
  const auto fields = journal_fields(named[0], false);
  EXPECT_THAT(fields, Contains(std::string("MESSAGE_ID=") + kMessageIdAlertNamed));
  EXPECT_THAT(fields, Contains("PRIORITY=5"));
  EXPECT_THAT(fields, Contains("STACKWATCH_STATE=firing"));
  EXPECT_THAT(fields, Contains("STACKWATCH_ALERT_ID=" + fired[0].id));
  EXPECT_THAT(fields, Contains("STACKWATCH_FRAME=encode"));
  const auto over = run_probes(30, {{kCensus, {}}, {kMemory, {}}});
  ASSERT_THAT(over, SizeIs(1));
  EXPECT_THAT(journal_fields(over[0], false), Contains(std::string("MESSAGE_ID=") + kMessageIdAlertResolved));
}

TEST_F(PartsTest, WhatBeginsInOneTickIsToldWithItsFunctionAtOnce) {
  const auto changed = run_probes(30, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "encode");
  EXPECT_FALSE(changed[0].named_ns);
  EXPECT_THAT(changed[0].parts, SizeIs(1));
}

TEST_F(PartsTest, ABusyWorkerIsOneAlert) {
  ASSERT_THAT(run_probes(8, {{kOnCpu, {composition({"main", "lookup"})}}, {kCensus, {}}}), SizeIs(1));
  const Finding peers = of_process("peers", "cores more than its siblings", 0, 0.04, onset_s_ + 3);
  EXPECT_THAT(run_probes(20, {{kOnCpu, {composition({"main", "lookup"})}}, {kCensus, {peers}}}), IsEmpty());
  EXPECT_EQ(only().frame, "lookup");
  ASSERT_THAT(only().parts, SizeIs(1));
  EXPECT_EQ(only().parts[0].detector, "peers");
}

TEST_F(PartsTest, AProcessThatWaitsMoreAndComputesLessIsOneAlert) {
  const Findings slow_disk = {{kBlocked, {waits()}}, {kOnCpu, {of_process("rate", "cores", 0.9, 0.1)}}};
  const auto changed = run_probes(30, slow_disk);
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "lookup");
  EXPECT_EQ(changed[0].probe, kBlocked);
}

TEST_F(PartsTest, TwoCausesAtDifferentTimesStayTwo) {
  const Findings lock_and_leak = {
      {kBlocked, {waits({"main", "serve", "lookup"}, onset_s_ - 1680)}}, {kCensus, {grows()}}, {kMemory, {leak()}}};
  const auto changed = run_probes(30, lock_and_leak);
  ASSERT_THAT(changed, SizeIs(2));
  EXPECT_NE(changed[0].id, changed[1].id);
  EXPECT_EQ(policy_->firing(), 2U);
}

TEST_F(PartsTest, MemoryAndTimeThatGoWrongTogetherStayTwo) {
  const Findings both = {{kCensus, {busier()}}, {kMemory, {leak()}}};
  EXPECT_THAT(run_probes(30, both), SizeIs(2));
  EXPECT_THAT(policy_->all()[0].parts, IsEmpty());
  EXPECT_THAT(policy_->all()[1].parts, IsEmpty());
}

TEST_F(PartsTest, FaultsComeWithEither) {
  const Finding faults = of_process("rate", "faults per second", 10, 9000);
  EXPECT_THAT(run_probes(30, {{kCensus, {faults}}, {kMemory, {leak()}}}), SizeIs(1));
  make_policy({});
  EXPECT_THAT(run_probes(30, {{kCensus, {faults}}, {kOnCpu, {composition({"main", "lookup"})}}}), SizeIs(1));
}

TEST_F(PartsTest, FunctionsOfOneStackAreOneIncidentAndOthersAreNot) {
  const Finding syscalls = composition({"main", "serve", "lookup", "futex_[k]"});
  EXPECT_THAT(run_probes(30, {{kBlocked, {waits()}}, {kOnCpu, {syscalls}}}), SizeIs(1));
  const Finding elsewhere = composition({"main", "encode"});
  make_policy({});
  EXPECT_THAT(run_probes(30, {{kBlocked, {waits()}}, {kOnCpu, {elsewhere}}}), SizeIs(2));
}

TEST_F(PartsTest, AFunctionDoesNotJoinByWayOfTheWholeProcess) {
  const Findings three = {
      {kBlocked, {waits()}}, {kCensus, {busier()}}, {ProbeKind::kPageFault, {composition({"main", "encode"})}}};
  const auto changed = run_probes(30, three);
  EXPECT_THAT(changed, SizeIs(2)) << "waiting with the census, and faults in another function";
}

TEST_F(PartsTest, APartThatGoesAwayWithinThePersistenceDoesNotJoin) {
  run_probes(8, {{kOnCpu, {composition({"main", "lookup"})}}, {kCensus, {}}});
  run_probes(3, {{kOnCpu, {composition({"main", "lookup"})}}, {kCensus, {busier()}}});
  run_probes(3, {{kOnCpu, {composition({"main", "lookup"})}}, {kCensus, {}}});
  EXPECT_THAT(only().parts, IsEmpty());
  EXPECT_EQ(policy_->counters().vanished, 1U);
}

TEST_F(PartsTest, CostThatMovedIsNoPartOfAnAlarm) {
  Finding moved = composition({"main", "serve", "lookup"});
  moved.shift = CostShift{CostShift::Kind::kRenamed, function("find"), function("lookup"), function("serve"), {}};
  const auto changed = run_probes(30, {{kBlocked, {waits()}}, {kOnCpu, {moved}}});
  ASSERT_THAT(changed, SizeIs(2));
  EXPECT_EQ(policy_->counters().shifts, 1U);
}

TEST_F(PartsTest, APartThatTurnsOutToBeCostThatMovedDoesNotNameTheAlarm) {
  ASSERT_THAT(run_probes(8, {{kCensus, {busier()}}, {kOnCpu, {rate()}}}), SizeIs(1));
  Finding moved = composition({"main", "serve", "lookup"});
  moved.shift = CostShift{CostShift::Kind::kRenamed, function("find"), function("lookup"), function("serve"), {}};
  EXPECT_THAT(run_probes(8, {{kCensus, {busier()}}, {kOnCpu, {rate(), moved}}}), IsEmpty());
  EXPECT_EQ(only().frame, "");
  EXPECT_FALSE(only().shift);
  EXPECT_THAT(run_probes(8, {{kCensus, {busier()}}, {kOnCpu, {rate(), composition({"main", "encode"})}}}), SizeIs(1));
  EXPECT_EQ(only().frame, "encode");
}

TEST_F(PartsTest, ResolvedWhenAllPartsAreOver) {
  run_probes(30, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  // What is told first, then the part.
  EXPECT_THAT(run_probes(30, {{kCensus, {grows()}}, {kMemory, {}}}), IsEmpty());
  EXPECT_EQ(policy_->firing(), 1U);
  EXPECT_TRUE(only().parts[0].stands);
  const auto changed = run_probes(30, {{kCensus, {}}, {kMemory, {}}});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kBackToBaseline);
  EXPECT_EQ(changed[0].frame, "encode");
  ASSERT_THAT(changed[0].parts, SizeIs(1)) << "what it showed stays told";
  EXPECT_FALSE(changed[0].parts[0].stands);
  EXPECT_FALSE(policy_->concerns(kRedis));
}

TEST_F(PartsTest, APartThatIsOverDoesNotEndTheAlert) {
  run_probes(30, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  EXPECT_THAT(run_probes(30, {{kCensus, {}}, {kMemory, {leak()}}}), IsEmpty());
  EXPECT_FALSE(only().parts[0].stands);
  run_probes(8, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  EXPECT_TRUE(only().parts[0].stands) << "and may come back";
  EXPECT_THAT(only().parts, SizeIs(1));
}

TEST_F(PartsTest, AProbeThatIsTakenAwayEndsItsPartAlone) {
  run_probes(30, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  EXPECT_THAT(run_probes(30, {{kCensus, {grows()}}}), IsEmpty());
  const auto changed = run_probes(30, {{kCensus, {}}});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kBackToBaseline);
}

TEST_F(PartsTest, NamedAfterWhatToldItIsOver) {
  ASSERT_THAT(run_probes(8, {{kCensus, {busier()}}, {ProbeKind::kRunQueue, {busier()}}}), SizeIs(1));
  // The told part ends, another one keeps the alert; then the function is found.
  EXPECT_THAT(run_probes(30, {{kCensus, {}}, {ProbeKind::kRunQueue, {busier()}}}), IsEmpty());
  const Findings named = {
      {kCensus, {}}, {ProbeKind::kRunQueue, {busier()}}, {kOnCpu, {composition({"main", "lookup"})}}};
  const auto changed = run_probes(8, named);
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "lookup");
  const auto over = run_probes(30, {{kCensus, {}}, {ProbeKind::kRunQueue, {}}, {kOnCpu, {}}});
  ASSERT_THAT(over, SizeIs(1));
  EXPECT_EQ(over[0].id, changed[0].id);
  EXPECT_FALSE(policy_->concerns(kRedis)) << "nothing of it is left";
}

TEST_F(PartsTest, AnExitEndsAllAtOnce) {
  run_probes(30, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  const auto changed = tick({}, {kRedis});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kProcessExited);
  EXPECT_FALSE(policy_->concerns(kRedis));
  EXPECT_EQ(policy_->firing(), 0U);
}

TEST_F(PartsTest, DuringTheCooldownNoPartMakesANewAlert) {
  run_probes(30, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  run_probes(30, {{kCensus, {}}, {kMemory, {}}});
  ASSERT_EQ(policy_->firing(), 0U);
  onset_s_ = now_s();
  EXPECT_THAT(run_probes(60, {{kCensus, {grows()}}, {kMemory, {}}}), IsEmpty());
  EXPECT_THAT(policy_->all(), SizeIs(1));
  const auto changed = run_probes(300, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  ASSERT_THAT(changed, SizeIs(1)) << "after it the incident is one alert again, under its old id";
  EXPECT_EQ(changed[0].id, "000000000001");
  EXPECT_EQ(changed[0].frame, "encode");
}

TEST_F(PartsTest, APartThatComesBackMuchLargerFiresDuringTheCooldown) {
  run_probes(30, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  run_probes(30, {{kCensus, {}}, {kMemory, {}}});
  onset_s_ = now_s();
  Finding larger = grows();
  larger.after = 5e7;
  const auto changed = run_probes(20, {{kCensus, {larger}}, {kMemory, {}}});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "000000000001");
}

TEST_F(PartsTest, AfterARestartWhatIsSeenAgainJoinsAgain) {
  run_probes(30, {{kCensus, {grows()}}, {kMemory, {leak()}}});
  const uint64_t told_ns = only().onset_ns;
  clock_.advance_s(600);
  restart();
  ASSERT_THAT(only().parts, SizeIs(1));
  onset_s_ = now_s() + 2;  // as detectors see it that know the past, or begin to learn
  run_probes(10, {{kCensus, {}}, {kMemory, {}}});
  EXPECT_THAT(run_probes(20, {{kCensus, {grows()}}, {kMemory, {}}}), IsEmpty()) << "the part before what is told";
  EXPECT_TRUE(only().parts[0].stands);
  EXPECT_THAT(run_probes(20, {{kCensus, {grows()}}, {kMemory, {leak()}}}), IsEmpty());
  EXPECT_NEAR(static_cast<double>(only().onset_ns), static_cast<double>(told_ns), 1e6);
  const auto changed = run_probes(30, {{kCensus, {}}, {kMemory, {}}});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kResolved);
  EXPECT_FALSE(changed[0].parts[0].stands);
}

TEST_F(PartsTest, AfterARestartTheFunctionIsStillToldOnceAndTheOnsetStays) {
  run_probes(8, {{kCensus, {grows()}}});
  const uint64_t told_ns = only().onset_ns;
  clock_.advance_s(600);
  restart();
  onset_s_ = now_s() + 2;
  run_probes(10, {{kCensus, {}}, {kMemory, {}}});
  const auto changed = run_probes(20, {{kCensus, {}}, {kMemory, {leak()}}});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_TRUE(changed[0].is_named_later());
  EXPECT_EQ(changed[0].id, "000000000001");
  EXPECT_NEAR(static_cast<double>(only().onset_ns), static_cast<double>(told_ns), 1e6);
  restart();
  EXPECT_THAT(run_probes(20, {{kCensus, {}}, {kMemory, {leak(now_s())}}}), IsEmpty()) << "not once more";
}

// Detectors that remember do not judge the first minutes, and then see an onset that is none.
TEST_F(PartsTest, MinutesAfterARestartAPartJoinsAgainToo) {
  const std::vector<Finding> stands = {composition({"main", "lookup"})};
  run_probes(30, {{kOnCpu, stands}, {kCensus, {busier(onset_s_)}}});
  ASSERT_THAT(only().parts, SizeIs(1));
  restart();
  run_probes(200, {{kOnCpu, stands}, {kCensus, {}}});
  EXPECT_THAT(run_probes(40, {{kOnCpu, stands}, {kCensus, {busier(now_s())}}}), IsEmpty());
  EXPECT_TRUE(only().parts[0].stands);
}

TEST_F(PartsTest, LongAfterARestartANewChangeIsAnAlertOfItsOwn) {
  run_probes(8, {{kOnCpu, {composition({"main", "lookup"})}}});
  restart();
  const std::vector<Finding> stands = {composition({"main", "lookup"})};
  run_probes(120, {{kOnCpu, stands}, {kCensus, {}}});
  EXPECT_THAT(run_probes(20, {{kOnCpu, stands}, {kCensus, {busier(now_s())}}}), SizeIs(1));
}

TEST_F(PartsTest, TenWorkersSeenByTwoProbesAreOneAlert) {
  std::vector<ProcessKey> workers;
  for (int i = 0; i < 10; ++i) workers.push_back({5000 + i, 1});
  const auto fired = run_probes(10, {{kCensus, {busier()}}, {kOnCpu, {}}}, workers);
  ASSERT_THAT(fired, SizeIs(1));
  const auto named = run_probes(10, {{kCensus, {busier()}}, {kOnCpu, {composition({"main", "lookup"})}}}, workers);
  ASSERT_THAT(named, SizeIs(1));
  EXPECT_TRUE(named[0].is_named_later());
  EXPECT_EQ(named[0].id, fired[0].id);
  EXPECT_EQ(named[0].process.key, workers[0]);
  EXPECT_EQ(policy_->firing(), 1U);
  ASSERT_THAT(only().processes, SizeIs(10));
  for (const Alert::Member& member : only().processes) {
    EXPECT_TRUE(member.stands);
    EXPECT_DOUBLE_EQ(member.after, 0.3) << "in the unit of what is told now";
  }
  EXPECT_THAT(only().parts, SizeIs(1));
  EXPECT_THAT(run_probes(30, {{kCensus, {busier()}}, {kOnCpu, {}}}, workers), IsEmpty());
  for (const Alert::Member& member : only().processes) EXPECT_TRUE(member.stands) << "its other part stands";
  ASSERT_THAT(run_probes(30, {{kCensus, {}}, {kOnCpu, {}}}, workers), SizeIs(1));
  for (const ProcessKey& worker : workers) EXPECT_FALSE(policy_->concerns(worker));
}

TEST_F(PartsTest, AWorkersFunctionDoesNotMakeTheAlertAboutTheWorker) {
  const ProcessKey first{5000, 1}, second{5001, 1};
  ASSERT_THAT(run_probes(8, {{kCensus, {busier()}}}, {first, second}), SizeIs(1));
  const Finding named = composition({"main", "lookup"});
  const auto of_second = [&] {
    auto observations = all_of(first, {{kCensus, {busier()}}, {kOnCpu, {}}});
    for (Observation& o : all_of(second, {{kCensus, {busier()}}, {kOnCpu, {named}}})) observations.push_back(o);
    return tick(std::move(observations));
  };
  for (int s = 0; s < 10; ++s) EXPECT_THAT(of_second(), IsEmpty());
  EXPECT_EQ(only().process.key, first);
  EXPECT_EQ(only().frame, "");
  ASSERT_THAT(only().parts, SizeIs(1));
  EXPECT_EQ(only().parts[0].frame, "lookup");
  const auto changed = run_probes(8, {{kCensus, {busier()}}, {kOnCpu, {named}}}, {first, second});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].process.key, first);
  EXPECT_EQ(changed[0].frame, "lookup");
}

TEST_F(PartsTest, PartsAreBounded) {
  static constexpr const char* kUnits[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};
  const std::vector<Finding> stands = {composition({"main", "lookup"})};
  run_probes(8, {{kOnCpu, stands}, {kCensus, {}}});
  for (const char* unit : kUnits) {
    run_probes(7, {{kOnCpu, stands}, {kCensus, {of_process("rate", unit, 1, 9)}}});
    run_probes(16, {{kOnCpu, stands}, {kCensus, {}}});
  }
  EXPECT_THAT(only().parts, SizeIs(8));
}

}  // namespace
}  // namespace stackwatch
