// SPDX-License-Identifier: Apache-2.0
// What a tick costs beside counting, on a machine of many processes: its census, and the ranking and the rules that
// follow from it, with nobody attached. Against reading the same from /proc. Needs root.
//   tick_cost [PROCESSES [TICKS]]
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "bpf/bpf_census.h"
#include "daemon/live_source.h"
#include "daemon/proc_census.h"
#include "tests/fakes/fake_namer.h"

namespace stackwatch {
namespace {

double cpu_ms() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

/// Processes that sleep until this object ends.
class Sleepers {
 public:
  explicit Sleepers(size_t count) {
    while (pids_.size() < count) {
      const pid_t pid = fork();
      if (pid < 0) break;
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pause();
        _exit(0);
      }
      pids_.push_back(pid);
    }
  }
  ~Sleepers() {
    for (const pid_t pid : pids_) kill(pid, SIGKILL);
    for (const pid_t pid : pids_) waitpid(pid, nullptr, 0);
  }
  Sleepers(const Sleepers&) = delete;
  Sleepers& operator=(const Sleepers&) = delete;
  [[nodiscard]] size_t size() const { return pids_.size(); }

 private:
  std::vector<pid_t> pids_;
};

/// Passes on another census and keeps what it cost.
class TimedCensus final : public Census {
 public:
  explicit TimedCensus(Census& census) : census_(census) {}
  Result<std::vector<ProcessSample>> take() override {
    const double begin_ms = cpu_ms();
    auto samples = census_.take();
    ms_.push_back(cpu_ms() - begin_ms);
    return samples;
  }
  [[nodiscard]] std::string_view method() const override { return census_.method(); }
  [[nodiscard]] const std::vector<double>& ms() const { return ms_; }

 private:
  Census& census_;
  std::vector<double> ms_;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values.empty() ? 0 : values[values.size() / 2];
}

WatchRule rule_that_matches_nobody() {
  WatchRule rule;
  rule.id = "nobody";
  rule.name = "nobody-is-called-so";
  return rule;
}

int complain(const Error& error) {
  std::fprintf(stderr, "%s\n", error.message().c_str());
  return 1;
}

int measure(size_t processes, int ticks) {
  const Procfs procfs;
  auto made = make_bpf_census([&procfs](int32_t pid) { return procfs.cgroup(pid); });
  if (!made) return complain(made.error());
  TimedCensus census(**made);
  const SystemClock clock;
  FunctionTable functions;
  FakeNamer namer(functions);
  Attachments attachments({}, namer, functions, clock, {});
  Config config;
  config.watch = {rule_that_matches_nobody()};
  LiveSource source({census, attachments, procfs, Entitlement(1)}, clock, config);

  const Sleepers sleepers(processes);
  std::vector<double> tick_ms;
  size_t seen = 0;
  for (int i = 0; i < ticks; ++i) {
    const double begin_ms = cpu_ms();
    auto batch = source.next();
    if (!batch) return complain(batch.error());
    tick_ms.push_back(cpu_ms() - begin_ms);
    seen = (*batch)->samples.size();
    usleep(20'000);
  }
  const auto from_proc = make_proc_census(procfs);
  const double begin_ms = cpu_ms();
  if (auto taken = from_proc->take(); !taken) return complain(taken.error());
  const double proc_ms = cpu_ms() - begin_ms;

  const double census_ms = median(census.ms());
  const double whole_ms = median(tick_ms);
  std::printf(
      "| processes | first tick, ms | census, ms | whole tick, ms | us a process | a census of /proc, ms | /proc / "
      "tick |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
  std::printf("| %zu | %.1f | %.1f | %.1f | %.2f | %.0f | %.0f |\n", seen, tick_ms.front(), census_ms, whole_ms,
              1e3 * whole_ms / static_cast<double>(seen), proc_ms, proc_ms / whole_ms);
  return sleepers.size() == processes ? 0 : 1;
}

}  // namespace
}  // namespace stackwatch

int main(int argc, char** argv) {
  const long processes = argc > 1 ? std::atol(argv[1]) : 20'000;
  const long ticks = argc > 2 ? std::atol(argv[2]) : 50;
  if (processes < 0 || ticks < 1) {
    std::fprintf(stderr, "usage: tick_cost [PROCESSES [TICKS]]\n");
    return 2;
  }
  return stackwatch::measure(static_cast<size_t>(processes), static_cast<int>(ticks));
}
