// SPDX-License-Identifier: Apache-2.0
// What outlives the daemon, what it holds itself to, and who cannot hold it up.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "core/clock.h"
#include "daemon/control/json.h"
#include "daemon/procfs.h"
#include "daemon/state/saved_state.h"
#include "store/state_file.h"
#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

constexpr char kQuiet[] = "[ranking]\nmax_suspects = 0\n";

std::string state_of(const rapidjson::Document& alerts, const std::string& id) {
  for (const auto& alert : alerts["alerts"].GetArray()) {
    if (id == alert["id"].GetString()) return alert["state"].GetString();
  }
  return "missing";
}

/// An alert that fires, as an earlier daemon left it.
void leave_behind(const std::string& directory, const std::string& id, const ProcessKey& process) {
  Alert alert;
  alert.id = id;
  alert.state = AlertState::kFiring;
  alert.process.key = process;
  alert.process.pid_in_ns = process.pid;
  alert.process.comm = "burn";
  alert.frame = "burn";
  alert.stack = {"main", "burn"};
  alert.onset_ns = alert.opened_ns = alert.updated_ns = SystemClock().realtime_ns() - 60'000'000'000;
  auto opened = StateFile::open(directory, {}, alert.onset_ns);
  ASSERT_TRUE(opened) << opened.error().message();
  ASSERT_TRUE(opened->file->put(StoredAlert{id, alert.state, process, boot_id_of(Procfs()), alert.opened_ns,
                                            alert.updated_ns, alert_to_json(alert)}));
}

// Who the process is for the daemon: what `attachments` of an earlier one tells.
TEST(State, AStandingAlertGoesOnAndOneOfADeadProcessIsResolved) {
  STACKWATCH_REQUIRE_BPF();
  Child burn({test_program("burn"), "--seconds", "120"});
  DaemonUnderTest daemon(std::string(kQuiet) + "[[watch]]\nname = \"burn\"\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  uint64_t start_ns = 0;
  ASSERT_TRUE(eventually(10, [&] {
    const auto document = daemon.ask({"attachments", "--json"}).json();
    for (const auto& row : document["attachments"].GetArray()) {
      if (row["process"]["pid"].GetInt() == burn.pid()) start_ns = row["process"]["start_time_ns"].GetUint64();
    }
    return start_ns > 0;
  }));
  daemon.process().signal(SIGKILL);
  daemon.process().wait();
  const std::string directory = daemon.directory().path() + "/state";
  leave_behind(directory, "aaaaaaaaaaaa", {burn.pid(), start_ns});
  leave_behind(directory, "bbbbbbbbbbbb", {burn.pid(), start_ns + 10'000'000});
  daemon.configure(kQuiet);  // nobody asks for the process any more but the alert
  daemon.restart_after_kill();
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  EXPECT_TRUE(eventually(10, [&] {
    return state_of(daemon.ask({"alerts", "--json"}).json(), "bbbbbbbbbbbb") == "resolved";
  }));
  EXPECT_THAT(daemon.ask({"show", "bbbbbbbbbbbb", "--json"}).output, HasSubstr("while stackwatchd did not run"));
  EXPECT_EQ(state_of(daemon.ask({"alerts", "--json"}).json(), "aaaaaaaaaaaa"), "firing");
  EXPECT_THAT(daemon.ask({"attachments", "--json"}).output, HasSubstr("an alert of an earlier run stands"));

  burn.signal(SIGKILL);
  burn.wait();
  EXPECT_TRUE(eventually(20, [&] {
    return state_of(daemon.ask({"alerts", "--json"}).json(), "aaaaaaaaaaaa") == "resolved";
  }));
  EXPECT_EQ(daemon.stop(), 0);
}

TEST(State, ADamagedFileIsSetAsideToldOnceAndTheDaemonStores) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready());
  daemon.process().signal(SIGKILL);
  daemon.process().wait();
  const std::string directory = daemon.directory().path() + "/state";
  std::filesystem::remove(directory + "/state.db-wal");  // with it SQLite would mend the file
  std::ofstream(directory + "/state.db", std::ios::binary) << std::string(20'000, 'x');
  daemon.restart_after_kill();
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  EXPECT_TRUE(daemon.process().wait_for("state.db.aside-", 10)) << daemon.process().output();
  const auto status = daemon.ask({"status", "--json"}).json();
  EXPECT_TRUE(status["state"]["storing"].GetBool());
  ASSERT_GE(status["limits"].Size(), 6U);
  EXPECT_THAT(daemon.ask({"status"}).output, HasSubstr("memory "));
}

