// SPDX-License-Identifier: Apache-2.0
#include "cli/count.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "bpf/exec_events.h"
#include "cli/count_format.h"
#include "cli/count_session.h"
#include "cli/launch.h"
#include "cli/machine.h"

namespace stackwatch {
namespace {

constexpr uint64_t kNsPerMs = 1'000'000;
/// Where children are counted counts are taken so often, for the names of those that live that long: their mappings go
/// with them.
constexpr uint64_t kCollectNs = 100 * kNsPerMs;
/// Else so often: taking walks through the kernel's whole map, 65,536 places a probe. In between only the ring with the
/// frames is emptied, as it fills.
constexpr uint64_t kQuietCollectNs = 1000 * kNsPerMs;
/// The first moments are looked at closely, with twice the time from look to look: it may be over soon, and mappings
/// that were read once are known to the end.
constexpr uint64_t kFirstCollectNs = 5 * kNsPerMs;
constexpr uint64_t kCensusNs = 1000 * kNsPerMs;
/// After an exec somebody may have a new child, or be another program: by then its libraries are mapped, and it is seen
/// while it lives. At most so often, however many there are: a census is 0.5 ms of 200 processes.
constexpr uint64_t kAfterExecNs = 10 * kNsPerMs;
constexpr uint64_t kExecCensusNs = 25 * kNsPerMs;
/// A build runs some hundred processes at a time; 1,024 take some 30 MB. The kernel's map has room for 4,096.
constexpr size_t kMaxAttachments = 1024;
/// As many as the kernel's map holds for all of them together.
constexpr size_t kMaxStacks = 65536;

/// One run of the verb.
class Counting {
 public:
  Counting(const CountOptions& options, Launch& launch, int output_fd, const Clock& clock)
      : options_(options),
        launch_(launch),
        clock_(clock),
        out_(output_fd),
        formatter_(make_count_formatter(options.format, options.target.probes)) {}

  Result<void> run();

 private:
  Result<void> start();
  void watch_execs();
  Result<void> count();
  void wait(uint64_t until_ns);
  [[nodiscard]] uint64_t next_due() const;
  Result<void> look_if_due(uint64_t now);
  Result<void> collect_if_due(uint64_t now);
  void heed_execs();
  Result<void> cut_if_due(uint64_t now);
  Result<void> finish();
  Result<void> print_complete();
  void tell_losses() const;

