// SPDX-License-Identifier: Apache-2.0
#include "daemon/proc_census.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

#include "tests/fakes/proc_tree.h"

namespace stackwatch {
namespace {

using Process = ProcTree::Process;

std::string stat_with_comm(const std::string& comm) {
  return ProcTree::stat({.pid = 10, .comm = comm, .parent_pid = 7});
}

TEST(ParseProcStat, WhatIsNoSuchLineIsNothing) {
  for (const char* text : {"", "\n", "10", "10 (", "10 (a", "10 (a)", "10 a) S 1", ")(", "10 )a( S 1 1 1", "10 (a) S",
                           "10 (a) S 1", "10 (a) S x 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100"}) {
    EXPECT_FALSE(parse_proc_stat(text)) << '"' << text << '"';
  }
}

TEST(ParseProcStat, ALineThatIsCutAnywhereIsNothingOrWhole) {
  const Process process{.pid = 10, .comm = "a b", .parent_pid = 7, .user_ticks = 55, .start_ticks = 123456};
  const std::string whole = ProcTree::stat(process);
  // Up to the field before `policy` something is missing.
  size_t field = 0;
  size_t at = whole.rfind(')') + 1;
  for (; field < 39; ++field) at = whole.find(' ', at) + 1;
  for (size_t length = 0; length < at; ++length) {
    EXPECT_FALSE(parse_proc_stat(whole.substr(0, length))) << length << " bytes";
  }
  const auto parsed = parse_proc_stat(whole);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->start_ticks, 123456U);
}

TEST(ParseProcStat, EveryFieldInItsPlace) {
  const auto stat = parse_proc_stat(ProcTree::stat({.pid = 10,
                                                    .comm = "redis-server",
                                                    .parent_pid = 7,
                                                    .flags = 0x00400100,
                                                    .minor_faults = 11,
                                                    .major_faults = 12,
                                                    .user_ticks = 130,
                                                    .system_ticks = 14,
                                                    .nice = -5,
                                                    .start_ticks = 987654,
                                                    .rss_pages = 2048,
                                                    .policy = 2,
                                                    .threads = {{10}, {11}, {12}}}));
  ASSERT_TRUE(stat);
  EXPECT_EQ(stat->comm, "redis-server");
  EXPECT_EQ(stat->state, 'S');
  EXPECT_EQ(stat->parent_pid, 7);
  EXPECT_EQ(stat->flags, 0x00400100U);
  EXPECT_EQ(stat->minor_faults, 11U);
  EXPECT_EQ(stat->major_faults, 12U);
  EXPECT_EQ(stat->cpu_ticks, 144U) << "user and system, without the children's";
  EXPECT_EQ(stat->nice, -5);
  EXPECT_EQ(stat->threads, 3U);
  EXPECT_EQ(stat->start_ticks, 987654U);
  EXPECT_EQ(stat->rss_pages, 2048U);
  EXPECT_EQ(stat->policy, 2U);
}

TEST(ParseProcStat, TheNameMayHoldAnything) {
  for (const std::string& comm :
       {std::string("a) R 1 (b"), std::string(") S 1 1 1 0 -1"), std::string("("), std::string(")"),
        std::string("))))"), std::string(" "), std::string(""), std::string("two\nlines"), std::string("\xff\xfe"),
        std::string("a\0b", 3), std::string("(sd-pam)"), std::string("1 (x) S 2")}) {
    const auto stat = parse_proc_stat(stat_with_comm(comm));
    ASSERT_TRUE(stat) << '"' << comm << '"';
    EXPECT_EQ(stat->comm, comm);
    EXPECT_EQ(stat->parent_pid, 7) << '"' << comm << '"';
    EXPECT_EQ(stat->start_ticks, 100U) << '"' << comm << '"';
  }
}

TEST(ParseProcStat, NumbersTooLargeAreNoNumbers) {
  std::string line = stat_with_comm("a");
  const size_t at = line.find("18446744073709551615");
  ASSERT_NE(at, line.npos);
  EXPECT_TRUE(parse_proc_stat(line)) << "the largest is one: RLIM_INFINITY";
  line.insert(at, "9");
  EXPECT_FALSE(parse_proc_stat(line));
}

class ProcCensusTest : public testing::Test {
 protected:
  std::vector<ProcessSample> take() {
    auto samples = census_->take();
    if (!samples) {
      ADD_FAILURE() << samples.error().message();
      return {};
    }
    std::ranges::sort(*samples, {}, &ProcessSample::key);
    return *samples;
  }

