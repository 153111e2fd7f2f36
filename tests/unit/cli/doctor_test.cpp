// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor.h"

#include <gmock/gmock.h>
#include <rapidjson/document.h>

#include <algorithm>

#include "tests/fakes/proc_tree.h"

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

constexpr char kAllSix[] = "000001c400080004";  // bits 2, 19, 34, 38, 39, 40

/// A machine on which everything is as it should be.
class DoctorTest : public testing::Test {
 protected:
  DoctorTest() {
    tree_.write("proc/sys/kernel/osrelease", "6.1.0-1\n");
    tree_.write("proc/sys/kernel/perf_event_paranoid", "3\n");
    tree_.write("proc/sys/kernel/kptr_restrict", "1\n");
    tree_.write("proc/sys/kernel/yama/ptrace_scope", "1\n");
    tree_.write("sys/kernel/btf/vmlinux", "BTF");
    tree_.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    tree_.write("run/systemd/journal/socket", "");
    capabilities(kAllSix);
    tree_.link("proc/self/ns/user", "user:[4026531837]");
    tree_.link("proc/self/ns/pid", "pid:[4026531836]");
  }
  void capabilities(const std::string& effective) {
    tree_.write("proc/self/status", "Name:\tCapEff:\t0\nCapPrm:\t0\nCapEff:\t" + effective + "\nSeccomp:\t0\n");
  }
  [[nodiscard]] DoctorReport report(ProcessFacts facts = {}, std::vector<Trial> trials = {}) const {
    return examine(tree_.root(), facts, std::move(trials));
  }
  [[nodiscard]] static Check check(const DoctorReport& report, const std::string& id) {
    const auto found = std::ranges::find(report.checks, id, &Check::id);
    if (found != report.checks.end()) return *found;
    ADD_FAILURE() << "no check " << id;
    return {};
  }
  ProcTree tree_;
};

TEST_F(DoctorTest, AGoodMachineIsGood) {
  const DoctorReport good = report();
  for (const Check& check : good.checks) {
    EXPECT_EQ(check.state, CheckState::kOk) << check.id << ": " << check.found;
    EXPECT_EQ(check.advice, "") << check.id;
    EXPECT_NE(check.found, "") << check.id;
  }
  EXPECT_EQ(good.exit_code(), 0);
  EXPECT_EQ(good.kernel, "6.1.0-1");
}

TEST_F(DoctorTest, AnEmptyRootIsNoCrash) {
  const ProcTree empty;
  const DoctorReport nothing = examine(empty.root(), {}, {});
  EXPECT_EQ(nothing.kernel, "(unknown)");
  EXPECT_EQ(check(nothing, "btf").state, CheckState::kMissing);
  EXPECT_EQ(check(nothing, "capabilities").state, CheckState::kMissing);
  EXPECT_EQ(nothing.exit_code(), 3);
}

TEST_F(DoctorTest, GarbageInStatusIsNoCapability) {
  capabilities("zzzz");
  EXPECT_EQ(check(report(), "capabilities").state, CheckState::kMissing);
  capabilities("");
  EXPECT_EQ(check(report(), "capabilities").state, CheckState::kMissing);
}

TEST_F(DoctorTest, BtfIsNeeded) {
  tree_.remove("sys/kernel/btf");
  EXPECT_EQ(check(report(), "btf").state, CheckState::kMissing);
  EXPECT_THAT(check(report(), "btf").advice, HasSubstr("CONFIG_DEBUG_INFO_BTF"));
  EXPECT_EQ(report().exit_code(), 3);
}

