// SPDX-License-Identifier: Apache-2.0
// The daemon as a service: start, stop, reload, notification, what is left behind.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>

#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

constexpr char kQuiet[] = "[ranking]\nmax_suspects = 0\n";

/// What a service manager would hear.
class NotifySocket {
 public:
  explicit NotifySocket(const std::string& path) : path_(path), fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    if (bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) throw std::runtime_error("bind");
  }
  [[nodiscard]] std::string environment() const { return "NOTIFY_SOCKET=" + path_; }
  bool hears(const std::string& text, double seconds) {
    return eventually(seconds, [&] {
      std::array<char, 4096> buffer{};
      ssize_t length = 0;
      while ((length = recv(fd_.get(), buffer.data(), buffer.size(), 0)) > 0) {
        heard_.append(buffer.data(), static_cast<size_t>(length)).push_back('\n');
      }
      return heard_.find(text) != std::string::npos;
    });
  }
  void forget() { heard_.clear(); }
  [[nodiscard]] const std::string& heard() const { return heard_; }

 private:
  std::string path_;
  UniqueFd fd_;
  std::string heard_;
};

TEST(Service, StopsCleanlyAndLeavesNothingBehind) {
  STACKWATCH_REQUIRE_BPF();
  const int before = bpf_programs_loaded();
  Child burn({test_program("burn"), "--seconds", "60"});
  DaemonUnderTest daemon("[[watch]]\nname = \"burn\"\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  EXPECT_GT(bpf_programs_loaded(), before);
  EXPECT_EQ(daemon.stop(), 0) << daemon.process().output();
  EXPECT_FALSE(std::filesystem::exists(daemon.socket()));
  // The kernel frees programs a moment after their last descriptor is closed.
  EXPECT_TRUE(eventually(5, [&] { return bpf_programs_loaded() == before; }));
  EXPECT_TRUE(burn.running());
}

TEST(Service, StartsAgainAfterSigkillAtAnyMoment) {
  STACKWATCH_REQUIRE_BPF();
  const int before = bpf_programs_loaded();
  Child burn({test_program("burn"), "--seconds", "120"});
  DaemonUnderTest daemon("[[watch]]\nname = \"burn\"\n");
  for (const useconds_t moment_us : {0U, 20'000U, 60'000U, 150'000U, 400'000U, 1'300'000U}) {
    usleep(moment_us);
    daemon.restart_after_kill();
  }
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  EXPECT_EQ(daemon.stop(), 0);
  EXPECT_TRUE(eventually(5, [&] { return bpf_programs_loaded() == before; }));
}

TEST(Service, TellsTheServiceManager) {
  STACKWATCH_REQUIRE_BPF();
  const TemporaryDirectory directory;
  NotifySocket manager(directory.path() + "/notify");
  DaemonUnderTest daemon(kQuiet, {manager.environment(), "WATCHDOG_USEC=20000000"});
  EXPECT_TRUE(manager.hears("READY=1", 30)) << daemon.process().output();
  EXPECT_TRUE(manager.hears("STATUS=Watching 0 of ", 10));
  EXPECT_TRUE(manager.hears("WATCHDOG=1", 10));
  manager.forget();
  daemon.process().signal(SIGHUP);
  EXPECT_TRUE(manager.hears("RELOADING=1", 10));
  EXPECT_TRUE(manager.hears("MONOTONIC_USEC=", 1));
  EXPECT_TRUE(manager.hears("READY=1", 10));
  EXPECT_EQ(daemon.stop(), 0);
  EXPECT_TRUE(manager.hears("STOPPING=1", 5));
}

TEST(Service, ReloadAppliesRulesAndKeepsWhatIsCounted) {
  STACKWATCH_REQUIRE_BPF();
  Child burn({test_program("burn"), "--seconds", "120"});
  Child other({test_program("threads"), "--seconds", "120"});
  DaemonUnderTest daemon(std::string(kQuiet) + "[[watch]]\nname = \"burn\"\n");
  ASSERT_TRUE(daemon.ready());
  const auto samples_of = [&](const std::string& comm) -> int64_t {
    const Answer answer = daemon.ask({"attachments", "--json"});
    const auto document = answer.json();
    for (const auto& row : document["attachments"].GetArray()) {
      if (comm == row["process"]["comm"].GetString()) return row["samples"].GetInt64();
    }
    return -1;
  };
  ASSERT_TRUE(eventually(20, [&] { return samples_of("burn") > 20; }));
  EXPECT_EQ(samples_of("threads"), -1);
  const int64_t before = samples_of("burn");
  daemon.configure(std::string(kQuiet) +
                   "[[watch]]\nname = \"burn\"\nfrequency = 199\n[[watch]]\nname = \"threads\"\n");
  daemon.process().signal(SIGHUP);
  EXPECT_TRUE(eventually(20, [&] { return samples_of("threads") > 0; }));
  EXPECT_GT(samples_of("burn"), before) << "the counts of a process that stays watched were thrown away";

  daemon.configure(std::string(kQuiet) + "[[watch]]\nname = \"threads\"\n");
  daemon.process().signal(SIGHUP);
  EXPECT_TRUE(eventually(20, [&] { return samples_of("burn") == -1; }));
  EXPECT_GT(samples_of("threads"), 0);
}

TEST(Service, AnInvalidFileAtReloadKeepsTheOldOneInForce) {
  STACKWATCH_REQUIRE_BPF();
  Child burn({test_program("burn"), "--seconds", "60"});
  DaemonUnderTest daemon("[[watch]]\nname = \"burn\"\n");
  ASSERT_TRUE(daemon.ready());
  daemon.configure("[[watch]]\nnmae = \"burn\"\n");
  daemon.process().signal(SIGHUP);
  EXPECT_TRUE(daemon.process().wait_for("the old configuration stays in force", 10)) << daemon.process().output();
  EXPECT_THAT(daemon.process().output(), HasSubstr("stackwatch.toml:2:1"));
  EXPECT_THAT(daemon.process().output(), HasSubstr("name"));
  usleep(1'500'000);
  const Answer answer = daemon.ask({"attachments", "--json"});
  EXPECT_GE(answer.json()["attachments"].Size(), 1U);
}

}  // namespace
}  // namespace stackwatch
