// SPDX-License-Identifier: Apache-2.0
// Whatever is wrong gets one clear line and the right exit code, and a running daemon lives on.
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kQuiet[] = "[ranking]\nmax_suspects = 0\n";

Answer start_with(const std::string& config) {
  const TemporaryDirectory directory;
  return run({our_program("stackwatchd"), "--config", directory.write("stackwatch.toml", config), "--socket",
              directory.path() + "/socket"});
}

void expect_one_line(const Answer& answer, int exit_code, const std::string& text) {
  EXPECT_EQ(answer.exit_code, exit_code) << answer.output;
  EXPECT_EQ(answer.lines(), 1U) << answer.output;
  EXPECT_THAT(answer.output, AllOf(StartsWith("stackwatchd: "), HasSubstr(text)));
}

TEST(BadInput, Configuration) {
  expect_one_line(start_with("[[watch]]\nfrequnecy = 99\nname = \"x\"\n"), 2, "frequency");
  expect_one_line(start_with("[[watch]]\nname = \"x\"\nfrequency = -1\n"), 2, ":3:");
  expect_one_line(start_with("tick = \"10 parsecs\"\n"), 2, "parsecs");
  expect_one_line(start_with("[[watch]\n"), 2, ":1:");
  expect_one_line(start_with("[detectors.compositoin]\nenabled = true\n"), 2, "composition");
  expect_one_line(run({our_program("stackwatchd"), "--config", "/nonexistent/stackwatch.toml"}), 2, "/nonexistent");
  expect_one_line(run({our_program("stackwatchd"), "--config", "/"}), 2, "/");
}

TEST(BadInput, CommandLine) {
  expect_one_line(run({our_program("stackwatchd"), "--cofnig", "x"}), 2, "--cofnig");
  const Answer client = run({our_program("stackwatch"), "statsu"});
  EXPECT_EQ(client.exit_code, 2);
  EXPECT_EQ(client.lines(), 1U) << client.output;
  const Answer nobody = run({our_program("stackwatch"), "status", "--socket", "/nonexistent/socket"});
  EXPECT_EQ(nobody.exit_code, 4);
  EXPECT_EQ(nobody.lines(), 1U) << nobody.output;
}

TEST(BadInput, CheckConfigNeedsNoPrivilege) {
  const TemporaryDirectory directory;
  const std::string good = directory.write("good.toml", kQuiet);
  EXPECT_EQ(run({our_program("stackwatchd"), "--check-config", "--config", good}).exit_code, 0);
  const std::string bad = directory.write("bad.toml", "tick = 0\n");
  expect_one_line(run({our_program("stackwatchd"), "--check-config", "--config", bad}), 2, "tick");
}

TEST(BadInput, NoPrivileges) {
  STACKWATCH_REQUIRE_BPF();
  const TemporaryDirectory directory;
  const std::string config = directory.write("stackwatch.toml", kQuiet);
  expect_one_line(run({"setpriv", "--bounding-set=-all", "--inh-caps=-all", our_program("stackwatchd"), "--config",
                       config, "--socket", directory.path() + "/socket"}),
                  3, "CAP_BPF");
}

/// Runs a command where the kernel's type information is not to be seen.
Answer run_without_btf(const std::string& command) {
  // Private for /sys alone: in a chroot / is no mount point whose propagation could be changed.
  const std::string hide = "mount --make-rprivate /sys && mount -t tmpfs none /sys/kernel/btf && exec ";
  return run({"unshare", "--mount", "--propagation", "unchanged", "sh", "-c", hide + command});
}

TEST(BadInput, NoTypeInformationOfTheKernel) {
  STACKWATCH_REQUIRE_BPF();
  const TemporaryDirectory directory;
  const std::string config = directory.write("stackwatch.toml", kQuiet);
  expect_one_line(
      run_without_btf(our_program("stackwatchd") + " --config " + config + " --socket " + directory.path() + "/socket"),
      3, "CONFIG_DEBUG_INFO_BTF");
}

TEST(BadInput, CountAndRecordWithoutTypeInformationRunNoCommand) {
  STACKWATCH_REQUIRE_BPF();
  const TemporaryDirectory directory;
  const std::string mark = directory.path() + "/ran";
  const std::string capture = directory.path() + "/capture";
  const std::string ours = our_program("stackwatch");
  for (const std::string& verb : {ours + " count --probe on_cpu", ours + " count --probe off_cpu",
                                  ours + " count --probe memory", ours + " record -o " + capture}) {
    const Answer answer = run_without_btf(verb + " -- touch " + mark);
    EXPECT_EQ(answer.exit_code, 3) << verb;
    EXPECT_EQ(answer.lines(), 1U) << answer.output;
    EXPECT_THAT(answer.output, AllOf(StartsWith("stackwatch: "), HasSubstr("CONFIG_DEBUG_INFO_BTF")));
  }
  EXPECT_NE(access(mark.c_str(), F_OK), 0) << "the command ran";
}

TEST(BadInput, ASecondDaemonOnTheSameSocketGoesAndTheFirstStays) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready());
  const Answer second = run(daemon.command());
  expect_one_line(second, 1, "another daemon");
  EXPECT_EQ(daemon.ask({"status"}).exit_code, 0);
}

TEST(BadInput, AStaleSocketIsReplacedAndAFileIsNot) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready());
  daemon.restart_after_kill();  // leaves its socket behind
  EXPECT_TRUE(daemon.ready()) << daemon.process().output();

  const TemporaryDirectory directory;
  const std::string file = directory.write("precious", "data");
  const Answer refused =
      run({our_program("stackwatchd"), "--config", directory.write("c.toml", kQuiet), "--socket", file});
  expect_one_line(refused, 1, file);
  EXPECT_EQ(access(file.c_str(), F_OK), 0);
}

int connect_to(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

TEST(BadInput, GarbageAndAFloodOnTheControlSocket) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready());
  const auto resident = [&] { return daemon.ask({"status", "--json"}).json()["resident_bytes"].GetUint64(); };
  const uint64_t before = resident();

  const UniqueFd garbage(connect_to(daemon.socket()));
  const std::string nonsense("\xff\xfe{{{\0[1,2\0\0{\"method\":5}\0", 24);
  EXPECT_GT(send(garbage.get(), nonsense.data(), nonsense.size(), MSG_NOSIGNAL), 0);

  // 100 MB without a delimiter: the daemon gives the client up long before.
  const UniqueFd flood(connect_to(daemon.socket()));
  const std::string block(1 << 20, 'x');
  size_t sent = 0;
  for (int i = 0; i < 100; ++i) {
    const ssize_t now = send(flood.get(), block.data(), block.size(), MSG_NOSIGNAL);
    if (now <= 0) break;
    sent += static_cast<size_t>(now);
  }
  EXPECT_LT(sent, size_t{10} << 20U) << "it read on";
  EXPECT_EQ(daemon.ask({"status"}).exit_code, 0);
  EXPECT_LT(resident(), before + (8U << 20U));
}

}  // namespace
}  // namespace stackwatch
