// SPDX-License-Identifier: Apache-2.0
// `stackwatch count` on the real kernel: what it counts, how it ends, what it refuses.
#include <gmock/gmock.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "tests/kernel/support/sampling.h"
#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::vector<std::string> count_command(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {our_program("stackwatch"), "count"});
  return arguments;
}

Answer count(std::vector<std::string> arguments) { return run(count_command(std::move(arguments))); }

std::string content(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

rapidjson::Document parse(const std::string& text) {
  rapidjson::Document document;
  document.Parse(text.c_str());
  EXPECT_FALSE(document.HasParseError()) << text;
  return document;
}

const rapidjson::Value* find_probe(const rapidjson::Value& process, const std::string& name) {
  for (const auto& probe : process["probes"].GetArray()) {
    if (name == probe["probe"].GetString()) return &probe;
  }
  return nullptr;
}

double milliseconds(const rapidjson::Document& report, const std::string& probe) {
  double sum = 0;
  for (const auto& process : report["processes"].GetArray()) {
    if (const auto* found = find_probe(process, probe)) sum += (*found)["total_ms"].GetDouble();
  }
  return sum;
}

/// Samples of the stacks that have this function in them.
int64_t samples_in(const rapidjson::Document& report, const std::string& function) {
  int64_t samples = 0;
  for (const auto& process : report["processes"].GetArray()) {
    for (const auto& stack : (*find_probe(process, "on_cpu"))["stacks"].GetArray()) {
      const auto frames = stack["frames"].GetArray();
      const bool has =
          std::any_of(frames.begin(), frames.end(), [&](const auto& f) { return function == f.GetString(); });
      if (has) samples += stack["value"].GetInt64();
    }
  }
  return samples;
}

class CountTest : public testing::Test {
 protected:
  [[nodiscard]] std::string file() const { return directory_.path() + "/report"; }
  [[nodiscard]] std::string report() const { return content(file()); }
  TemporaryDirectory directory_;
};

void expect_one_line(const Answer& answer, int exit_code, const std::string& text) {
  EXPECT_EQ(answer.exit_code, exit_code) << answer.output;
  EXPECT_EQ(answer.lines(), 1U) << answer.output;
  EXPECT_THAT(answer.output, AllOf(StartsWith("stackwatch: "), HasSubstr(text)));
}

TEST_F(CountTest, WhatCannotBeCountedIsOneLineAndTheRightExitCode) {
  expect_one_line(count({}), 2, "neither a process nor a command");
  expect_one_line(count({"-p", "abc"}), 2, "abc");
  expect_one_line(count({"-p", "2147483647"}), 1, "no such process");
  expect_one_line(count({"-p", std::to_string(getpid()), "-o", "/nonexistent/file"}), 1, "/nonexistent/file");
  STACKWATCH_REQUIRE_BPF();
  expect_one_line(count({"--", "/nonexistent/program"}), 127, "No such file");
  expect_one_line(count({"--", "/etc/passwd"}), 126, "denied");
  expect_one_line(run({"setpriv", "--bounding-set=-all", "--inh-caps=-all", our_program("stackwatch"), "count", "--",
                       "touch", file()}),
                  3, "CAP_BPF");
  EXPECT_NE(access(file().c_str(), F_OK), 0) << "the command ran though it could not be counted";
  expect_one_line(count({"-o", "/dev/full", "--", "true"}), 1, "No space left");
}

TEST_F(CountTest, ACommandIsCountedFromItsFirstInstruction) {
  STACKWATCH_REQUIRE_BPF();
  const double stolen = stolen_s();
  const Answer answer = count({"-F", "499", "--json", "-o", file(), "--", test_program("burn"), "--seconds", "3"});
  EXPECT_EQ(answer.exit_code, 0) << answer.output;
  const double cpu_s = answer.json()["cpu_s"].GetDouble();
  const rapidjson::Document counted = parse(report());
  ASSERT_EQ(counted["processes"].Size(), 1U);
  EXPECT_STREQ(counted["processes"][0]["process"]["comm"].GetString(), "burn");
  const int64_t total = (*find_probe(counted["processes"][0], "on_cpu"))["total"].GetInt64();
  expect_samples_match(total, cpu_s, 499, stolen_s() - stolen);
  const int64_t all = samples_in(counted, "burn_all");
  EXPECT_GT(static_cast<double>(all), 0.95 * static_cast<double>(total)) << "names are missing";
  for (const auto& [name, share] :
       std::map<std::string, double>{{"burn_most", .7}, {"burn_some", .2}, {"burn_few", .1}}) {
    const double measured = static_cast<double>(samples_in(counted, name)) / static_cast<double>(all);
    EXPECT_NEAR(measured, share, 5 * std::sqrt(share * (1 - share) / static_cast<double>(all)) + 0.01) << name;
  }
}

TEST_F(CountTest, HotAndColdAddUpToTheWallTime) {
  STACKWATCH_REQUIRE_BPF();
  const Answer answer = count({"--probe", "on_cpu,off_cpu", "--json", "-o", file(), "--", "sleep", "2"});
  ASSERT_EQ(answer.exit_code, 0) << answer.output;
  const rapidjson::Document counted = parse(report());
  EXPECT_NEAR(milliseconds(counted, "blocked") + milliseconds(counted, "run_queue") + milliseconds(counted, "on_cpu"),
              counted["interval_s"].GetDouble() * 1e3, 0.02 * 2000 + 10);
  EXPECT_GT(milliseconds(counted, "blocked"), 1960);
  const Answer tree = count({"--probe", "on_cpu,off_cpu", "--", "sleep", "0.3"});
  EXPECT_THAT(tree.output, AllOf(HasSubstr("on_cpu ms    blocked ms  run_queue ms"), HasSubstr("nanosleep")));
}

TEST_F(CountTest, ClassicLooksAsItAlwaysDid) {
  STACKWATCH_REQUIRE_BPF();
  ASSERT_EQ(count({"--probe", "on_cpu,off_cpu", "--format", "classic", "-i", "0.5", "-o", file(), "--",
                   test_program("burn"), "--seconds", "1.2"})
                .exit_code,
            0);
  std::istringstream lines(report());
  const std::regex row(R"(^\d+ \((\d+|-14),(\d+|-14)\) \d+$)");
  int headings = 0;
  int rows = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("-")) {
      EXPECT_EQ(line, headings++ % 2 == 0 ? "---------on_cpu---------" : "---------off_cpu---------");
    } else {
      EXPECT_TRUE(std::regex_match(line, row)) << line;
      ++rows;
    }
  }
  EXPECT_EQ(headings, 2 * 3) << "two whole intervals and the rest";
  EXPECT_GT(rows, 3);
}

