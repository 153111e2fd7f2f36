// SPDX-License-Identifier: Apache-2.0
#include "cli/count_session.h"

#include <algorithm>

#include "daemon/process_identity.h"

namespace stackwatch {

CountSession::CountSession(Parts parts, const Clock& clock, std::vector<ProbeKind> probes, ProbeOptions options)
    : parts_(std::move(parts)), clock_(clock), probes_(std::move(probes)), options_(options) {}

Result<void> CountSession::attach(std::span<const int32_t> pids_in_ns) {
  auto census = parts_.census.take();
  if (!census) return Failure(census.error());
  for (const int32_t pid : pids_in_ns) {
    const std::string what = "process " + std::to_string(pid);
    const auto sample = std::ranges::find(*census, pid, &ProcessSample::pid_in_ns);
    if (sample == census->end()) return fail(what, "it is not in the census", "it may have ended just now");
    if (sample->kernel_thread) return fail(what, "it is a thread of the kernel");
    if (auto attached = attach_one(*sample, AttachReason::Kind::kRule, false); !attached) return attached;
  }
  ledger_.begin(now_s(), clock_.realtime_ns());
  return {};
}

Result<void> CountSession::attach_one(const ProcessSample& sample, AttachReason::Kind kind, bool counted_before) {
  const ProcessIdentity identity = identity_of(sample, parts_.procfs);
  AttachOrder order{sample.key, probes_, options_, {kind, "", ""}, counted_before};
  if (auto attached = parts_.attachments.attach(identity, sample, order); !attached) return attached;
  ledger_.enter(identity, probes_, options_.frequency_hz);
  return {};
}

Result<void> CountSession::look_around() {
  auto census = parts_.census.take();
  if (!census) return Failure(census.error());
  std::unordered_map<ProcessKey, const ProcessSample*> alive;
  std::unordered_map<int32_t, ProcessKey> by_pid;
  for (const ProcessSample& sample : *census) {
    alive[sample.key] = &sample;
    by_pid[sample.key.pid] = sample.key;
  }
  for (const ProcessKey& process : parts_.attachments.processes()) {
    const auto found = alive.find(process);
    if (found == alive.end()) {
      parts_.attachments.end(process, true);
      ledger_.leave(process);
    } else if (parts_.attachments.exec(process) != found->second->exec) {
      const ProcessIdentity identity = identity_of(*found->second, parts_.procfs);
      parts_.attachments.replace_program(identity, found->second->exec);
      ledger_.rename(identity);
    }
  }
  std::erase_if(refused_, [&alive](const ProcessKey& process) { return !alive.contains(process); });
  if (!options_.children) return {};
  // Oldest first, so that a parent found now brings its own children in at once.
  std::ranges::sort(*census, {},
                    [](const ProcessSample& sample) { return std::pair(sample.key.start_time_ns, sample.key.pid); });
  for (const ProcessSample& sample : *census) {
    const auto parent = by_pid.find(sample.parent_pid);
    if (parent == by_pid.end() || parts_.attachments.contains(sample.key)) continue;
    if (parts_.attachments.contains(parent->second)) attach_child(sample, false);
  }
  return {};
}

void CountSession::attach_child(const ProcessSample& sample, bool counted_before) {
  if (refused_.contains(sample.key)) return;
  if (!parts_.attachments.full() && attach_one(sample, AttachReason::Kind::kChild, counted_before)) return;
  refused_.insert(sample.key);
  for (const ProbeKind kind : probes_) ledger_.add_lost(kind, LossReason::kWatchFull, 1);
}

Result<void> CountSession::collect() {
  if (auto collected = parts_.attachments.collect(false); !collected) return collected;
  if (options_.children) attach_adopted();
  return {};
}

// Those that hit a sample since the last collect.
void CountSession::attach_adopted() {
  const std::vector<ProbeEngine::Adopted> adopted = parts_.attachments.take_adopted();
  const std::vector<ProcessSample> living = living_children(adopted);
  for (const ProbeEngine::Adopted& child : adopted) {
    const auto seen = std::ranges::find(living, child.process, &ProcessSample::key);
    if (!parts_.attachments.contains(child.process)) {
      attach_child(seen != living.end() ? *seen : adopted_sample(child), true);
    }
    if (!parts_.attachments.contains(child.process)) parts_.attachments.refuse(child.process);
  }
}

// In a container only a census tells the pids that our own /proc has. The kernel side knows others.
std::vector<ProcessSample> CountSession::living_children(const std::vector<ProbeEngine::Adopted>& adopted) {
  const bool in_container = std::ranges::any_of(adopted, [this](const ProbeEngine::Adopted& child) {
    const ProcessIdentity* parent = parts_.attachments.identity(child.parent);
    return parent != nullptr && parent->pid_in_ns != child.parent.pid;
  });
  if (!in_container) return {};
  auto census = parts_.census.take();
  return census ? std::move(*census) : std::vector<ProcessSample>();
}

// The last census was before its time. Until the next one it is what /proc says, or what its parent was where it has
// ended already: then its pid in our namespace is not known where that is not the initial one.
ProcessSample CountSession::adopted_sample(const ProbeEngine::Adopted& child) const {
  ProcessSample sample;
  sample.key = child.process;
  const ProcessIdentity* parent = parts_.attachments.identity(child.parent);
  if (parent == nullptr) return sample;
  sample.comm = parent->comm;
  sample.cgroup = parent->cgroup;
  if (parent->pid_in_ns != child.parent.pid) return sample;
  sample.pid_in_ns = child.process.pid;
  if (auto comm = parts_.procfs.read(sample.pid_in_ns, "comm"); comm && !comm->empty()) {
    comm->pop_back();  // the line's end
    sample.comm = std::move(*comm);
  }
  return sample;
}

void CountSession::take() {
  Attachments::Ready ready = parts_.attachments.take();
  for (const NamedDelta& delta : ready.deltas) ledger_.add(delta);
}

Result<void> CountSession::cut() {
  if (auto collected = collect(); !collected) return collected;
  take();  // names that are known already
  ledger_.cut(now_s(), clock_.realtime_ns());
  return {};
}

Result<void> CountSession::finish() {
  // Twice: what children are found by the first is read by the second.
  auto collected = collect();
  const double end_s = now_s();  // detaching takes its time, and what is still counted meanwhile belongs to the end
  for (const ProcessKey& process : parts_.attachments.processes()) parts_.attachments.end(process, false);
  auto last = parts_.attachments.collect(false);
  take();
  ledger_.close(end_s, clock_.realtime_ns(), now_s());
  if (!collected) return collected;
  return last;
}

std::optional<CountReport> CountSession::take_report() {
  const auto waiting = parts_.attachments.oldest_waiting_ns();
  return ledger_.take_complete(waiting ? static_cast<double>(*waiting) * 1e-9
                                       : std::numeric_limits<double>::infinity());
}

}  // namespace stackwatch
