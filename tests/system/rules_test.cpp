// SPDX-License-Identifier: Apache-2.0
// Watch rules at run time, commands that the daemon watches, and an answer at once whatever the processes do meanwhile.
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <sstream>

#include "cli/client.h"
#include "daemon/procfs.h"
#include "tests/kernel/support/sampling.h"
#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Seconds = std::chrono::duration<double>;

constexpr char kQuiet[] = "[ranking]\nmax_suspects = 0\n[survey]\nenabled = false\n";

double now_s() { return Seconds(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Times of something that was done often.
class Times {
 public:
  void add(double seconds) { seconds_.push_back(seconds); }
  [[nodiscard]] double median() { return at(seconds_.size() / 2); }
  [[nodiscard]] double percentile(double percent) {
    return at(static_cast<size_t>(static_cast<double>(seconds_.size() - 1) * percent / 100));
  }
  [[nodiscard]] double worst() { return at(seconds_.size() - 1); }
  void print(const char* what) {
    std::printf("[ FIGURES  ] %s: %zu times, median %.1f ms, worst %.1f ms\n", what, seconds_.size(), median() * 1e3,
                worst() * 1e3);
  }

 private:
  double at(size_t index) {
    std::ranges::sort(seconds_);
    return seconds_.at(index);
  }
  std::vector<double> seconds_;
};

/// A client without the start of a program for each question.
class Asking {
 public:
  explicit Asking(const DaemonUnderTest& daemon) {
    auto client = Client::connect(daemon.socket(), clock_);
    if (!client) throw std::runtime_error(client.error().message());
    client_.emplace(std::move(*client));
  }
  Reply ask(const char* method, const std::string& parameters = "{}") {
    auto reply = client_->call(method, parameters);
    if (!reply) throw std::runtime_error(reply.error().message());
    return std::move(*reply);
  }
  /// The row of an attached process; nothing where it is not.
  std::optional<int64_t> samples(int32_t pid) {
    const Reply reply = ask("ListAttachments");
    for (const auto& row : array_of(reply.parameters(), "attachments").GetArray()) {
      if (integer_of(object_of(row, "process"), "pid") == pid) return integer_of(row, "samples");
    }
    return std::nullopt;
  }
  size_t attachments() { return static_cast<size_t>(integer_of(ask("GetStatus").parameters(), "attachments")); }
  size_t watches() { return array_of(ask("ListWatches").parameters(), "watches").Size(); }

 private:
  SystemClock clock_;
  std::optional<Client> client_;
};

void expect_one_line(const Answer& answer, int exit_code, const std::string& text) {
  EXPECT_EQ(answer.exit_code, exit_code) << answer.output;
  EXPECT_EQ(answer.lines(), 1U) << answer.output;
  EXPECT_THAT(answer.output, AllOf(StartsWith("stackwatch: "), HasSubstr(text)));
}

TEST(Rules, WhatMakesNoSenseIsOneLineAndChangesNothing) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(std::string(kQuiet) + "[[watch]]\nid = \"file\"\nname = \"burn\"\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  expect_one_line(daemon.ask({"watch", "add"}), 2, "without a matcher");
  expect_one_line(daemon.ask({"watch", "add", "--name", "x", "--id", "file"}), 2, "there is a rule file");
  expect_one_line(daemon.ask({"watch", "add", "--pid", "4194304"}), 1, "no process 4194304");
  expect_one_line(daemon.ask({"watch", "add", "--pid", std::to_string(getpid()), "--name", "nobody"}), 1,
                  "does not match the rest");
  expect_one_line(daemon.ask({"watch", "remove", "file"}), 1, "configuration");
  expect_one_line(daemon.ask({"watch", "remove", "nobody"}), 1, "no rule nobody");
  EXPECT_EQ(Asking(daemon).watches(), 1U);
}

TEST(Rules, AddedOnesAttachAtOnceAndRemovedOnesLetGo) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  Child burn({test_program("burn"), "--seconds", "60"});
  ASSERT_TRUE(eventually(5, [&] { return Procfs().read(burn.pid(), "comm") == "burn\n"; }));
  Asking asking(daemon);
  Times times;
  for (int round = 0; round < 20; ++round) {
    const double begun_s = now_s();
    const Reply added = asking.ask("AddWatch", R"({"name":"burn","probes":["on_cpu","off_cpu"]})");
    ASSERT_TRUE(asking.samples(burn.pid())) << "it is not attached when the daemon answers";
    times.add(now_s() - begun_s);
    asking.ask("RemoveWatch", R"({"id":")" + std::string(text_of(added.parameters(), "id")) + R"("})");
    ASSERT_TRUE(eventually(10, [&] { return !asking.samples(burn.pid()); }));
  }
  times.print("watch add until attached");
  EXPECT_LT(times.median(), 0.1);
  EXPECT_LT(times.worst(), 0.5);
  EXPECT_EQ(asking.watches(), 0U);
  EXPECT_TRUE(burn.running());
}

TEST(Rules, AProcessThatOneNamesIsAttachedWithin100MsOfItsExec) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(std::string(kQuiet) + "[[watch]]\nname = \"burn\"\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  Asking asking(daemon);
  Times times;
  for (int round = 0; round < 20; ++round) {
    usleep(static_cast<useconds_t>(37'000 * round % 1'000'000));  // anywhere between two ticks
    const double begun_s = now_s();
    const Child burn({test_program("burn"), "--seconds", "60"});
    while (!asking.samples(burn.pid()) && now_s() < begun_s + 5) usleep(500);
    times.add(now_s() - begun_s);
  }
  times.print("fork and exec until attached");
  EXPECT_LT(times.median(), 0.1);
  EXPECT_LT(times.worst(), 0.5) << "this machine may be busy, but not so busy";
}

/// Samples of a process that sleeps behind its work: when they are all there.
std::optional<int64_t> settled_samples(const DaemonUnderTest& daemon, bool of_child) {
  std::optional<int64_t> samples;
  int unchanged = 0;
  eventually(60, [&] {
    const rapidjson::Document rows = daemon.ask({"attachments", "--json"}).json();
    std::optional<int64_t> now;
    for (const auto& row : rows["attachments"].GetArray()) {
      const std::string why = row["reason"].GetString();
      if (of_child == why.starts_with("child of")) now = row["samples"].GetInt64();
    }
    unchanged = now && now == samples && *now > 0 ? unchanged + 1 : 0;
    samples = now;
    return unchanged > 25;  // more than two ticks
  });
  return samples;
}

TEST(Run, ACommandAndItsChildAreCountedFromTheirFirstInstruction) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  Asking asking(daemon);
  for (const std::string where : {"main", "child"}) {
    const double stolen = stolen_s();
    Child run({our_program("stackwatch"), "run", "--socket", daemon.socket(), "-F", "499", "--", test_program("burn"),
               "--where", where, "--seconds", "2", "--linger", "8"});
    const auto samples = settled_samples(daemon, where == "child");
    EXPECT_EQ(run.wait(), 0);
    rapidjson::Document report;
    report.Parse(run.output().c_str());
    ASSERT_TRUE(report.IsObject() && samples) << run.output();
    const double cpu_s = report["cpu_s"].GetDouble();
    std::printf("[ FIGURES  ] run, %s: %lld samples of %.1f\n", where.c_str(), static_cast<long long>(*samples),
                cpu_s * 499);
    expect_samples_match(*samples, cpu_s, 499, stolen_s() - stolen);
    EXPECT_EQ(asking.watches(), 0U) << "the rule is taken back";
  }
}

TEST(Run, ExitCodesAndSignalsArePassedOn) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  const std::vector<std::string> run_words = {our_program("stackwatch"), "run", "--socket", daemon.socket(), "--"};
  const auto words = [&](std::vector<std::string> command) {
    command.insert(command.begin(), run_words.begin(), run_words.end());
    return command;
  };
  EXPECT_EQ(run(words({"sh", "-c", "exit 7"})).exit_code, 7);
  EXPECT_EQ(run(words({"sh", "-c", "kill -KILL $$"})).exit_code, 128 + SIGKILL);
  expect_one_line(run(words({"/nonexistent/program"})), 127, "No such file");
  Child trapped(words({"sh", "-c", "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done"}));
  ASSERT_TRUE(trapped.wait_for("ready", 20)) << trapped.output();
  trapped.signal(SIGTERM);
  EXPECT_EQ(trapped.wait(), 5);
  EXPECT_THAT(trapped.output(), HasSubstr("got"));
  EXPECT_EQ(Asking(daemon).watches(), 0U);
}

TEST(Run, TheRuleOfAClientThatWasKilledGoesWithTheCommand) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  Asking asking(daemon);
  Child client(
      {our_program("stackwatch"), "run", "--socket", daemon.socket(), "--", "sh", "-c", "echo $$; exec sleep 4"});
  ASSERT_TRUE(client.wait_for("\n", 20));
  client.signal(SIGKILL);
  usleep(2'000'000);
  EXPECT_EQ(asking.watches(), 1U) << "the command runs on, and is watched";
  EXPECT_EQ(asking.attachments(), 1U);
  EXPECT_TRUE(eventually(15, [&] { return asking.watches() == 0 && asking.attachments() == 0; }));
}

