// SPDX-License-Identifier: Apache-2.0
#include "daemon/capture_source.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace stackwatch {
namespace {

int64_t saturated_sum(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return a < 0 ? std::numeric_limits<int64_t>::min() : std::numeric_limits<int64_t>::max();
}

/// Counters of the census, which are unsigned and may be made up to overflow: wrapping around is harmless.
void add(ProcessSample& total, const ProcessSample& difference) {
  total.on_cpu_ns += difference.on_cpu_ns;
  total.run_queue_ns += difference.run_queue_ns;
  total.voluntary_switches += difference.voluntary_switches;
  total.involuntary_switches += difference.involuntary_switches;
  total.minor_faults += difference.minor_faults;
  total.major_faults += difference.major_faults;
  total.read_bytes += difference.read_bytes;
  total.write_bytes += difference.write_bytes;
  total.rss_bytes = difference.rss_bytes;
  total.threads = difference.threads;
}

/// The time of a line that belongs to a tick; nothing for those that only tell names.
std::optional<double> time_of(const CaptureRecord& record) {
  if (const auto* sample = std::get_if<CapturedSample>(&record)) return sample->t;
  if (const auto* delta = std::get_if<CapturedDelta>(&record)) return delta->t;
  if (const auto* end = std::get_if<CapturedEnd>(&record)) return end->t;
  if (const auto* tick = std::get_if<CapturedTick>(&record)) return tick->t;
  return std::nullopt;
}

}  // namespace

struct CaptureSource::Process {
  struct Probe {
    Losses lost;
    std::optional<double> last_t;
    double samples = 0;  ///< of all deltas so far, as is the exposure
    double exposure_s = 0;
  };
  ProcessIdentity identity;
  ProcessSample totals;
  // The capture's own bounds are above; a table of the daemon may have been configured larger than its default.
  std::unique_ptr<StackTable> stacks = std::make_unique<StackTable>(static_cast<uint32_t>(kMaxStacks));
  std::unordered_map<uint64_t, StackId> ids;
  size_t frames = 0;
  std::map<ProbeKind, Probe> probes;
  std::vector<size_t> value_of;  ///< by StackId: index in the delta under construction, plus one
};

struct CaptureSource::ReplayClock final : Clock {
  [[nodiscard]] uint64_t monotonic_ns() const override { return now_ns; }
  [[nodiscard]] uint64_t boottime_ns() const override { return now_ns; }
  [[nodiscard]] uint64_t realtime_ns() const override { return now_ns + static_cast<uint64_t>(offset_ns); }
  uint64_t now_ns = 0;
  int64_t offset_ns = 0;
};

CaptureSource::CaptureSource(CaptureReader reader)
    : reader_(std::move(reader)), clock_(std::make_unique<ReplayClock>()) {
  clock_->offset_ns = header().realtime_offset_ns();
  clock_->now_ns = static_cast<uint64_t>(header().origin_s) * 1'000'000'000ULL;
}

CaptureSource::~CaptureSource() = default;

const Clock& CaptureSource::clock() const { return *clock_; }

Failure CaptureSource::broken(std::string why) const {
  return Failure(reader_.problem("broken line: " + std::move(why)));
}

Result<std::optional<TickBatch>> CaptureSource::next() {
  forget_ended();
  if (pending_) {
    CaptureRecord first = std::move(*pending_);
    pending_.reset();
    if (auto taken = take(first); !taken) error_ = taken.error();
  }
  while (!error_ && !at_end_) {
    auto record = reader_.next();
    if (!record) {
      error_ = record.error();
    } else if (!record->has_value()) {
      at_end_ = true;
    } else if (begins_next_tick(**record)) {
      pending_ = std::move(**record);
      return finish_tick();
    } else if (auto taken = take(**record); !taken) {
      error_ = taken.error();
    } else if (tick_is_marked_) {
      return finish_tick();
    }
  }
  if (tick_begin_t_) return finish_tick();
  if (error_) return Failure(*error_);
  return std::optional<TickBatch>();
}

bool CaptureSource::begins_next_tick(const CaptureRecord& record) {
  const std::optional<double> t = time_of(record);
  return !header().marks_ticks && t && tick_begin_t_ && *t > *tick_begin_t_ + header().tick_s / 2;
}

Result<std::optional<TickBatch>> CaptureSource::finish_tick() {
  TickBatch batch = std::exchange(batch_, {});
  given_samples_ = std::exchange(samples_, {});
  batch.samples = given_samples_;
  batch.time_s = header().time_s(tick_end_t_);
  batch.realtime_offset_ns = header().realtime_offset_ns() + clock_ns_;
  clock_->now_ns = static_cast<uint64_t>(std::llround(std::max(0.0, batch.time_s) * 1e9));
  clock_->offset_ns = *batch.realtime_offset_ns;
  tick_begin_t_.reset();
  tick_is_marked_ = false;
  tick_lines_ = tick_values_ = 0;
  return std::optional(std::move(batch));
}

