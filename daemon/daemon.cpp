// SPDX-License-Identifier: Apache-2.0
#include "daemon/daemon.h"

#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>

#include "config/rule.h"
#include "daemon/alerting/message.h"
#include "daemon/detector_schema.h"

namespace stackwatch {
namespace {

/// More would not be read.
constexpr size_t kMaxWarnings = 32;

}  // namespace

AlertPolicyOptions alert_policy_options(const Config& config) {
  AlertPolicyOptions options;
  options.persistence_s = config.alerts.persistence_s;
  options.cooldown_s = config.alerts.cooldown_s;
  options.false_alarm_budget = config.alerts.false_alarm_budget;
  const DetectorSettings detectors = detector_settings(config);
  options.adopt_after_s =
      std::min({detectors.composition.adopt_after_s, detectors.rate.adopt_after_s, detectors.wait.adopt_after_s,
                detectors.novelty.adopt_after_s, detectors.subspace.adopt_after_s, detectors.peers.adopt_after_s});
  return options;
}

Daemon::Daemon(Parts parts, const Config& config)
    : parts_(std::move(parts)),
      tick_s_(config.tick_s),
      usage_(parts_.procfs),
      limits_(config.limits),
      started_ns_(parts_.clock.monotonic_ns()) {
  governor_.set_limits(limits_);
  measure_footprint();
  parts_.source.set_keep([this](const ProcessKey& process) { return parts_.policy.concerns(process); });
}

bool Daemon::tick(uint64_t missed) {
  const uint64_t begun_ns = parts_.clock.monotonic_ns();
  missed_ticks_ += missed;
  if (missed > 0) parts_.source.mark_late();
  auto outcome = parts_.pipeline.tick();
  if (!outcome) {
    // A condition that lasts would fill the journal with a line per tick.
    if (!std::exchange(failing_, true)) parts_.log.error("{}", outcome.error().message());
    measure_footprint();
    return false;
  }
  if (std::exchange(failing_, false)) parts_.log.info("working again");
  for (const Alert& alert : outcome->changed) on_alert_(alert);
  for (const Error& error : outcome->sink_errors) warn(error.message());
  if (state_ != nullptr) state_->tick();
  take_events();
  note_attach_problem();
  note_rules();

  const uint64_t now_ns = parts_.clock.monotonic_ns();
  usage_.observe(static_cast<double>(now_ns) * 1e-9, parts_.namer.worker_pid());
  measure_footprint();
  hold_limits(static_cast<double>(now_ns) * 1e-9);
  last_tick_ms_ = static_cast<double>(now_ns - begun_ns) * 1e-6;
  max_tick_ms_ = std::max(max_tick_ms_, last_tick_ms_);
  ++ticks_;
  return true;
}

void Daemon::take_events() {
  for (const Error& event : parts_.namer.take_events()) warn(event.message());
  if (state_ != nullptr) {
    for (const Error& event : state_->take_events()) parts_.log.warn("{}", printable(event.message(), 512));
  }
  // About one process each, and it may happen again: for the log alone. `attachments` shows how it stands.
  for (ProbeEngine* engine : parts_.engines) {
    for (const Error& event : engine->take_events()) parts_.log.warn("{}", printable(event.message(), 512));
  }
}

// A host that hovers around a limit would fill the journal: `status` has it at once, the log once in a while.
void Daemon::note_attach_problem() {
  constexpr uint64_t kSilenceNs = 3600ULL * 1'000'000'000;
  attach_problem_ = parts_.source.attach_problem();
  const uint64_t now_ns = parts_.clock.monotonic_ns();
  if (attach_problem_.empty() || now_ns < attach_problem_silent_until_ns_) return;
  attach_problem_silent_until_ns_ = now_ns + kSilenceNs;
  parts_.log.warn("{}", printable(attach_problem_, 512));
}

// The source drops rules by itself, of processes that have ended.
void Daemon::note_rules() {
  if (std::exchange(rules_noted_, parts_.source.rules()) != parts_.source.rules()) on_rules_();
}

void Daemon::hold_limits(double time_s) {
  const Governor::Usage usage{100 * usage_.cpu_share(Governor::kWindowS), footprint_.memory_bytes()};
  const bool changed = governor_.observe(time_s, usage);
  // What was shed is free for us, not yet for others.
  if (governor_.over_memory() && time_s - trimmed_s_ >= Governor::kWindowS) {
    malloc_trim(0);
    trimmed_s_ = time_s;
  }
  if (!changed) return;
  parts_.source.shed(governor_.shedding());
  if (governor_.shedding().sheds()) {
    parts_.log.warn("{}", governor_.shedding().text());
  } else {
    parts_.log.info("within its limits again: everything is watched as configured");
  }
}

void Daemon::measure_footprint() {
  const pid_t worker = parts_.namer.worker_pid();
  footprint_ = {.resident_bytes = usage_.resident_bytes(),
                .worker_bytes = usage_.resident_bytes_of(worker),
                .open_fds = usage_.open_fds()};
  for (const ProbeEngine* engine : parts_.engines) {
    const ProbeEngine::Cost cost = engine->cost();
    footprint_.map_bytes += cost.map_bytes;
    footprint_.recursion_misses += cost.recursion_misses;
  }
}

std::vector<LimitUse> Daemon::limits() const {
  double overhead = 0;
  for (const ProcessKey& process : parts_.attachments.processes()) {
    overhead = std::max(overhead, parts_.source.overhead_percent(process));
  }
  const uint64_t disk = state_ == nullptr ? 0 : state_->store().status().bytes;
  const auto number = [](uint64_t value) { return static_cast<double>(value); };
  return {{"memory", number(limits_.memory_bytes), number(footprint_.memory_bytes())},
          {"cpu_percent", limits_.cpu_percent, 100 * usage_.cpu_share(Governor::kWindowS)},
          {"attachments", number(limits_.attachments), number(parts_.source.focused())},
          {"stacks_per_process", number(limits_.stacks_per_process), number(parts_.attachments.most_stacks())},
          {"overhead_percent_per_process", limits_.overhead_percent_per_process, overhead},
          {"disk", number(limits_.disk_bytes), number(disk)}};
}

void Daemon::warn_about(const Config& config) {
  for (const std::string& warning : config.warnings) warn(warning);
  for (const WatchRule& rule : config.watch) {
    for (const ProbeKind probe : rule.probes) {
      if (!parts_.attachments.has_engine(probe)) {
        warn(fmt::format("{}: the probe {} is not in this version and left out", rule.source, to_string(probe)));
      }
    }
  }
}

void Daemon::warn(const std::string& text) {
  if (warnings_.size() >= kMaxWarnings || std::ranges::find(warnings_, text) != warnings_.end()) return;
  parts_.log.warn("{}", printable(text, 1024));
  warnings_.push_back(text);
  if (warnings_.size() == kMaxWarnings) parts_.log.warn("further warnings are not told");
}

void Daemon::reconfigure(const Config& config) {
  tick_s_ = config.tick_s;
  limits_ = config.limits;
  governor_.set_limits(limits_);
  parts_.source.configure(config);
  parts_.detection.configure(detection_policy(config), detector_settings(config));
  parts_.policy.set_options(alert_policy_options(config));
  if (state_ != nullptr) state_->configure(config.limits);
  on_rules_();
  warn_about(config);
}

std::string Daemon::summary() const {
  return fmt::format("Watching {} of {} processes; {} alerts firing; {:.1f} % of a CPU, {:.0f} MB",
                     parts_.attachments.size(), parts_.source.processes(), parts_.policy.firing(),
                     100 * usage_.cpu_share(), static_cast<double>(footprint_.resident_bytes) / 1e6);
}

Status Daemon::status() const {
  Status status;
  status.version = STACKWATCH_VERSION;
  status.pid = getpid();
  status.uptime_s = static_cast<double>(parts_.clock.monotonic_ns() - started_ns_) * 1e-9;
  status.tick_s = tick_s_;
  status.ticks = ticks_;
  status.missed_ticks = missed_ticks_;
  status.last_tick_ms = last_tick_ms_;
  status.max_tick_ms = max_tick_ms_;
  status.census_method = parts_.census.method();
  status.census_ms = parts_.source.census_ms();
  status.processes = parts_.source.processes();
  status.tasks = parts_.source.tasks();
  status.suspects = parts_.source.suspects();
  status.attachments = parts_.attachments.size();
  status.surveyed = parts_.source.surveyed();
  status.watch_rules = parts_.source.rules();
  status.functions = parts_.functions.size();
  status.alerts_pending = parts_.policy.pending();
  status.alerts_firing = parts_.policy.firing();
  status.cpu_share = usage_.cpu_share();
  status.resident_bytes = footprint_.resident_bytes;
  status.worker_resident_bytes = footprint_.worker_bytes;
  status.open_fds = footprint_.open_fds;
  status.lost = parts_.attachments.total_losses();
  status.bpf_map_bytes = footprint_.map_bytes;
  status.lost[LossReason::kRecursionMissed] += footprint_.recursion_misses;
  status.limits = limits();
  status.shedding = governor_.shedding().text();
  if (state_ != nullptr) {
    const Store::Status store = state_->store().status();
    status.state = {store.path, store.storing, store.problem, store.bytes, store.dropped};
  }
  status.warnings = warnings_;
  if (const uint64_t overflowed = parts_.functions.overflowed(); overflowed > 0) {
    status.warnings.push_back(fmt::format("the table of functions is full: {} names are [other]", overflowed));
  }
  if (!status.state.problem.empty()) status.warnings.push_back("nothing is stored: " + status.state.problem);
  if (!status.shedding.empty()) status.warnings.push_back(status.shedding);
  if (!attach_problem_.empty()) status.warnings.push_back(attach_problem_);
  return status;
}

Result<std::vector<RankingRow>> Daemon::ranking(size_t limit, const std::string& by) const {
  return parts_.source.ranking(limit, by);
}

std::vector<UnusualStack> Daemon::unusual_stacks(size_t limit) const { return parts_.source.unusual_stacks(limit); }

Result<std::string> Daemon::add_watch(WatchRule rule, std::optional<uint64_t> start_time_ns) {
  ++added_rules_;
  rule.source = "added at run time";
  if (rule.id.empty()) rule.id = fmt::format("added-{}", added_rules_);
  auto checked = checked_rule(std::move(rule));
  if (!checked) {
    Error error = checked.error();
    error.what = "watch rule" + (error.what.empty() ? "" : ", " + error.what);
    return Failure(error);
  }
  for (const ProbeKind probe : checked->probes) {
    if (!parts_.attachments.has_engine(probe)) {
      return fail(ErrorKind::kUsage, "add a watch rule", fmt::format("there is no probe {}", to_string(probe)));
    }
  }
  if (auto added = parts_.source.add_rule(*checked, start_time_ns); !added) return Failure(added.error());
  on_rules_();
  parts_.log.info("watch rule {} added: {}", checked->id, printable(describe(*checked), 512));
  return checked->id;
}

Result<void> Daemon::remove_watch(const std::string& id) {
  auto removed = parts_.source.remove_rule(id);
  if (removed) parts_.log.info("watch rule {} removed", printable(id, 128));
  if (removed) on_rules_();
  return removed;
}

std::vector<WatchRow> Daemon::watches() const { return parts_.source.watches(); }

std::vector<AttachmentRow> Daemon::attachments() const {
  std::vector<AttachmentRow> rows = parts_.attachments.rows();
  for (AttachmentRow& row : rows) {
    for (const ProbeEngine* engine : parts_.engines) {
      if (row.problem.empty()) row.problem = engine->note(row.process.key);
    }
    if (row.problem.empty()) row.problem = parts_.source.note(row.process.key);
    row.overhead_percent = parts_.source.overhead_percent(row.process.key);
  }
  return rows;
}

Result<StacksReport> Daemon::stacks(int32_t pid, ProbeKind probe, double since_s, bool series) const {
  if (!parts_.source.has_process(pid)) {
    return fail(ErrorKind::kUsage, "show stacks", "there is no process " + std::to_string(pid), "see stackwatch top");
  }
  return parts_.attachments.stacks(pid, probe, since_s, series);
}

std::vector<Alert> Daemon::alerts(std::optional<uint64_t> since_ns, std::optional<AlertState> state) const {
  std::vector<Alert> all = parts_.policy.all();
  std::erase_if(all, [&](const Alert& alert) {
    return (since_ns && alert.updated_ns < *since_ns) || (state && alert.state != *state);
  });
  return all;
}

std::optional<Alert> Daemon::alert(const std::string& id) const { return parts_.policy.find(id); }

}  // namespace stackwatch
