// SPDX-License-Identifier: Apache-2.0
// `stackwatch doctor` on the real kernel: as root, and with each of the service's capabilities left out.
#include <gmock/gmock.h>

#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

/// The service's; see systemd/stackwatch.service.in and docs/security.md.
const std::vector<std::string>& service_capabilities() {
  static const std::vector<std::string> names = {
      "bpf", "perfmon", "sys_ptrace", "dac_read_search", "checkpoint_restore", "syslog"};
  return names;
}

/// The doctor as another user with the service's capabilities but `without`.
Answer doctor_without(const std::string& without) {
  std::string kept = "-all";
  for (const std::string& name : service_capabilities()) {
    if (name != without) kept += ",+" + name;
  }
  return run({"setpriv", "--reuid", "64321", "--regid", "64321", "--clear-groups", "--no-new-privs",
              "--inh-caps=" + kept, "--ambient-caps=" + kept, "--bounding-set=" + kept, our_program("stackwatch"),
              "doctor", "--json", "--socket", "/nonexistent"});
}

std::string state_of(const rapidjson::Document& report, const std::string& id) {
  for (const auto& check : report["checks"].GetArray()) {
    if (id == check["id"].GetString()) return check["state"].GetString();
  }
  return "(none)";
}

TEST(Doctor, FindsAllProbesWorking) {
  STACKWATCH_REQUIRE_BPF();
  const Answer answer = run({our_program("stackwatch"), "doctor", "--json", "--socket", "/nonexistent"});
  const auto report = answer.json();
  for (const char* probe : {"on_cpu", "off_cpu", "page_fault", "memory", "census"}) {
    EXPECT_EQ(state_of(report, probe), "ok") << answer.output;
  }
  EXPECT_EQ(state_of(report, "daemon"), "limited");
  EXPECT_EQ(answer.exit_code, 0) << answer.output;
  const Answer text = run({our_program("stackwatch"), "doctor", "--socket", "/nonexistent"});
  EXPECT_THAT(text.output, HasSubstr("All probes work here."));
  EXPECT_THAT(text.output, HasSubstr("systemctl start stackwatch"));
}

TEST(Doctor, SeesADaemon) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon("[ranking]\nmax_suspects = 0\n");
  ASSERT_TRUE(daemon.ready());
  const Answer answer = daemon.ask({"doctor", "--json"});
  EXPECT_EQ(state_of(answer.json(), "daemon"), "ok") << answer.output;
}

TEST(Doctor, WithoutPrivilegesSaysWhichAreMissing) {
  STACKWATCH_REQUIRE_BPF();
  const Answer answer = run({"setpriv", "--bounding-set=-all", "--inh-caps=-all", our_program("stackwatch"), "doctor"});
  EXPECT_EQ(answer.exit_code, 3) << answer.output;
  EXPECT_THAT(answer.output, HasSubstr("CAP_BPF"));
  EXPECT_THAT(answer.output, HasSubstr("Something that probes need is missing here."));
}

TEST(Doctor, EachCapabilityOfTheServiceBuysWhatIsSaidOfIt) {
  STACKWATCH_REQUIRE_BPF();
  const Answer all = doctor_without("");
  if (all.exit_code == 126 || all.exit_code == 127) GTEST_SKIP() << "another user cannot reach the program";
  const auto complete = all.json();
  EXPECT_EQ(all.exit_code, 0) << all.output;
  struct Row {
    const char* capability;
    std::vector<std::string> lost;
    const char* state;
  };
  const std::vector<Row> rows = {
      {"bpf", {"on_cpu", "off_cpu", "page_fault", "memory"}, "missing"},
      {"perfmon", {"on_cpu", "off_cpu", "page_fault", "memory"}, "missing"},
      {"sys_ptrace", {"executables", "private_files", "deleted_objects"}, "limited"},
      {"dac_read_search", {"private_files", "deleted_objects"}, "limited"},
      {"checkpoint_restore", {"deleted_objects"}, "limited"},
      {"syslog", {"kernel_symbols"}, "limited"},
  };
  for (const Row& row : rows) {
    const Answer answer = doctor_without(row.capability);
    const auto report = answer.json();
    EXPECT_EQ(answer.exit_code, std::string(row.state) == "missing" ? 3 : 0) << answer.output;
    for (const std::string& id : row.lost) {
      EXPECT_EQ(state_of(complete, id), "ok") << id;
      EXPECT_EQ(state_of(report, id), row.state) << "without " << row.capability << ": " << id;
    }
  }
}

}  // namespace
}  // namespace stackwatch