TEST(State, WithoutAPlaceForItTheDaemonGoesOn) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready());
  daemon.process().signal(SIGKILL);
  daemon.process().wait();
  const std::string directory = daemon.directory().path() + "/state";
  std::filesystem::remove_all(directory);
  std::ofstream(directory) << "in the way";
  daemon.restart_after_kill();
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  const auto status = daemon.ask({"status", "--json"}).json();
  EXPECT_FALSE(status["state"]["storing"].GetBool());
  EXPECT_THAT(daemon.process().output(), HasSubstr("without storing"));
  std::filesystem::remove(directory);
  EXPECT_TRUE(eventually(30, [&] { return daemon.ask({"status", "--json"}).json()["state"]["storing"].GetBool(); }));
}

/// A file system of 2 MB, as full as may be; goes with the test.
class SmallDisk {
 public:
  explicit SmallDisk(std::string path) : path_(std::move(path)) {
    mounted_ = mount("tmpfs", path_.c_str(), "tmpfs", 0, "size=2m") == 0;
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  [[nodiscard]] bool mounted() const { return mounted_; }
  void fill() const {
    std::ofstream file(filler(), std::ios::binary);
    const std::string page(4096, 'x');
    while (file.write(page.data(), static_cast<std::streamsize>(page.size())).flush()) {
    }
  }
  void make_room() const { std::filesystem::remove(filler()); }

 private:
  [[nodiscard]] std::string filler() const { return path_ + "/filler"; }
  std::string path_;
  bool mounted_ = false;
};

TEST(State, OnAFullDiskTheDaemonGoesOnAndStoresWhenThereIsRoom) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready());
  daemon.process().signal(SIGKILL);
  daemon.process().wait();
  const std::string directory = daemon.directory().path() + "/state";
  std::filesystem::remove_all(directory);
  ASSERT_TRUE(std::filesystem::create_directory(directory));
  const SmallDisk disk(directory);
  if (!disk.mounted()) GTEST_SKIP() << "REQUIRES mount(2) of a tmpfs";
  std::filesystem::permissions(directory, std::filesystem::perms::owner_all);
  disk.fill();
  daemon.restart_after_kill();
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  EXPECT_FALSE(daemon.ask({"status", "--json"}).json()["state"]["storing"].GetBool());
  EXPECT_THAT(daemon.process().output(), HasSubstr("without storing"));
  // It tries again and does not say so again.
  usleep(12'000'000);
  const std::string told = daemon.process().output();
  EXPECT_EQ(told.find("without storing"), told.rfind("without storing"));
  disk.make_room();
  EXPECT_TRUE(eventually(30, [&] { return daemon.ask({"status", "--json"}).json()["state"]["storing"].GetBool(); }));
  EXPECT_EQ(daemon.stop(), 0);
}

std::string alert_of(const DaemonUnderTest& daemon, pid_t pid) {
  const auto document = daemon.ask({"alerts", "--json", "--state", "firing"}).json();
  for (const auto& alert : document["alerts"].GetArray()) {
    if (alert["process"]["pid"].GetInt() == pid) return alert["frame"].GetString();
  }
  return "";
}

// Two daemons learn how a process spends its time. Both are restarted, one without what it had stored, and while they
// are away look_up_key grows from 10 to 30 %. Who has no past but the present sees no change in it.
TEST(State, WhatWasLearnedIsKnownAfterARestart) {
  STACKWATCH_REQUIRE_BPF();
  constexpr double kOnsetS = 75;
  const auto begun = std::chrono::steady_clock::now();
  const auto wait_until = [begun](double at_s) {
    const auto rest = begun + std::chrono::duration<double>(at_s) - std::chrono::steady_clock::now();
    if (rest.count() > 0) usleep(static_cast<useconds_t>(1e6 * std::chrono::duration<double>(rest).count()));
  };
  const std::string onset = std::to_string(kOnsetS);
  Child changer({test_program("changer"), "--case", "grow20", "--load", "0.5", "--onset-min", onset, "--onset-max",
                 onset, "--duration", "270"});
  const std::string config = std::string(kQuiet) + "[detectors.composition]\nlearn = \"30s\"\n[[watch]]\npid = " +
                             std::to_string(changer.pid()) + "\n";
  DaemonUnderTest remembering(config);
  DaemonUnderTest forgetting(config);
  ASSERT_TRUE(remembering.ready()) << remembering.process().output();
  ASSERT_TRUE(forgetting.ready()) << forgetting.process().output();
  wait_until(kOnsetS - 5);
  EXPECT_EQ(remembering.stop(), 0);
  EXPECT_EQ(forgetting.stop(), 0);
  ASSERT_TRUE(std::filesystem::remove(forgetting.directory().path() + "/state/" + StateFile::kFileName));
  wait_until(kOnsetS + 1);
  remembering.start();
  forgetting.start();
  ASSERT_TRUE(remembering.ready()) << remembering.process().output();
  ASSERT_TRUE(forgetting.ready()) << forgetting.process().output();
  EXPECT_TRUE(eventually(130, [&] { return alert_of(remembering, changer.pid()) == "look_up_key"; }))
      << remembering.ask({"alerts", "--json"}).output << remembering.process().output();
  usleep(10'000'000);  // as much again as the persistence of a finding
  EXPECT_EQ(alert_of(forgetting, changer.pid()), "") << forgetting.ask({"alerts", "--json"}).output;
  EXPECT_EQ(remembering.stop(), 0);
  EXPECT_EQ(forgetting.stop(), 0);
}

