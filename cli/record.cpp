// SPDX-License-Identifier: Apache-2.0
#include "cli/record.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "capture/writer.h"
#include "cli/count_report.h"
#include "cli/launch.h"
#include "cli/machine.h"
#include "cli/text.h"
#include "config/rule.h"
#include "daemon/capture_recorder.h"
#include "daemon/live_source.h"

namespace stackwatch {
namespace {

constexpr uint64_t kTickNs = 1'000'000'000;  // the daemon's own default: a replay judges what the daemon would
/// With half as many on top for the survey, as many as the kernel's map of watched processes has room for.
constexpr size_t kMaxAttachments = 2730;
/// At the end names are waited for as long as attachments do, and a moment.
constexpr uint64_t kLastNamesNs = static_cast<uint64_t>((Attachments::kNamesDeadlineS + 1) * 1e9);

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : std::string();
}

Result<Config> configuration(const TargetOptions& options, const std::vector<int32_t>& pids) {
  Config config;
  config.ranking.max_suspects = 0;
  config.limits.attachments = kMaxAttachments;
  const auto add = [&](WatchRule rule) -> Result<void> {
    rule.probes = options.probes;
    rule.frequency_hz = options.frequency_hz;
    rule.children = options.children;
    rule.mmap = options.mmap;
    auto checked = checked_rule(std::move(rule));
    if (!checked) return Failure(checked.error());
    config.watch.push_back(std::move(*checked));
    return {};
  };
  for (const int32_t pid : pids) {
    WatchRule rule;
    rule.pid = pid;
    if (auto added = add(std::move(rule)); !added) return Failure(added.error());
  }
  config.survey.enabled = options.all;
  config.survey.frequency_hz = options.frequency_hz;
  return config;
}

/// One run of the verb.
class Recording {
 public:
  Recording(const TargetOptions& options, Launch& launch, const Clock& clock)
      : options_(options), launch_(launch), clock_(clock) {}

  Result<void> run();

 private:
  Result<void> start();
  Result<void> create_file();
  Result<void> record();
  Result<void> tick(bool keep_replaced = true);
  Result<void> finish();
  void wait(uint64_t until_ns);
  void say_once(const std::string& problem);
  void tell() const;