CaptureSource::Done CaptureSource::take(CaptureRecord& record) {
  if (const std::optional<double> t = time_of(record)) {
    if (++tick_lines_ > kMaxTickLines) return broken("more than " + std::to_string(kMaxTickLines) + " lines in a tick");
    if (!tick_begin_t_) tick_begin_t_ = t;
    if (*t < tick_end_t_ - kMaxLateS) {
      return broken("the time goes back from " + std::to_string(tick_end_t_) + " s to " + std::to_string(*t) +
                    " s: lines of later ticks must come later");
    }
    tick_end_t_ = std::max(tick_end_t_, *t);
  }
  return std::visit([this](auto& told) { return take(told); }, record);
}

CaptureSource::Done CaptureSource::take(const CapturedProcess& told) {
  auto found = processes_.find(told.number);
  if (found == processes_.end()) {
    if (processes_.size() == kMaxProcesses) return broken("more than " + std::to_string(kMaxProcesses) + " processes");
    found = processes_.emplace(told.number, std::make_unique<Process>()).first;
    found->second->identity.key = told.identity.key;
    numbers_[told.identity.key].push_back(told.number);
  }
  Process& process = *found->second;
  if (process.identity.key != told.identity.key) {
    return broken("process " + std::to_string(told.number) + " is another one already");
  }
  process.identity = told.identity;
  if (told.census) process.totals = *told.census;
  ProcessSample& totals = process.totals;
  totals.key = told.identity.key;
  totals.pid_in_ns = told.identity.pid_in_ns;
  totals.comm = told.identity.comm;
  totals.cgroup = told.identity.cgroup;
  return {};
}

CaptureSource::Done CaptureSource::take(CapturedObject& told) {
  if (objects_.size() >= kMaxObjects) return broken("more than " + std::to_string(kMaxObjects) + " objects");
  name_bytes_ += told.name.size();
  if (name_bytes_ > kMaxNameBytes) return broken("more than " + std::to_string(kMaxNameBytes) + " bytes of names");
  objects_[told.number] = std::move(told.name);
  return {};
}

Result<std::vector<FunctionId>> CaptureSource::functions_of(const CapturedStack& told) {
  std::vector<FunctionId> functions;
  functions.reserve(told.frames.size());
  for (size_t i = 0; i < told.frames.size(); ++i) {
    std::string_view object;
    if (i < told.objects.size() && told.objects[i] != 0) {
      const auto known = objects_.find(told.objects[i]);
      if (known == objects_.end()) return broken("object " + std::to_string(told.objects[i]) + " is not known");
      object = known->second;
    }
    const uint32_t before = functions_.size();
    functions.push_back(functions_.intern(object, told.frames[i]));
    if (functions_.size() > before) name_bytes_ += object.size() + told.frames[i].size();
  }
  if (name_bytes_ > kMaxNameBytes) return broken("more than " + std::to_string(kMaxNameBytes) + " bytes of names");
  return functions;
}

CaptureSource::Done CaptureSource::take(const CapturedStack& told) {
  if (++stacks_ > kMaxStacks) return broken("more than " + std::to_string(kMaxStacks) + " stacks");
  frames_ += told.frames.size();
  if (frames_ > kMaxFrames) return broken("more than " + std::to_string(kMaxFrames) + " frames");
  auto functions = functions_of(told);
  if (!functions) return Failure(functions.error());
  if (!told.process) {
    if (!shared_stacks_.try_emplace(told.number, std::move(*functions)).second) {
      return broken("stack " + std::to_string(told.number) + " is told twice");
    }
    return {};
  }
  auto owner = process(*told.process);
  if (!owner) return Failure(owner.error());
  const StackId id = (*owner)->stacks->intern(*functions);
  (*owner)->frames += told.frames.size();
  if (!(*owner)->ids.try_emplace(told.number, id).second) {
    return broken("stack " + std::to_string(told.number) + " is told twice");
  }
  return {};
}

CaptureSource::Done CaptureSource::take(const CapturedSample& told) {
  auto found = process(told.process);
  if (!found) return Failure(found.error());
  add((*found)->totals, told.difference);
  samples_.push_back((*found)->totals);
  return {};
}

Result<StackId> CaptureSource::stack_of(Process& process, uint64_t number) {
  if (const auto known = process.ids.find(number); known != process.ids.end()) return known->second;
  const auto shared = shared_stacks_.find(number);
  if (shared == shared_stacks_.end()) return broken("stack " + std::to_string(number) + " is not known");
  if (++stacks_ > kMaxStacks || (frames_ += shared->second.size()) > kMaxFrames) {
    return broken("too many stacks: " + std::to_string(stacks_) + " with " + std::to_string(frames_) + " frames");
  }
  const StackId id = process.stacks->intern(shared->second);
  process.frames += shared->second.size();
  process.ids.emplace(number, id);
  return id;
}