TEST(Run, APidOfAnotherNamespaceIsNotTakenForOneOfTheDaemons) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(kQuiet);
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  const std::string mark = daemon.directory().path() + "/mark";
  const Answer answer = run({"unshare", "--pid", "--fork", "--mount-proc", our_program("stackwatch"), "run", "--socket",
                             daemon.socket(), "--", "touch", mark});
  expect_one_line(answer, 1, "pid namespace is not yours");
  EXPECT_NE(access(mark.c_str(), F_OK), 0) << "it ran unwatched";
  EXPECT_EQ(Asking(daemon).watches(), 0U);
  EXPECT_EQ(Asking(daemon).attachments(), 0U);
}

/// How long the main thread of a process waited for a CPU so far, seconds.
double run_delay_s(int32_t pid) {
  std::istringstream text(Procfs().read(pid, "schedstat").value_or(""));
  double on_cpu_ns = 0;
  double run_delay_ns = 0;
  text >> on_cpu_ns >> run_delay_ns;
  return run_delay_ns * 1e-9;
}

/// Answers to one question after the other.
struct Answering {
  Times all;
  Times unstarved;  ///< without what the daemon and we waited for a CPU: a busy machine is not the daemon's doing
};

/// Asks for the status again and again, until `done` or the time is over.
template <class Done>
Answering ask_status_until(Asking& asking, int32_t daemon_pid, double seconds, Done done) {
  Answering times;
  const double end_s = now_s() + seconds;
  const auto starved_s = [daemon_pid] { return run_delay_s(daemon_pid) + run_delay_s(getpid()); };
  do {
    const double before_s = starved_s();
    const double begun_s = now_s();
    asking.ask("GetStatus");
    const double passed_s = now_s() - begun_s;
    times.all.add(passed_s);
    times.unstarved.add(std::max(0.0, passed_s - (starved_s() - before_s)));
    usleep(2'000);
  } while (now_s() < end_s && !done());
  return times;
}

/// The promise: 100 ms. What it may take on top of that is the wait for a CPU, and one in a hundred.
void expect_at_once(Answering& times, const char* what) {
  times.all.print(what);
  times.unstarved.print("  the same without waiting for a CPU");
  EXPECT_LT(times.all.median(), 0.02);
  EXPECT_LT(times.all.percentile(99), 0.1);
  EXPECT_LT(times.unstarved.percentile(99.5), 0.1);
}

using Children = std::vector<std::unique_ptr<Child>>;

Children start(size_t count, const std::vector<std::string>& command) {
  Children children;
  for (size_t i = 0; i < count; ++i) children.push_back(std::make_unique<Child>(command));
  return children;
}

void signal_all(const Children& children, int number) {
  for (const auto& child : children) child->signal(number);
}

constexpr const char* kNotAttached = " not attached";

/// What of a process is asked for and not counted yet, as text.
std::string loading(Asking& asking, int32_t pid) {
  const Reply reply = asking.ask("ListAttachments");
  for (const auto& row : array_of(reply.parameters(), "attachments").GetArray()) {
    if (integer_of(object_of(row, "process"), "pid") != pid) continue;
    std::string all;
    for (const auto& probe : array_of(row, "loading").GetArray()) all += std::string(" ") + probe.GetString();
    return all;
  }
  return kNotAttached;
}

/// Whether a daemon that has not loaded the program of a probe yet answers while it loads it, which takes 100 ms and
/// more of a CPU: it attached the process, answered a question, and said then that the program is still to come. A
/// daemon that waits for the program never says so, as it has it when it answers.
bool answers_while_it_loads(const std::string& probe) {
  DaemonUnderTest daemon(kQuiet);
  EXPECT_TRUE(daemon.ready()) << daemon.process().output();
  const Child burn({test_program("burn"), "--seconds", "120"});
  Asking asking(daemon);
  asking.ask("AddWatch", R"({"pid":)" + std::to_string(burn.pid()) + R"(,"probes":["on_cpu",")" + probe + R"("]})");
  std::string still_to_come = kNotAttached;
  for (const double end_s = now_s() + 60; still_to_come == kNotAttached && now_s() < end_s;) {
    asking.ask("GetStatus");
    still_to_come = loading(asking, burn.pid());
  }
  EXPECT_NE(still_to_come, kNotAttached);
  Answering times =
      ask_status_until(asking, daemon.process().pid(), 60, [&] { return loading(asking, burn.pid()).empty(); });
  times.all.print(("status while " + probe + " is loaded").c_str());
  EXPECT_LT(times.all.worst(), 5) << "it waits for more than a CPU";
  EXPECT_EQ(loading(asking, burn.pid()), "") << probe;
  const auto answer = daemon.ask({"stacks", std::to_string(burn.pid()), "--probe", probe});
  EXPECT_EQ(answer.exit_code, 0) << probe << ": " << answer.output;
  return !still_to_come.empty() && still_to_come != kNotAttached;
}

// On a busy machine the program may be there before we have a CPU to ask for it.
TEST(Status, AnswersAtOnceWhileProgramsAreLoadedForARule) {
  STACKWATCH_REQUIRE_BPF();
  constexpr int kTries = 3;
  for (const std::string probe : {"off_cpu", "page_fault", "memory"}) {
    bool answered = false;
    for (int i = 0; i < kTries && !answered; ++i) answered = answers_while_it_loads(probe);
    EXPECT_TRUE(answered) << "the daemon answers only when the program of " << probe << " is there";
  }
}

TEST(Status, AnswersAtOnceWhile200AttachedProcessesRestart) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(std::string(kQuiet) + "[[watch]]\nexe = \"" + test_program("sleeper") +
                         "\"\nprobes = [\"on_cpu\", \"off_cpu\"]\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  constexpr size_t kCount = 200;
  const std::vector<std::string> sleeper = {test_program("sleeper"), "--seconds", "120"};
  Asking asking(daemon);
  Children old = start(kCount, sleeper);
  ASSERT_TRUE(eventually(30, [&] { return asking.attachments() == kCount; })) << asking.attachments();
  // From beside, so that the questions go on meanwhile.
  Child restart({"sh", "-c",
                 "trap 'kill -9 $(jobs -p); exit' TERM; kill -9 $0; i=0; while [ $i -lt 200 ]; do " + sleeper[0] +
                     " --seconds 60 & i=$((i+1)); done; wait",
                 [&] {
                   std::string pids;
                   for (const auto& child : old) pids += (pids.empty() ? "" : " ") + std::to_string(child->pid());
                   return pids;
                 }()});
  Answering times = ask_status_until(asking, daemon.process().pid(), 6, [] { return false; });
  expect_at_once(times, "status while 200 attached processes restart");
  const Reply status = asking.ask("GetStatus");
  std::printf("[ FIGURES  ] the longest tick took %.1f ms\n",
              number_of(status.parameters(), "max_tick_ms").value_or(-1));
  signal_all(old, SIGKILL);
  EXPECT_TRUE(eventually(20, [&] { return asking.attachments() == kCount; })) << asking.attachments();
  restart.signal(SIGTERM);  // and all that it started: the next test counts them
  restart.wait();
}

TEST(Status, AnswersAtOnceWhileTargetsAreStoppedAndKilled) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon(std::string(kQuiet) + "[[watch]]\nexe = \"" + test_program("threads") +
                         "\"\nprobes = [\"on_cpu\", \"off_cpu\"]\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  constexpr size_t kCount = 50;
  const Children targets =
      start(kCount, {test_program("threads"), "--count", "2", "--cores", "0.004", "--seconds", "120"});
  Asking asking(daemon);
  ASSERT_TRUE(eventually(30, [&] { return asking.attachments() == kCount; })) << asking.attachments();
  signal_all(targets, SIGSTOP);
  Answering stopped = ask_status_until(asking, daemon.process().pid(), 3, [] { return false; });
  expect_at_once(stopped, "status while 50 attached processes are stopped");
  EXPECT_EQ(asking.attachments(), kCount);
  signal_all(targets, SIGKILL);
  Answering killed = ask_status_until(asking, daemon.process().pid(), 10, [&] { return asking.attachments() == 0; });
  expect_at_once(killed, "status while they are killed");
  EXPECT_EQ(asking.attachments(), 0U);
  EXPECT_TRUE(daemon.process().running());
}

}  // namespace
}  // namespace stackwatch