TEST_F(CountTest, APidIsCountedUntilItEndsAndNoLonger) {
  STACKWATCH_REQUIRE_BPF();
  Child burn({test_program("burn"), "--seconds", "1"});
  const auto begun = std::chrono::steady_clock::now();
  const Answer answer = count({"-p", std::to_string(burn.pid()), "-d", "30"});
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(10));
  EXPECT_EQ(answer.exit_code, 0);
  EXPECT_THAT(answer.output, HasSubstr("burn_most"));
}

TEST_F(CountTest, InterruptedItPrintsWhatItCounted) {
  STACKWATCH_REQUIRE_BPF();
  Child burn({test_program("burn"), "--seconds", "30"});
  Child other({test_program("burn"), "--seconds", "30"});
  Child counting(count_command(
      {"-p", std::to_string(burn.pid()), std::to_string(other.pid()), "-i", "0.4", "--json", "-F", "199"}));
  ASSERT_TRUE(counting.wait_for("\n", 20));
  pass(1);
  counting.signal(SIGINT);
  EXPECT_EQ(counting.wait(), 0);
  std::istringstream lines(counting.output());
  size_t reports = 0;
  double seconds = 0;
  for (std::string line; std::getline(lines, line); ++reports) {
    const rapidjson::Document counted = parse(line);
    EXPECT_EQ(counted["processes"].Size(), 2U);
    seconds += counted["interval_s"].GetDouble();
  }
  EXPECT_GE(reports, 3U) << counting.output();
  EXPECT_GT(seconds, 1);
  EXPECT_TRUE(burn.running()) << "the target is none of ours";
}

TEST_F(CountTest, TheCommandsExitCodeIsPassedOn) {
  STACKWATCH_REQUIRE_BPF();
  EXPECT_EQ(count({"-o", file(), "--", "sh", "-c", "exit 42"}).exit_code, 42);
  EXPECT_EQ(count({"-o", file(), "--", "sh", "-c", "kill -KILL $$"}).exit_code, 128 + SIGKILL);
  // Its time may be over before the command's: it runs on and still tells how it ended.
  EXPECT_EQ(count({"-d", "0.3", "-o", file(), "--", "sh", "-c", "sleep 1; exit 9"}).exit_code, 9);
  EXPECT_THAT(report(), HasSubstr("sh["));
}

TEST_F(CountTest, SignalsReachTheCommand) {
  STACKWATCH_REQUIRE_BPF();
  Child counting(count_command(
      {"-o", file(), "--", "sh", "-c", "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done"}));
  ASSERT_TRUE(counting.wait_for("ready", 20)) << counting.output();
  counting.signal(SIGTERM);
  EXPECT_EQ(counting.wait(), 5);
  EXPECT_THAT(counting.output(), HasSubstr("got"));
  EXPECT_THAT(report(), HasSubstr("sh["));
}