  const CountOptions& options_;
  Launch& launch_;
  const Clock& clock_;
  TextStream out_;
  std::unique_ptr<CountFormatter> formatter_;
  Machine machine_;
  std::unique_ptr<ExecEvents> execs_;  // where children are counted and the kernel allows it
  std::optional<CountSession> session_;
  uint64_t begun_ns_ = 0;
  uint64_t collect_period_ns_ = kFirstCollectNs;
  uint64_t next_collect_ns_ = 0;
  uint64_t next_census_ns_ = 0;
  uint64_t last_census_ns_ = 0;
  uint64_t next_cut_ns_ = UINT64_MAX;
  uint64_t deadline_ns_ = UINT64_MAX;
  std::map<ProbeKind, Losses> lost_;
  bool settling_ = false;  // the first report is of the time before counting began
};

Result<void> Counting::run() {
  if (auto started = start(); !started) return started;
  if (!launch_.release()) return {};
  begun_ns_ = clock_.monotonic_ns();
  const auto from_now = [this](double seconds) { return begun_ns_ + static_cast<uint64_t>(seconds * 1e9); };
  next_collect_ns_ = begun_ns_ + collect_period_ns_;
  next_census_ns_ = launch_.has_command() ? begun_ns_ : begun_ns_ + kCensusNs;
  if (options_.interval_s) next_cut_ns_ = from_now(*options_.interval_s);
  if (options_.target.duration_s) deadline_ns_ = from_now(*options_.target.duration_s);
  auto counted = count();
  // Whatever ended it: what was counted until then is printed.
  auto finished = finish();
  tell_losses();
  return counted ? finished : counted;
}

Result<void> Counting::start() {
  const TargetOptions& target = options_.target;
  if (auto started = machine_.start(target.probes, {kMaxAttachments, kMaxStacks}, clock_); !started) return started;
  session_.emplace(
      CountSession::Parts{*machine_.census, *machine_.attachments, machine_.functions, machine_.procfs}, clock_,
      target.probes,
      ProbeOptions{.frequency_hz = target.frequency_hz, .children = target.children, .mappings = target.mmap});
  if (target.children) watch_execs();
  if (auto attached = session_->attach(launch_.pids()); !attached) return attached;
  constexpr double kPatienceS = 10;  // a large program's functions are found within a second
  for (const auto& engine : machine_.engines) engine->wait_until_counting(kPatienceS);
  // Until then stacks of what runs already were cut short for want of tables, and the time was not the user's. Memory
  // is not left out: its frees will come.
  settling_ = !launch_.has_command() && std::ranges::find(target.probes, ProbeKind::kMemory) == target.probes.end();
  return settling_ ? session_->cut() : Result<void>();
}

// Without them children that live for less than kCollectNs have no names; nothing else is lost.
void Counting::watch_execs() {
  auto execs = make_exec_events();
  if (execs && (*execs)->switch_on(true)) execs_ = std::move(*execs);
}

Result<void> Counting::count() {
  while (!launch_.all_ended() && !launch_.asked_to_stop()) {
    const uint64_t now = clock_.monotonic_ns();
    if (now >= deadline_ns_) break;
    if (auto cut = cut_if_due(now); !cut) return cut;
    if (auto looked = look_if_due(now); !looked) return looked;
    if (auto collected = collect_if_due(now); !collected) return collected;
    session_->take();
    if (auto printed = print_complete(); !printed) return printed;
    wait(next_due());
  }
  return {};
}

uint64_t Counting::next_due() const {
  return std::min({next_collect_ns_, next_census_ns_, next_cut_ns_, deadline_ns_});
}

void Counting::wait(uint64_t until_ns) {
  std::vector<pollfd> waiting;
  launch_.add_to(waiting);
  machine_.add_to(waiting);
  if (execs_) waiting.push_back({execs_->fd(), POLLIN, 0});
  if (!poll_until(waiting, until_ns, clock_)) return;
  const size_t others = launch_.entries();
  launch_.handle(std::span(waiting).first(others));
  machine_.handle(std::span(waiting).subspan(others));
  if (execs_ && waiting.back().revents != 0) heed_execs();
}

void Counting::heed_execs() {
  bool any = false;
  execs_->drain([&any](std::string_view /*comm*/) { any = true; });
  if (!any) return;
  const uint64_t soon_ns = std::max(clock_.monotonic_ns() + kAfterExecNs, last_census_ns_ + kExecCensusNs);
  next_census_ns_ = std::min(next_census_ns_, soon_ns);
}

Result<void> Counting::look_if_due(uint64_t now) {
  const bool first_moments = launch_.has_command() && collect_period_ns_ < kCollectNs;
  if (now < next_census_ns_ && !(first_moments && now >= next_collect_ns_)) return {};
  last_census_ns_ = now;
  next_census_ns_ = now + kCensusNs;
  return session_->look_around();
}

Result<void> Counting::collect_if_due(uint64_t now) {
  if (now < next_collect_ns_) return {};
  collect_period_ns_ = std::min(options_.target.children ? kCollectNs : kQuietCollectNs, 2 * collect_period_ns_);
  next_collect_ns_ = now + collect_period_ns_;
  say_events(machine_);
  return session_->collect();
}

// On a grid: a late cut does not move the later ones.
Result<void> Counting::cut_if_due(uint64_t now) {
  if (now < next_cut_ns_) return {};
  const auto interval_ns = static_cast<uint64_t>(*options_.interval_s * 1e9);
  next_cut_ns_ += ((now - next_cut_ns_) / interval_ns + 1) * interval_ns;
  return session_->cut();
}

Result<void> Counting::finish() {
  auto finished = session_->finish();
  while (!session_->done()) {
    pollfd names{machine_.namer->fd(), POLLIN, 0};
    constexpr int kTimeoutMs = 100;  // the attachments give up by themselves, after kNamesDeadlineS
    poll(&names, 1, kTimeoutMs);
    session_->take();
  }
  say_events(machine_);
  auto printed = print_complete();
  return printed ? finished : printed;
}

Result<void> Counting::print_complete() {
  while (auto report = session_->take_report()) {
    if (std::exchange(settling_, false)) continue;
    for (const ProbeKind kind : options_.target.probes) lost_[kind] += losses_of(*report, kind);
    formatter_->print(*report, session_->names(), out_);
    if (auto written = out_.flush(); !written) return written;
  }
  return {};
}

// JSON and trees say it themselves.
void Counting::tell_losses() const {
  if (options_.format == CountFormat::kJson || options_.format == CountFormat::kTree) return;
  for (const auto& [kind, lost] : lost_) {
    const std::string line = losses_line(lost);
    if (!line.empty()) say("lost of " + std::string(to_string(kind)) + ": " + line);
  }
}

}  // namespace

Result<int> run_count(const CountOptions& options, bool pipe_ignored, const Clock& clock) {
  UniqueFd file;
  if (!options.target.output.empty()) {
    file.reset(open(options.target.output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!file) return fail("open " + options.target.output, strerrordesc_np(errno));
  }
  auto launch = Launch::start(options.target, pipe_ignored);
  if (!launch) return Failure(launch.error());
  Result<void> counted;
  {
    Counting counting(options, *launch, file ? file.get() : STDOUT_FILENO, clock);
    counted = counting.run();
  }
  // The command runs on where the time is over, with nothing of ours in it; but it does not begin where we failed.
  if (!counted && !launch->has_begun()) return Failure(counted.error());
  const int code = launch->end_code();
  if (!counted) return Failure(counted.error());
  return code;
}

}  // namespace stackwatch
