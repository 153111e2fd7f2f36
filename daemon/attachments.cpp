// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <utility>

#include "daemon/attachments_impl.h"

namespace stackwatch {

namespace {

/// Stacks of a process whose places in the source are kept, at 40 frames of 4 bytes: 160 kB. Those seen first are
/// mostly the frequent ones; of the others the functions must do.
constexpr size_t kMaxPlacedStacks = 1024;

/// Stacks of addresses per stack of functions: return addresses differ within a function. Past this, stacks of
/// addresses are counted under [other].
constexpr size_t kAddressStacksPerStack = 16;
/// Stacks per process that may wait for room in the namer's queue, 4 kB each at most. One process can fill that queue
/// (4,096) once at its start; what comes on top are late names.
constexpr size_t kMaxUnasked = 256;

}  // namespace

Attachments::Attachments(Engines engines, StackNamer& namer, FunctionTable& functions, const Clock& clock,
                         AttachmentLimits limits)
    : engines_(std::move(engines)), namer_(namer), functions_(functions), clock_(clock), limits_(limits) {}

Attachments::~Attachments() = default;

Result<void> Attachments::attach(const ProcessIdentity& identity, const ProcessSample& sample,
                                 const AttachOrder& order) {
  if (std::ranges::none_of(order.probes, [this](ProbeKind kind) { return has_engine(kind); })) {
    return fail(ErrorKind::kUnsupported, "attach to process " + std::to_string(identity.pid_in_ns),
                "this version has none of the probes asked for", "use on_cpu");
  }
  if (const auto known = attachments_.find(order.process); known != attachments_.end()) {
    return change(*known->second, order);
  }
  auto attachment = std::make_unique<Attachment>(limits_.stacks_per_process);
  attachment->identity = identity;
  attachment->reason = order.reason;
  attachment->since_ns = clock_.realtime_ns();
  attachment->since_monotonic_ns = clock_.monotonic_ns();
  attachment->on_cpu_ns = sample.on_cpu_ns;
  attachment->on_cpu_known = !order.counted_before;
  attachment->exec = sample.exec;
  attachment->options = order.options;
  if (auto attached = attach_probes(*attachment, order.probes); !attached) return attached;
  if (identity.pid_in_ns > 0) namer_.learn(order.process, identity.pid_in_ns, sample.exec);
  attachments_[order.process] = std::move(attachment);
  return {};
}

// What was counted and named stays. If the kernel refuses the new options the old ones are in force again.
Result<void> Attachments::change(Attachment& attachment, const AttachOrder& order) {
  // It only waits for its last names; the process is attached anew when it is gone.
  if (attachment.read_to_the_end) return {};
  attachment.ending = false;
  attachment.reason = order.reason;
  if (attachment.options != order.options) {
    const ProbeOptions before = attachment.options;
    if (auto changed = change_options(attachment, order.options); !changed) {
      if (auto restored = change_options(attachment, before); !restored) attachment.ending = true;
      return changed;
    }
  }
  return attachment.ordered == order.probes ? Result<void>() : attach_probes(attachment, order.probes);
}

Result<void> Attachments::change_options(Attachment& attachment, const ProbeOptions& options) {
  for (AttachedProbe& probe : attachment.probes) {
    if (auto changed = probe.probe->change(options); !changed) return changed;
    probe.frequency_hz = probe.kind == ProbeKind::kOnCpu ? options.frequency_hz : 0;
  }
  attachment.options = options;
  return {};
}

// Those that are attached already go on; those that nobody wants any more go.
Result<void> Attachments::attach_probes(Attachment& attachment, const std::vector<ProbeKind>& kinds) {
  std::optional<Error> refused;
  attachment.loading.clear();
  for (const ProbeKind kind : kinds) {
    if (!has_engine(kind) ||
        std::ranges::find(attachment.probes, kind, &AttachedProbe::kind) != attachment.probes.end())
      continue;
    if (load_beside_ && !engine_of(kind)->load_beside()) {
      attachment.loading.push_back(kind);
      continue;
    }
    AttachedProbe probe;
    probe.kind = kind;
    probe.probe = engine_of(kind)->make_probe(kind);
    probe.frequency_hz = kind == ProbeKind::kOnCpu ? attachment.options.frequency_hz : 0;
    ProbeOptions options = attachment.options;
    options.pid_in_ns = attachment.identity.pid_in_ns;
    options.exec = attachment.exec;
    if (auto attached = probe.probe->attach(attachment.identity.key, options); attached) {
      attachment.probes.push_back(std::move(probe));
    } else {
      refused = attached.error();
    }
  }
  if (refused && attachment.probes.empty() && attachment.loading.empty()) return Failure(*refused);
  std::erase_if(attachment.probes,
                [&kinds](const AttachedProbe& probe) { return std::ranges::find(kinds, probe.kind) == kinds.end(); });
  attachment.problem = refused ? refused->message() : "";
  attachment.ordered = kinds;
  return {};
}

void Attachments::attach_loaded() {
  for (auto& [key, attachment] : attachments_) {
    const auto is_loaded = [this](ProbeKind kind) { return engine_of(kind)->load_beside(); };
    if (attachment->ending || std::ranges::none_of(attachment->loading, is_loaded)) continue;
    const std::vector<ProbeKind> ordered = attachment->ordered;
    if (auto attached = attach_probes(*attachment, ordered); !attached) {
      attachment->problem = attached.error().message();
    }
  }
}

ProbeEngine* Attachments::engine_of(ProbeKind kind) const {
  for (ProbeEngine* engine : engines_) {
    if (std::ranges::find(engine->kinds(), kind) != engine->kinds().end()) return engine;
  }
  return nullptr;
}

std::string Attachments::problem() const {
  for (const auto& [key, attachment] : attachments_) {
    if (!attachment->problem.empty()) return attachment->problem;
  }
  return "";
}

void Attachments::end(const ProcessKey& process, bool exited) {
  const auto found = attachments_.find(process);
  if (found == attachments_.end()) return;
  found->second->ending = true;
  found->second->exited = exited;
}

bool Attachments::full() const {
  if (attachments_.size() < limits_.attachments) return false;
  const auto taken = std::ranges::count_if(attachments_, [](const auto& entry) { return entry.second->takes_place(); });
  return static_cast<size_t>(taken) >= limits_.attachments || attachments_.size() >= 2 * limits_.attachments;
}

bool Attachments::takes_place(const ProcessKey& process) const {
  const auto found = attachments_.find(process);
  return found != attachments_.end() && found->second->takes_place();
}

void Attachments::replace_program(const ProcessIdentity& identity, ExecId exec) {
  const auto found = attachments_.find(identity.key);
  if (found == attachments_.end()) return;
  found->second->identity = identity;
  found->second->exec = exec;
  namer_.learn(identity.key, identity.pid_in_ns, exec);
}

void Attachments::set_exe(const ProcessKey& process, std::string exe) {
  const auto found = attachments_.find(process);
  if (found != attachments_.end()) found->second->identity.exe = std::move(exe);
}

std::optional<ExecId> Attachments::exec(const ProcessKey& process) const {
  const auto found = attachments_.find(process);
  return found == attachments_.end() ? std::nullopt : std::optional(found->second->exec);
}

bool Attachments::contains(const ProcessKey& process) const { return attachments_.contains(process); }

const Attachments::Attachment* Attachments::find(const ProcessKey& process) const {
  if (const auto found = attachments_.find(process); found != attachments_.end()) return found->second.get();
  const auto ended =
      std::ranges::find(ended_, process, [](const auto& attachment) { return attachment->identity.key; });
  return ended == ended_.end() ? nullptr : ended->get();
}

const AttachReason* Attachments::reason(const ProcessKey& process) const {
  const Attachment* attachment = find(process);
  return attachment == nullptr ? nullptr : &attachment->reason;
}

const ProbeOptions* Attachments::options(const ProcessKey& process) const {
  const Attachment* attachment = find(process);
  return attachment == nullptr ? nullptr : &attachment->options;
}

std::vector<ProbeKind> Attachments::probes(const ProcessKey& process) const {
  const Attachment* attachment = find(process);
  return attachment == nullptr ? std::vector<ProbeKind>{} : attachment->ordered;
}

const ProcessIdentity* Attachments::identity(const ProcessKey& process) const {
  const Attachment* attachment = find(process);
  return attachment == nullptr ? nullptr : &attachment->identity;
}

Result<void> Attachments::collect(bool late) {
  attach_loaded();
  for (ProbeEngine* engine : engines_) {
    if (auto collected = engine->collect(); !collected) return collected;
  }
  for (const auto& [key, attachment] : attachments_) {
    if (attachment->read_to_the_end) continue;
    for (AttachedProbe& probe : attachment->probes) read_probe(*attachment, probe, late);
    if (attachment->ending) {
      attachment->read_to_the_end = true;
      for (AttachedProbe& probe : attachment->probes) probe.probe->detach();
    }
  }
  return {};
}

// A stack that the namer has no room for is asked for again at the next tick.
void Attachments::ask(Attachment& attachment, StackDelta::NewStack&& stack) {
  if (stack.hash == kBeforeAttaching) {
    const FunctionId name = functions_.intern("", "[before attaching]");
    attachment.named[stack.hash] = attachment.stacks.intern(std::vector{name});
    return;
  }
  const bool is_known = attachment.named.contains(stack.hash) && !attachment.late.contains(stack.hash);
  if (is_known || is_full(attachment)) return;
  const ProcessIdentity& identity = attachment.identity;
  if (namer_.request(identity.key, identity.pid_in_ns, stack.hash, stack.stack)) return;
  if (attachment.unasked.size() < kMaxUnasked) attachment.unasked.push_back(std::move(stack));
}

bool Attachments::is_full(const Attachment& attachment) const {
  return attachment.named.size() >= limits_.stacks_per_process * kAddressStacksPerStack;
}

void Attachments::read_probe(Attachment& attachment, AttachedProbe& probe, bool late) {
  auto read = probe.probe->read();
  if (!read) return;  // detached by the kernel side meanwhile; there is nothing more to come
  StackDelta delta = std::move(*read);
  if (late) ++delta.lost[LossReason::kMissedTick];
  for (StackDelta::NewStack& stack : delta.new_stacks) ask(attachment, std::move(stack));
  delta.new_stacks.clear();
  // Until the census of this tick tells: what the samples themselves say. That stays so for a process that has ended.
  double exposure_s = static_cast<double>(delta.interval_ns) * 1e-9;
  if (probe.kind == ProbeKind::kOnCpu) {
    int64_t samples = 0;
    for (const auto& value : delta.values) samples += value.value;
    exposure_s = static_cast<double>(samples) / std::max(probe.frequency_hz, 1e-3);
  }
  probe.waiting.push_back({std::move(delta), exposure_s});
  probe.fresh = true;
}

void Attachments::set_on_cpu(const ProcessSample& sample) {
  const auto found = attachments_.find(sample.key);
  if (found == attachments_.end()) return;
  Attachment& attachment = *found->second;
  const uint64_t used_ns = sample.on_cpu_ns - std::min(sample.on_cpu_ns, attachment.on_cpu_ns);
  attachment.on_cpu_ns = sample.on_cpu_ns;
  for (AttachedProbe& probe : attachment.probes) {
    if (probe.fresh && !probe.waiting.empty() && probe.kind == ProbeKind::kOnCpu && attachment.on_cpu_known) {
      probe.waiting.back().exposure_s = static_cast<double>(used_ns) * 1e-9;
    }
    probe.fresh = false;
  }
  attachment.on_cpu_known = true;
}

void Attachments::take_names() {
  for (const auto& [key, attachment] : attachments_) {
    for (StackDelta::NewStack& stack : std::exchange(attachment->unasked, {})) ask(*attachment, std::move(stack));
  }
  namer_.dispatch();
  for (NamedStack& stack : namer_.take_named()) {
    const auto found = attachments_.find(stack.process);
    if (found == attachments_.end()) continue;
    Attachment& attachment = *found->second;
    const StackId id = attachment.stacks.intern(stack.frames);
    attachment.named[stack.hash] = id;
    if (!stack.places.empty() && id != StackTable::kOther && attachment.places.size() < kMaxPlacedStacks) {
      attachment.places.try_emplace(id, std::move(stack.places));
    }
    attachment.late.erase(stack.hash);
  }
}

bool Attachments::is_named(const Attachment& attachment, const StackDelta& delta) const {
  return is_full(attachment) || std::ranges::all_of(delta.values, [&](const StackDelta::Value& value) {
           return attachment.named.contains(value.stack);
         });
}

NamedDelta Attachments::name(Attachment& attachment, AttachedProbe& probe, const StackDelta& delta) {
  NamedDelta named;
  named.process = delta.process;
  named.probe = delta.probe;
  named.time_s = static_cast<double>(delta.time_ns) * 1e-9;
  named.interval_s = static_cast<double>(delta.interval_ns) * 1e-9;
  named.frequency_hz = probe.frequency_hz;
  named.lost = delta.lost;
  named.stacks = &attachment.stacks;
  named.functions = &functions_;
  for (const StackDelta::Value& value : delta.values) {
    const auto amount = static_cast<uint64_t>(std::abs(value.value));
    // Nobody waits twice for a name that did not come in time; it may still come.
    if (!attachment.named.contains(value.stack) && !is_full(attachment)) {
      attachment.named[value.stack] = attachment.stacks.intern(std::vector{FunctionTable::kUnnamed});
      attachment.late.insert(value.stack);
    }
    if (attachment.late.contains(value.stack)) named.lost[LossReason::kNamesLate] += amount;
    const auto found = attachment.named.find(value.stack);
    const StackId stack = found == attachment.named.end() ? StackTable::kOther : found->second;
    if (stack == StackTable::kOther) named.lost[LossReason::kStacksFull] += amount;
    named.values.push_back({stack, value.value});
  }
  // Several stacks of addresses are one stack of functions.
  std::ranges::sort(named.values, {}, &NamedDelta::Value::stack);
  size_t kept = 0;
  for (size_t i = 0; i < named.values.size(); ++i) {
    if (kept > 0 && named.values[kept - 1].stack == named.values[i].stack) {
      named.values[kept - 1].value += named.values[i].value;
    } else {
      named.values[kept++] = named.values[i];
    }
  }
  named.values.resize(kept);
  return named;
}

void Attachments::account(AttachedProbe& probe, const Losses& lost) {
  probe.lost += lost;
  total_losses_ += lost;
}

Attachments::Ready Attachments::take() {
  ended_.clear();
  take_names();
  const auto deadline_ns = static_cast<uint64_t>(kNamesDeadlineS * 1e9);
  const uint64_t now_ns = clock_.monotonic_ns();
  Ready ready;
  for (auto it = attachments_.begin(); it != attachments_.end();) {
    Attachment& attachment = *it->second;
    bool all_taken = true;
    for (AttachedProbe& probe : attachment.probes) {
      while (!probe.waiting.empty()) {
        const AttachedProbe::Waiting& next = probe.waiting.front();
        if (!is_named(attachment, next.delta) && now_ns < next.delta.time_ns + deadline_ns) break;
        NamedDelta named = name(attachment, probe, next.delta);
        named.exposure_s = next.exposure_s;
        account(probe, named.lost);
        remember(probe, named);
        ready.deltas.push_back(std::move(named));
        probe.waiting.pop_front();
      }
      all_taken = all_taken && probe.waiting.empty();
    }
    if (attachment.read_to_the_end && all_taken) {
      (attachment.exited ? ready.exits : ready.detached).push_back(it->first);
      namer_.forget(it->first);  // now: a later attachment of the same process has its own names
      ended_.push_back(std::move(it->second));
      it = attachments_.erase(it);
    } else {
      ++it;
    }
  }
  return ready;
}

std::optional<uint64_t> Attachments::oldest_waiting_ns() const {
  std::optional<uint64_t> oldest;
  for (const auto& [key, attachment] : attachments_) {
    for (const AttachedProbe& probe : attachment->probes) {
      if (probe.waiting.empty()) continue;
      const uint64_t time_ns = probe.waiting.front().delta.time_ns;
      if (!oldest || time_ns < *oldest) oldest = time_ns;
    }
  }
  return oldest;
}

std::vector<ProbeEngine::Adopted> Attachments::take_adopted() {
  std::vector<ProbeEngine::Adopted> all;
  for (ProbeEngine* engine : engines_) {
    for (const ProbeEngine::Adopted& adopted : engine->take_adopted()) all.push_back(adopted);
  }
  std::ranges::sort(all, {}, [](const ProbeEngine::Adopted& child) {
    return std::pair(child.process.start_time_ns, child.process.pid);
  });
  return all;
}

void Attachments::refuse(const ProcessKey& adopted) {
  ++total_losses_[LossReason::kWatchFull];
  for (ProbeEngine* engine : engines_) engine->forget(adopted);
}

std::vector<ProcessKey> Attachments::processes() const {
  std::vector<ProcessKey> keys;
  keys.reserve(attachments_.size());
  for (const auto& [key, attachment] : attachments_) keys.push_back(key);
  std::ranges::sort(keys);
  return keys;
}

}  // namespace stackwatch