// The terminal gives Ctrl-C to the command as well as to us: it must get it once, and we print what was counted.
TEST_F(CountTest, CtrlCOnATerminalReachesTheCommandOnce) {
  STACKWATCH_REQUIRE_BPF();
  int terminal = -1;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, nullptr);
  ASSERT_GE(child, 0);
  if (child == 0) {
    execl(our_program("stackwatch").c_str(), "stackwatch", "count", "--", "sh", "-c",
          "trap 'echo INTERRUPTED' INT; echo ready; sleep 1 & wait; wait; exit 3", nullptr);
    _exit(99);
  }
  const UniqueFd screen(terminal);
  std::string shown;
  bool pressed = false;
  std::array<char, 4096> piece{};
  pollfd entry{terminal, POLLIN, 0};
  while (poll(&entry, 1, 30'000) > 0) {
    const ssize_t got = read(terminal, piece.data(), piece.size());
    if (got <= 0) break;
    shown.append(piece.data(), static_cast<size_t>(got));
    if (!pressed && shown.find("ready") != std::string::npos) {
      pressed = true;
      usleep(100'000);
      ASSERT_EQ(write(terminal, "\x03", 1), 1);
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 3) << shown;
  EXPECT_NE(shown.find("INTERRUPTED"), std::string::npos) << shown;
  EXPECT_EQ(shown.find("INTERRUPTED"), shown.rfind("INTERRUPTED")) << shown;
  EXPECT_NE(shown.find("on_cpu"), std::string::npos) << shown;
}

TEST_F(CountTest, ChildrenOfACommandAreCountedUnlessUnwanted) {
  STACKWATCH_REQUIRE_BPF();
  const double stolen = stolen_s();
  const std::vector<std::string> forker = {"--", test_program("forker"), "--rate", "20", "--burn-ms", "40", "--seconds",
                                           "2"};
  std::vector<std::string> with = {"-F", "499", "--json", "-o", file()};
  with.insert(with.end(), forker.begin(), forker.end());
  const Answer answer = count(with);
  const double cpu_s = answer.json()["children_cpu_s"].GetDouble() + answer.json()["cpu_s"].GetDouble();
  const rapidjson::Document counted = parse(report());
  EXPECT_GT(counted["processes"].Size(), 20U);
  expect_samples_match(std::lround(milliseconds(counted, "on_cpu") * 0.499), cpu_s, 499, stolen_s() - stolen);

  std::vector<std::string> without = {"--no-children", "--json", "-o", file()};
  without.insert(without.end(), forker.begin(), forker.end());
  ASSERT_EQ(count(without).exit_code, 0);
  EXPECT_EQ(parse(report())["processes"].Size(), 1U);
}

TEST_F(CountTest, AShortCommandHasNames) {
  STACKWATCH_REQUIRE_BPF();
  const Answer answer = count({"-F", "999", "--json", "-o", file(), "--", test_program("burn"), "--seconds", "0.1"});
  ASSERT_EQ(answer.exit_code, 0) << answer.output;
  const rapidjson::Document counted = parse(report());
  const auto total = static_cast<double>((*find_probe(counted["processes"][0], "on_cpu"))["total"].GetInt64());
  EXPECT_GT(total, 20);
  EXPECT_GT(static_cast<double>(samples_in(counted, "burn_all")), 0.7 * total);
}

TEST_F(CountTest, ShortLivedChildrenHaveNames) {
  STACKWATCH_REQUIRE_BPF();
  const Answer answer = count({"-F", "999", "--json", "-o", file(), "--", "sh", "-c",
                               "for i in 1 2 3 4 5 6 7 8; do " + test_program("burn") + " --seconds 0.07; done"});
  ASSERT_EQ(answer.exit_code, 0) << answer.output;
  const rapidjson::Document counted = parse(report());
  int64_t total = 0;
  size_t burns = 0;
  for (const auto& process : counted["processes"].GetArray()) {
    if (std::string("burn") != process["process"]["comm"].GetString()) continue;
    ++burns;
    total += (*find_probe(process, "on_cpu"))["total"].GetInt64();
  }
  EXPECT_GE(burns, 6U);
  EXPECT_GT(static_cast<double>(samples_in(counted, "burn_all")), 0.7 * static_cast<double>(total));
}

TEST_F(CountTest, NothingStaysInTheKernel) {
  STACKWATCH_REQUIRE_BPF();
  const int before = bpf_programs_loaded();
  Child counting(count_command({"-o", file(), "--", "sleep", "5"}));
  ASSERT_TRUE(eventually(20, [&] { return bpf_programs_loaded() > before; }));
  counting.signal(SIGKILL);
  counting.wait();
  EXPECT_TRUE(eventually(20, [&] { return bpf_programs_loaded() == before; }));
}

}  // namespace
}  // namespace stackwatch