UniqueFd connect_to(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return UniqueFd();
  return fd;
}

// Each asks for much and reads nothing, or sends half a message and no more.
TEST(Control, StuckClientsDoNotHoldUpStatus) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready());
  std::vector<UniqueFd> stuck;
  const std::string request(R"({"method":"io.stackwatch.GetRanking","parameters":{"limit":1000}})");
  for (int i = 0; i < 64; ++i) {
    stuck.push_back(connect_to(daemon.socket()));
    ASSERT_TRUE(stuck.back());
    for (int n = 0; n < 100; ++n) {
      const std::string sent = i % 2 == 0 ? request + std::string(1, '\0') : std::string(R"({"method":"io.st)");
      static_cast<void>(send(stuck.back().get(), sent.data(), sent.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
      if (i % 2 == 1) break;
    }
  }
  // All places are taken: at first it is refused, then one who is stuck makes room. (How long an answer takes is
  // measured by ./dev soak --storms.)
  ASSERT_TRUE(eventually(30, [&] { return daemon.ask({"status", "--json"}).exit_code == 0; }));
  for (int i = 0; i < 10; ++i) ASSERT_EQ(daemon.ask({"status", "--json"}).exit_code, 0);
  EXPECT_EQ(daemon.stop(), 0);
}

TEST(Control, AnotherUserIsRefused) {
  STACKWATCH_REQUIRE_BPF();
  if (geteuid() != 0) GTEST_SKIP() << "REQUIRES root";
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready());
  std::filesystem::permissions(daemon.directory().path(), std::filesystem::perms::all);  // the socket itself says no
  const Answer answer = run({"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", our_program("stackwatch"),
                             "status", "--socket", daemon.socket()});
  EXPECT_NE(answer.exit_code, 0) << answer.output;
  EXPECT_THAT(answer.output, HasSubstr("ermission denied"));
}

// A limit that no daemon can keep: it gives way step by step and says so; a reload that lifts it brings all back.
TEST(Limits, OverItsCpuLimitItShedsTellsAndRecovers) {
  STACKWATCH_REQUIRE_BPF();
  Child steady({test_program("changer"), "--case", "steady", "--load", "0.15", "--duration", "280"});
  const std::string rule = std::string(kQuiet) + "[[watch]]\npid = " + std::to_string(steady.pid()) + "\n";
  DaemonUnderTest daemon(rule + "[limits]\ncpu_percent = 0.1\n");
  ASSERT_TRUE(daemon.ready());
  EXPECT_TRUE(eventually(120, [&] {
    return daemon.ask({"attachments", "--json"}).output.find("of its rate: stackwatchd was over its CPU limit") !=
           std::string::npos;
  })) << daemon.ask({"status"}).output;
  EXPECT_THAT(daemon.ask({"status"}).output, HasSubstr("over its CPU limit"));
  EXPECT_THAT(daemon.process().output(), HasSubstr("sampling at 50 % of the rates"));
  daemon.configure(rule + "[limits]\ncpu_percent = 100\n");
  daemon.process().signal(SIGHUP);
  EXPECT_TRUE(eventually(150, [&] {
    return std::string(daemon.ask({"status", "--json"}).json()["shedding"].GetString()).empty();
  }));
  EXPECT_EQ(daemon.stop(), 0);
}

}  // namespace
}  // namespace stackwatch