TEST_F(DoctorTest, LockdownForConfidentialityForbidsAll) {
  tree_.write("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
  EXPECT_EQ(check(report(), "lockdown").state, CheckState::kMissing);
  EXPECT_THAT(check(report(), "lockdown").advice, HasSubstr("lockdown=integrity"));
}

TEST_F(DoctorTest, EachCapabilityIsMissedByName) {
  struct Row {
    const char* bits;
    const char* name;
    CheckState state;
  };
  for (const Row& row : {Row{"0000014400080004", "CAP_BPF", CheckState::kMissing},
                         Row{"0000018400080004", "CAP_PERFMON", CheckState::kMissing},
                         Row{"000001c400000004", "CAP_SYS_PTRACE", CheckState::kLimited},
                         Row{"000001c400080000", "CAP_DAC_READ_SEARCH", CheckState::kLimited},
                         Row{"000000c400080004", "CAP_CHECKPOINT_RESTORE", CheckState::kLimited},
                         Row{"000001c000080004", "CAP_SYSLOG", CheckState::kLimited}}) {
    capabilities(row.bits);
    const Check found = check(report(), "capabilities");
    EXPECT_EQ(found.state, row.state) << row.name;
    EXPECT_THAT(found.found, HasSubstr(row.name));
    EXPECT_EQ(std::ranges::count(found.found, ';'), 0) << found.found;
    EXPECT_NE(found.advice, "");
  }
}

TEST_F(DoctorTest, SysAdminStandsForTheNewerThree) {
  capabilities("0000000400280004");  // SYS_ADMIN, and the older three
  EXPECT_EQ(check(report(), "capabilities").state, CheckState::kOk);
  EXPECT_EQ(check(report(), "perf_event_paranoid").state, CheckState::kOk);
}

TEST_F(DoctorTest, ParanoidMattersWithoutPerfmonAlone) {
  EXPECT_EQ(check(report(), "perf_event_paranoid").state, CheckState::kOk);
  capabilities("0000018400080004");
  EXPECT_EQ(check(report(), "perf_event_paranoid").state, CheckState::kMissing);
  tree_.remove("proc/sys/kernel/perf_event_paranoid");
  EXPECT_THAT(check(report(), "perf_event_paranoid").advice, HasSubstr("CONFIG_PERF_EVENTS"));
}

TEST_F(DoctorTest, MemlockMattersWhereProgramsDoNotLoad) {
  const ProcessFacts small{.memlock_bytes = 65536};
  EXPECT_EQ(check(report(small), "memlock").state, CheckState::kLimited);
  EXPECT_THAT(check(report(small), "memlock").found, HasSubstr("64 KiB"));
  EXPECT_THAT(check(report(small), "memlock").advice, HasSubstr("LimitMEMLOCK"));
  EXPECT_EQ(check(report(small, {{"on_cpu", CheckState::kMissing, std::string("counts")}}), "memlock").state,
            CheckState::kOk);
  capabilities("000001c401080004");  // and SYS_RESOURCE
  EXPECT_EQ(check(report(small), "memlock").state, CheckState::kOk);
}

TEST_F(DoctorTest, HiddenKernelAddressesLimit) {
  tree_.write("proc/sys/kernel/kptr_restrict", "2\n");
  EXPECT_EQ(check(report(), "kptr_restrict").state, CheckState::kLimited);
  EXPECT_EQ(report().exit_code(), 0) << "it is no probe that is missing";
}

TEST_F(DoctorTest, ContainersAreToldApart) {
  tree_.link("proc/self/ns/pid", "pid:[4026532299]");
  EXPECT_EQ(check(report(), "container").state, CheckState::kLimited);
  EXPECT_THAT(check(report(), "container").advice, HasSubstr("--pid=host"));
  tree_.link("proc/self/ns/user", "user:[4026532300]");
  EXPECT_EQ(check(report(), "container").state, CheckState::kMissing);
  tree_.write("proc/self/status", "CapEff:\t0\nSeccomp:\t2\n");
  EXPECT_THAT(check(report(), "container").found, HasSubstr("seccomp"));
}

TEST_F(DoctorTest, NoJournalLimits) {
  tree_.remove("run/systemd");
  EXPECT_EQ(check(report(), "journal").state, CheckState::kLimited);
}

TEST_F(DoctorTest, TracefsAndYamaAreSeenAndDoNotMatter) {
  EXPECT_EQ(check(report(), "tracefs").found, "not mounted; not needed");
  tree_.write("sys/kernel/tracing/events/enable", "0");
  EXPECT_EQ(check(report(), "tracefs").found, "mounted; not needed");
  tree_.write("proc/sys/kernel/yama/ptrace_scope", "3\n");
  EXPECT_THAT(check(report(), "ptrace_scope").found, HasSubstr("3"));
  EXPECT_EQ(check(report(), "ptrace_scope").state, CheckState::kOk);
}

TEST_F(DoctorTest, ATrialThatFailedSaysWhyAndWhatToDo) {
  const DoctorReport failed = report(
      {},
      {{"memory", CheckState::kMissing, fail(ErrorKind::kUnsupported, "try probes", "not permitted", "use a drop-in")},
       {"daemon", CheckState::kLimited, fail(ErrorKind::kNoDaemon, "connect", "nobody is there", "start it")},
       {"on_cpu", CheckState::kMissing, std::string("on_cpu 26 samples")}});
  EXPECT_EQ(check(failed, "memory").state, CheckState::kMissing);
  EXPECT_EQ(check(failed, "memory").found, "try probes: not permitted");
  EXPECT_EQ(check(failed, "memory").advice, "use a drop-in");
  EXPECT_EQ(check(failed, "daemon").state, CheckState::kLimited);
  EXPECT_EQ(check(failed, "on_cpu").state, CheckState::kOk);
  EXPECT_EQ(failed.exit_code(), 3);
}

TEST_F(DoctorTest, HostileTextIsMadeHarmless) {
  tree_.write("proc/sys/kernel/osrelease", "6.1\x1b[2J\xff\n");
  const DoctorReport hostile = report();
  for (const std::string& text : {render_doctor(hostile, Style{false}), doctor_to_json(hostile)}) {
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_EQ(text.find('\xff'), std::string::npos);
  }
}

TEST_F(DoctorTest, JsonHasEveryCheckAndNullWhereNothingIsToBeDone) {
  const std::string text = doctor_to_json(report());
  EXPECT_EQ(std::ranges::count(text, '\n'), 1);
  rapidjson::Document document;
  document.Parse(text.c_str());
  ASSERT_FALSE(document.HasParseError()) << text;
  EXPECT_TRUE(document["works"].GetBool());
  ASSERT_EQ(document["checks"].Size(), report().checks.size());
  EXPECT_STREQ(document["checks"][0]["id"].GetString(), "btf");
  EXPECT_STREQ(document["checks"][0]["state"].GetString(), "ok");
  EXPECT_TRUE(document["checks"][0]["advice"].IsNull());
}

TEST_F(DoctorTest, TextEndsWithTheVerdict) {
  EXPECT_TRUE(render_doctor(report(), Style{false}).ends_with("All probes work here.\n"));
  tree_.remove("sys/kernel/btf");
  const std::string text = render_doctor(report(), Style{false});
  EXPECT_TRUE(text.ends_with("is missing here.\n"));
  EXPECT_THAT(text, HasSubstr("missing  btf"));
  EXPECT_THAT(text, HasSubstr("-> boot a kernel"));
}

}  // namespace
}  // namespace stackwatch