  const TargetOptions& options_;
  Launch& launch_;
  const Clock& clock_;
  std::optional<CaptureRecorder> recorder_;
  Machine machine_;
  std::optional<LiveSource> source_;
  uint64_t begun_ns_ = 0;
  std::string said_;
};

Result<void> Recording::run() {
  if (auto started = start(); !started) return started;
  if (auto created = create_file(); !created) return created;
  if (!launch_.release()) return recorder_->finish();
  begun_ns_ = clock_.monotonic_ns();
  auto recorded = record();
  // Whatever ended it: what was counted until then is written, if anything can be.
  auto finished = recorded ? finish() : recorder_->finish();
  tell();
  return recorded ? finished : recorded;
}

Result<void> Recording::start() {
  if (auto started = machine_.start(options_.probes, {kMaxAttachments, StackTable::kDefaultCapacity}, clock_);
      !started) {
    return started;
  }
  auto config = configuration(options_, launch_.pids());
  if (!config) return Failure(config.error());
  source_.emplace(LiveSource::Parts{*machine_.census, *machine_.attachments, machine_.procfs,
                                    Entitlement(std::max(1U, std::thread::hardware_concurrency()))},
                  clock_, *config);
  // Attaches; there is nothing to record yet.
  if (auto first = source_->next(); !first) return Failure(first.error());
  for (const int32_t pid : launch_.pids()) {
    const std::string what = "process " + std::to_string(pid);
    if (!source_->has_process(pid)) return fail(what, "it is not in the census", "it may have ended just now");
    if (machine_.attachments->size() == 0) return fail(what, source_->attach_problem());
  }
  return {};
}

// Only when there is something to record: an earlier capture of this name is gone then.
Result<void> Recording::create_file() {
  auto writer =
      CaptureWriter::create(options_.output, capture_header(clock_, static_cast<double>(kTickNs) * 1e-9, host_name()));
  if (!writer) return Failure(writer.error());
  recorder_.emplace(std::move(*writer),
                    options_.all ? CaptureRecorder::Samples::kAll : CaptureRecorder::Samples::kWatched);
  return {};
}

Result<void> Recording::record() {
  // The command has just become what it is: until now it was a fork of ours, and nobody must learn about that.
  if (launch_.has_command()) {
    if (auto begun = tick(false); !begun) return begun;
  }
  const uint64_t deadline_ns =
      options_.duration_s ? begun_ns_ + static_cast<uint64_t>(*options_.duration_s * 1e9) : UINT64_MAX;
  uint64_t next_tick_ns = begun_ns_ + kTickNs;
  while (!launch_.all_ended() && !launch_.asked_to_stop()) {
    const uint64_t now = clock_.monotonic_ns();
    if (now >= deadline_ns) break;
    if (now >= next_tick_ns) {
      const uint64_t missed = (now - next_tick_ns) / kTickNs;
      if (missed > 0) source_->mark_late();
      next_tick_ns += (missed + 1) * kTickNs;
      if (auto done = tick(); !done) return done;
    }
    wait(std::min(next_tick_ns, deadline_ns));
  }
  return {};
}

Result<void> Recording::tick(bool keep_replaced) {
  auto batch = source_->next();
  if (!batch) return Failure(batch.error());
  if (!*batch) return {};
  if (!keep_replaced) (*batch)->replaced.clear();
  say_events(machine_);
  say_once(source_->attach_problem());
  return recorder_->record(**batch, *source_);
}

// Nobody is wanted any more: the first tick reads what was counted until now and lets all go, the next one reads their
// last counts, and further ones come only for names.
Result<void> Recording::finish() {
  Config nobody;
  nobody.ranking.max_suspects = 0;
  nobody.survey.enabled = false;
  source_->configure(nobody);
  const uint64_t begun_ns = clock_.monotonic_ns();
  do {
    if (auto done = tick(); !done) return done;
    if (machine_.attachments->size() == 0) break;
    wait(clock_.monotonic_ns() + kTickNs / 10);
  } while (clock_.monotonic_ns() < begun_ns + kLastNamesNs);
  return recorder_->finish();
}

void Recording::wait(uint64_t until_ns) {
  std::vector<pollfd> waiting;
  launch_.add_to(waiting);
  machine_.add_to(waiting);
  if (!poll_until(waiting, until_ns, clock_)) return;
  const size_t others = launch_.entries();
  launch_.handle(std::span(waiting).first(others));
  machine_.handle(std::span(waiting).subspan(others));
}

void Recording::say_once(const std::string& problem) {
  if (!problem.empty() && problem != said_) say("warning: " + problem);
  if (!problem.empty()) said_ = problem;
}

void Recording::tell() const {
  const double seconds = static_cast<double>(clock_.monotonic_ns() - begun_ns_) * 1e-9;
  const std::string lost = losses_line(machine_.attachments->total_losses());
  say(fmt::format("{}: {}, {} lines, {}B; lost: {}", options_.output, duration_text(seconds),
                  recorder_->writer().lines(), bytes_text(static_cast<double>(recorder_->writer().bytes())),
                  lost.empty() ? "none" : lost));
}

}  // namespace

Result<int> run_record(const TargetOptions& options, bool pipe_ignored, const Clock& clock) {
  auto launch = Launch::start(options, pipe_ignored);
  if (!launch) return Failure(launch.error());
  Result<void> recorded;
  {
    Recording recording(options, *launch, clock);  // behind the fork: none of its descriptors reaches the command
    recorded = recording.run();
  }
  if (!recorded && !launch->has_begun()) return Failure(recorded.error());
  const int code = launch->end_code();
  if (!recorded) return Failure(recorded.error());
  return code;
}

}  // namespace stackwatch