// Several stacks of the capture may be one of ours: a NamedDelta has each at most once.
CaptureSource::Done CaptureSource::add_values(Process& process, const CapturedDelta& told, NamedDelta& delta) {
  tick_values_ += told.values.size();
  if (tick_values_ > kMaxTickValues) return broken("more than " + std::to_string(kMaxTickValues) + " values in a tick");
  delta.values.reserve(told.values.size());
  Done done;
  for (const CapturedDelta::Value& value : told.values) {
    const auto stack = stack_of(process, value.stack);
    if (!stack) {
      done = Failure(stack.error());
      break;
    }
    if (process.value_of.size() <= stack->value) process.value_of.resize(process.stacks->size());
    size_t& index = process.value_of[stack->value];
    if (index == 0) {
      delta.values.push_back({*stack, value.value});
      index = delta.values.size();
    } else {
      delta.values[index - 1].value = saturated_sum(delta.values[index - 1].value, value.value);
    }
  }
  for (const NamedDelta::Value& value : delta.values) process.value_of[value.stack.value] = 0;
  return done;
}

CaptureSource::Done CaptureSource::take(const CapturedDelta& told) {
  auto found = process(told.process);
  if (!found) return Failure(found.error());
  Process& process = **found;
  NamedDelta delta;
  if (auto added = add_values(process, told, delta); !added) return added;
  Process::Probe& probe = process.probes[told.probe];
  delta.process = process.identity.key;
  delta.probe = told.probe;
  delta.time_s = header().time_s(told.t);
  delta.exposure_s = told.exposure_s;
  delta.lost = told.lost;
  delta.stacks = process.stacks.get();
  delta.functions = &functions_;
  const double since_last_s = told.t - probe.last_t.value_or(told.t - header().tick_s);
  delta.interval_s = told.interval_s.value_or(since_last_s > 0 ? since_last_s : header().tick_s);
  probe.last_t = told.t;
  probe.lost += told.lost;
  if (told.probe == ProbeKind::kOnCpu) {
    // A capture that does not tell the frequency: samples per second of CPU time, in all that was read so far.
    for (const NamedDelta::Value& value : delta.values) probe.samples += static_cast<double>(value.value);
    probe.exposure_s += told.exposure_s;
    const double known = probe.exposure_s > 0 ? std::max(0.0, probe.samples / probe.exposure_s) : 0;
    delta.frequency_hz = told.frequency_hz.value_or(known);
  }
  batch_.deltas.push_back(std::move(delta));
  return {};
}

CaptureSource::Done CaptureSource::take(const CapturedLosses& told) {
  auto found = process(told.process);
  if (!found) return Failure(found.error());
  (*found)->probes[told.probe].lost = told.total;
  return {};
}

CaptureSource::Done CaptureSource::take(const CapturedEnd& told) {
  using enum CapturedEnd::Kind;
  auto found = process(told.process);
  if (!found) return Failure(found.error());
  const ProcessKey key = (*found)->identity.key;
  auto& list = told.kind == kExit ? batch_.exits : told.kind == kDetached ? batch_.detached : batch_.replaced;
  if (std::ranges::find(list, key) == list.end()) list.push_back(key);
  if (told.kind == kReplaced) {
    (*found)->totals.exec = ExecId{(*found)->totals.exec.value + 1};
  } else {
    const std::vector<uint32_t>& numbers = numbers_.at(key);
    ended_.insert(ended_.end(), numbers.begin(), numbers.end());
  }
  return {};
}

CaptureSource::Done CaptureSource::take(const CapturedTick& told) {
  if (!header().marks_ticks) return {};
  tick_end_t_ = std::max(tick_end_t_, told.t);
  clock_ns_ = told.clock_ns.value_or(clock_ns_);
  tick_is_marked_ = true;
  return {};
}

Result<CaptureSource::Process*> CaptureSource::process(uint32_t number) {
  const auto found = processes_.find(number);
  if (found != processes_.end()) return found->second.get();
  return broken("process " + std::to_string(number) + " is not known");
}

const CaptureSource::Process* CaptureSource::latest(const ProcessKey& key) const {
  const auto numbers = numbers_.find(key);
  return numbers == numbers_.end() ? nullptr : processes_.at(numbers->second.back()).get();
}

ProcessIdentity CaptureSource::identify(const ProcessKey& process) const {
  if (const Process* known = latest(process)) return known->identity;
  ProcessIdentity unknown;
  unknown.key = process;
  unknown.pid_in_ns = process.pid;
  return unknown;
}

Losses CaptureSource::losses(const ProcessKey& process, ProbeKind probe) const {
  Losses sum;
  const auto numbers = numbers_.find(process);
  if (numbers == numbers_.end()) return sum;
  for (const uint32_t number : numbers->second) {
    const auto& probes = processes_.at(number)->probes;
    if (const auto known = probes.find(probe); known != probes.end()) sum += known->second.lost;
  }
  return sum;
}

// Names of what has ended were valid with the tick that told it.
void CaptureSource::forget_ended() {
  for (const uint32_t number : std::exchange(ended_, {})) forget(number);
}

void CaptureSource::forget(uint32_t number) {
  const auto found = processes_.find(number);
  if (found == processes_.end()) return;
  const Process& process = *found->second;
  stacks_ -= process.ids.size();
  frames_ -= process.frames;
  const auto numbers = numbers_.find(process.identity.key);
  std::erase(numbers->second, number);
  if (numbers->second.empty()) numbers_.erase(numbers);
  processes_.erase(found);
}

}  // namespace stackwatch