  ProcTree tree_;
  std::unique_ptr<Census> census_ = make_proc_census(Procfs(tree_.root()));
};

TEST_F(ProcCensusTest, ATreeWithoutProcessesIsAnErrorAndNotAnEmptyMachine) {
  const auto samples = census_->take();
  ASSERT_FALSE(samples);
  EXPECT_EQ(samples.error().kind, ErrorKind::kUnsupported);
  EXPECT_NE(samples.error().message().find(tree_.root()), std::string::npos);
}

TEST_F(ProcCensusTest, WhoseFilesAreGoneOrBrokenIsLeftOut) {
  tree_.put({.pid = 10});
  tree_.write("11/cmdline", "it ended while it was looked at");
  tree_.write("12/stat", "garbage");
  tree_.write("13/stat", "");
  const auto samples = take();
  ASSERT_EQ(samples.size(), 1U);
  EXPECT_EQ(samples[0].key.pid, 10);
}

TEST_F(ProcCensusTest, WithoutMoreThanStatAProcessIsStillOne) {
  tree_.write("10/stat", ProcTree::stat({.pid = 10, .user_ticks = 5}));
  const auto samples = take();
  ASSERT_EQ(samples.size(), 1U);
  EXPECT_EQ(samples[0].on_cpu_ns, 5U * (1'000'000'000U / static_cast<uint64_t>(sysconf(_SC_CLK_TCK))));
  EXPECT_EQ(samples[0].cgroup, "");
  EXPECT_EQ(samples[0].voluntary_switches, 0U);
}

TEST_F(ProcCensusTest, HostileThreadFilesAreZero) {
  tree_.put({.pid = 10});
  for (const char* text : {"", "1", "1 ", "a b c", "123 -5", "99999999999999999999 99999999999999999999"}) {
    tree_.write("10/task/10/schedstat", text);
    tree_.write("10/task/10/status", text);
    const auto samples = take();
    ASSERT_EQ(samples.size(), 1U);
    EXPECT_EQ(samples[0].run_queue_ns, 0U) << text;
    EXPECT_EQ(samples[0].voluntary_switches, 0U) << text;
  }
}

TEST_F(ProcCensusTest, OneSamplePerProcess) {
  tree_.put({.pid = 10,
             .comm = "a) R 1 (b",
             .parent_pid = 3,
             .minor_faults = 21,
             .major_faults = 22,
             .user_ticks = 100,
             .system_ticks = 50,
             .nice = 7,
             .start_ticks = 4242,
             .rss_pages = 10,
             .policy = 5,
             .uid = 1001,
             .cgroup = "0::/user.slice\n",
             .threads = {{10, 1000, 5, 1}, {11, 500, 7, 2}}});
  tree_.write("10/io", "rchar: 9\nwchar: 9\nsyscr: 9\nsyscw: 9\nread_bytes: 4096\nwrite_bytes: 8192\n");
  tree_.put({.pid = 2, .comm = "kthreadd", .parent_pid = 0, .flags = 0x00208040, .exe = ""});
  const auto samples = take();
  ASSERT_EQ(samples.size(), 2U);
  const uint64_t tick_ns = 1'000'000'000U / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  const ProcessSample& kernel = samples[0];
  EXPECT_TRUE(kernel.kernel_thread);
  const ProcessSample& user = samples[1];
  EXPECT_FALSE(user.kernel_thread);
  EXPECT_EQ(user.key, (ProcessKey{10, 4242 * tick_ns / kStartTimeGranularityNs * kStartTimeGranularityNs}));
  EXPECT_EQ(user.pid_in_ns, 10);
  EXPECT_EQ(user.parent_pid, 3);
  EXPECT_EQ(user.comm, "a) R 1 (b");
  EXPECT_EQ(user.cgroup, "/user.slice");
  EXPECT_EQ(user.on_cpu_ns, 150 * tick_ns);
  EXPECT_EQ(user.run_queue_ns, 1500U);
  EXPECT_EQ(user.voluntary_switches, 12U);
  EXPECT_EQ(user.involuntary_switches, 3U);
  EXPECT_EQ(user.minor_faults, 21U);
  EXPECT_EQ(user.major_faults, 22U);
  EXPECT_EQ(user.rss_bytes, 10U * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
  EXPECT_EQ(user.read_bytes, 4096U);
  EXPECT_EQ(user.write_bytes, 8192U);
  EXPECT_EQ(user.nice, 7);
  EXPECT_EQ(user.policy, SchedulingPolicy::kIdle);
  EXPECT_EQ(user.threads, 2U);
  EXPECT_EQ(user.uid, 1001U) << "the effective one";
}

TEST_F(ProcCensusTest, WhoHasEndedIsNoProcess) {
  tree_.put({.pid = 10});
  tree_.put({.pid = 11, .state = 'Z'});
  tree_.put({.pid = 12, .state = 'X'});
  tree_.put({.pid = 13, .state = 'Z', .threads = {{13}, {14}}});
  const auto samples = take();
  ASSERT_EQ(samples.size(), 2U);
  EXPECT_EQ(samples[0].key.pid, 10);
  EXPECT_EQ(samples[1].key.pid, 13) << "its first thread has ended, others run";
}

TEST_F(ProcCensusTest, WhatEndedThreadsDidIsKept) {
  tree_.put({.pid = 10, .user_ticks = 10, .threads = {{10, 1000, 5, 1}, {11, 500, 7, 2}}});
  take();
  tree_.put({.pid = 10, .user_ticks = 10, .threads = {{10, 1100, 6, 1}}});
  const auto samples = take();
  ASSERT_EQ(samples.size(), 1U);
  EXPECT_EQ(samples[0].run_queue_ns, 1600U);
  EXPECT_EQ(samples[0].voluntary_switches, 12U) << "not less than before";
  EXPECT_EQ(samples[0].threads, 1U);
}

TEST_F(ProcCensusTest, AnotherProgramHasAnotherExec) {
  const Process shell{.pid = 10, .comm = "sh", .exe = "/bin/sh"};
  tree_.put(shell);
  const ExecId before = take().at(0).exec;
  EXPECT_EQ(take().at(0).exec, before);
  tree_.put({.pid = 10, .comm = "sh", .exe = "/bin/other"});
  const ExecId path = take().at(0).exec;
  EXPECT_NE(path, before);
  tree_.put({.pid = 10, .comm = "sleep", .exe = "/bin/other"});
  EXPECT_NE(take().at(0).exec, path);
}

TEST(ProcCensus, TellsHowItIsDone) { EXPECT_EQ(make_proc_census(Procfs("/nowhere"))->method(), "/proc"); }

}  // namespace
}  // namespace stackwatch
