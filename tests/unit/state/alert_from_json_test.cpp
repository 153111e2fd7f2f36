// SPDX-License-Identifier: Apache-2.0
#include "daemon/state/alert_from_json.h"

#include <gtest/gtest.h>

#include "daemon/control/json.h"
#include "tests/unit/alerting/sample_alert.h"

namespace stackwatch {
namespace {

TEST(AlertFromJson, RefusesWhatIsNoAlert) {
  for (const char* text : {"", "{", "[]", "7", "{}", R"({"id":"a"})", R"({"id":"a","state":"firing"})",
                           R"({"id":"a","state":"burning","probe":"on_cpu"})", R"({"id":7,"state":[],"probe":{}})"}) {
    EXPECT_FALSE(alert_from_json(text)) << text;
  }
}

TEST(AlertFromJson, MembersOfWrongTypesAreLeftEmpty) {
  const auto alert = alert_from_json(
      R"({"id":"a","state":"firing","probe":"on_cpu","process":[1],"stack":{"x":1},"lost":7,"contributors":[1,"x",{}],"processes":[7,{"process":[],"stands":3}],"parts":[7,{},{"probe":"psychic"},{"probe":"memory","stands":3}],"named":{},"shift":[],)"
      R"("before":"much","opened":12,"onset":"yesterday","frame":null})");
  ASSERT_TRUE(alert);
  EXPECT_EQ(alert->process.pid_in_ns, 0);
  EXPECT_TRUE(alert->stack.empty());
  EXPECT_EQ(alert->before, 0);
  EXPECT_EQ(alert->onset_ns, 0U);
  EXPECT_EQ(alert->contributors.size(), 1U);
  ASSERT_EQ(alert->processes.size(), 1U);
  EXPECT_FALSE(alert->processes[0].stands);
  EXPECT_FALSE(alert->shift);
  ASSERT_EQ(alert->parts.size(), 1U);
  EXPECT_FALSE(alert->parts[0].stands);
  EXPECT_FALSE(alert->named_ns);
}

TEST(AlertFromJson, ReadsBackWhatIsWritten) {
  Alert alert = sample_alert();
  alert.state = AlertState::kResolved;
  alert.resolved_ns = alert.updated_ns + 5'000'000;
  alert.resolution = "back to its baseline";
  alert.false_alarm_budget = "1 per 30d";
  alert.process.comm = "evil\x1b[2J\"\\\n";
  alert.stack = {"main", "operator new(unsigned long)", "tcp_sendmsg_[k]"};
  alert.lost[LossReason::kTruncated] = 12;
  alert.contributors = {{"encode", 0.25, 0.125}, {"[process, cores]", -1, 1e300}};
  for (const bool stands : {true, false}) {
    alert.processes.push_back({alert.process, alert.onset_ns, 0.25, 0.5, stands});
  }
  alert.processes_omitted = 7;
  alert.shift = Alert::Shift{"moved", "get", "put", "", "checksum"};
  alert.parts = {{ProbeKind::kCensus, "leak", "", alert.onset_ns, 4e6, 2e7, "bytes of memory, growing", true},
                 {ProbeKind::kBlocked, "wait", "lookup", alert.onset_ns, 0, 0.5, "threads waiting", false}};
  alert.named_ns = alert.updated_ns;
  const std::string json = alert_to_json(alert);
  const auto read = alert_from_json(json);
  ASSERT_TRUE(read);
  EXPECT_EQ(alert_to_json(*read), json);
  EXPECT_EQ(read->process.comm, alert.process.comm);
  ASSERT_EQ(read->processes.size(), 2U);
  EXPECT_FALSE(read->processes[1].stands);
  EXPECT_EQ(read->processes[1].process.comm, alert.process.comm);
  EXPECT_EQ(read->processes_omitted, 7U);
  ASSERT_TRUE(read->shift);
  EXPECT_EQ(read->shift->what, "checksum");
  ASSERT_EQ(read->parts.size(), 2U);
  EXPECT_EQ(read->parts[0].probe, ProbeKind::kCensus);
  EXPECT_TRUE(read->parts[0].stands);
  EXPECT_EQ(read->parts[1].frame, "lookup");
  EXPECT_FALSE(read->parts[1].stands);
  EXPECT_EQ(read->named_ns, alert.named_ns);
  EXPECT_EQ(read->lost, alert.lost);
  EXPECT_EQ(read->resolved_ns, alert.resolved_ns);
}

}  // namespace
}  // namespace stackwatch
