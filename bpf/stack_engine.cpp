// SPDX-License-Identifier: Apache-2.0
#include "bpf/stack_engine.h"

#include <bpf/bpf.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <utility>

namespace stackwatch {
namespace {

uint32_t milli_hertz(double frequency_hz) {
  return static_cast<uint32_t>(std::lround(std::max(frequency_hz, 0.001) * static_cast<double>(abi::kMilliHertz)));
}

/// Stacks idle for this many collects may be dropped from the kernel's map when it runs full; the need halves it until
/// something is found.
constexpr uint64_t kIdleCollects = 600;

}  // namespace

uint32_t start_ticks_of(const ProcessKey& key) { return static_cast<uint32_t>(key.start_time_ns / abi::kStartTickNs); }

// The kernel's own limit may be lower than ours: a stack of that many frames is cut as well.
uint32_t max_half_stack() {
  std::ifstream file("/proc/sys/kernel/perf_event_max_stack");
  uint32_t frames = 0;
  constexpr uint32_t kMost = abi::kMaxHalfStack;
  return file >> frames && frames > 0 ? std::min(frames, kMost) : kMost;
}

class StackEngine::StackProbe final : public Probe {
 public:
  StackProbe(StackEngine& engine, ProbeKind kind) : engine_(engine), kind_(kind) {}
  ~StackProbe() override { StackProbe::detach(); }
  StackProbe(const StackProbe&) = delete;
  StackProbe& operator=(const StackProbe&) = delete;

  [[nodiscard]] ProbeKind kind() const override { return kind_; }

  Result<void> attach(const ProcessKey& process, const ProbeOptions& options) override {
    if (attached_) return fail("attach a probe", "it is attached to a process already");
    if (auto done = engine_.attach(process, kind_, options); !done) return done;
    process_ = process;
    attached_ = true;
    return {};
  }

  Result<void> change(const ProbeOptions& options) override {
    if (!attached_) return fail("change a probe", "it is not attached");
    return engine_.change(process_, options);
  }

  Result<StackDelta> read() override {
    if (!attached_) return fail("read a probe", "it is not attached");
    return engine_.read(process_, kind_);
  }

  void detach() override {
    if (attached_) engine_.detach(process_, kind_);
    attached_ = false;
  }

 private:
  StackEngine& engine_;
  ProbeKind kind_;
  ProcessKey process_;
  bool attached_ = false;
};

StackEngine::StackEngine(const Clock& clock, UniqueFd epoll, std::vector<ProbeKind> kinds, bool grows)
    : clock_(clock), epoll_(std::move(epoll)), kinds_(std::move(kinds)), grows_(grows) {}

StackEngine::~StackEngine() {
  if (!unwind_) return;
  for (const auto& [tgid, target] : targets_) {
    if (target.unwound) unwind_->release(target.key);
  }
}

std::unique_ptr<Probe> StackEngine::make_probe(ProbeKind kind) { return std::make_unique<StackProbe>(*this, kind); }

size_t StackEngine::index_of(ProbeKind kind) const {
  return static_cast<size_t>(std::ranges::find(kinds_, kind) - kinds_.begin());
}

void StackEngine::drain() {
  if (eventfd_t ends = 0; load_event_) static_cast<void>(::eventfd_read(load_event_.get(), &ends));
  if (ring_) ring_buffer__consume(ring_.get());
}

StackEngine::Target* StackEngine::find(const abi::process_id& id) {
  const auto found = targets_.find(id.tgid);
  if (found == targets_.end() || start_ticks_of(found->second.key) != id.start_ticks) return nullptr;
  return &found->second;
}

// The kernel side knows a start time in ticks and only to 32 bits; the upper ones are those of "now".
ProcessKey StackEngine::key_of(const abi::process_id& id) const {
  const uint64_t ticks_now = clock_.boottime_ns() / abi::kStartTickNs;
  uint64_t ticks = (ticks_now & ~0xffffffffULL) | id.start_ticks;
  if (ticks > ticks_now) ticks -= 1ULL << 32U;
  return {static_cast<int32_t>(id.tgid), ticks * abi::kStartTickNs};
}

// Whether a process is attached; one that the kernel side adopted a moment ago becomes known here.
bool StackEngine::take_in(const abi::process_id& id) {
  if (find(id) != nullptr) return true;
  abi::watched_process entry{};
  if (bpf_map_lookup_elem(watched_.fd(), &id.tgid, &entry) != 0 || entry.start_ticks != id.start_ticks) return false;
  entry.counted = 1;
  collect_process(id.tgid, entry);
  return find(id) != nullptr;
}

Result<void> StackEngine::attach(const ProcessKey& process, ProbeKind kind, const ProbeOptions& options) {
  if (auto loaded = ensure_loaded(); !loaded) return loaded;
  bool known = false;
  auto target = enter(process, options, known);
  if (!target) return Failure(target.error());
  Target::Kind& mine = (*target)->kinds[index_of(kind)];
  mine.attached = true;
  if (mine.begun_ns == 0) mine.begun_ns = (*target)->counters.since_ns;
  auto begun = watch_forks();
  if (begun) begun = fit();
  if (begun && !known) begun = begin(**target);
  if (!begun) detach(process, kind);
  return begun;
}

Result<void> StackEngine::change(const ProcessKey& process, const ProbeOptions& options) {
  if (find({static_cast<uint32_t>(process.pid), start_ticks_of(process)}) == nullptr) {
    return fail("change a probe", "its process is not attached");
  }
  bool known = false;
  if (auto target = enter(process, options, known); !target) return Failure(target.error());
  if (auto forks = watch_forks(); !forks) return forks;
  return fit();
}

Result<StackEngine::Target*> StackEngine::enter(const ProcessKey& process, const ProbeOptions& options, bool& known) {
  const auto tgid = static_cast<uint32_t>(process.pid);
  const abi::process_id id{tgid, start_ticks_of(process)};
  abi::watched_process entry{};
  entry.start_ticks = id.start_ticks;
  if (options.children) entry.flags |= abi::kWatchChildren;
  if (options.mappings) entry.flags |= abi::kWatchMappings;
  entry.rate_mhz = milli_hertz(options.frequency_hz);
  entry.since_ns = clock_.monotonic_ns();
  // A child may be in the kernel's map already, counted or not.
  known = find(id) != nullptr || take_in(id);
  if (known) {
    Target* target = find(id);
    entry.space = target->counters.space;
    entry.space_generation = target->counters.space_generation;
    if (!std::exchange(target->unwound, true)) place_in_unwind_maps(process, options, entry);
    if (auto taken = take_over(*target, entry); !taken) return Failure(taken.error());
    return target;
  }
  if (const auto earlier = targets_.find(tgid); earlier != targets_.end()) forget(earlier->second.key);
  place_in_unwind_maps(process, options, entry);
  if (bpf_map_update_elem(watched_.fd(), &tgid, &entry, BPF_ANY) != 0) {
    const int error = errno;
    if (unwind_) unwind_->release(process);
    return fail("attach to process " + std::to_string(process.pid),
                error == E2BIG ? "the kernel's map of attached processes is full" : strerrordesc_np(error));
  }
  Target& target = targets_[tgid];
  target.unwound = true;
  target.key = process;
  target.counters = entry;
  return &target;
}

void StackEngine::place_in_unwind_maps(const ProcessKey& process, const ProbeOptions& options,
                                       abi::watched_process& entry) {
  if (!unwind_) return;
  const auto place = unwind_->use(process, options.pid_in_ns > 0 ? options.pid_in_ns : process.pid, options.exec);
  entry.space = place.space;
  entry.space_generation = place.generation;
}

// The process is counted already. Where it is to be counted otherwise its entry is written anew, with its counters;
// what the kernel side adds to them in between is lost to them, not to the values of its stacks.
Result<void> StackEngine::take_over(Target& target, const abi::watched_process& wanted) {
  const auto tgid = static_cast<uint32_t>(target.key.pid);
  abi::watched_process entry{};
  if (bpf_map_lookup_elem(watched_.fd(), &tgid, &entry) != 0) return fail("attach to an adopted process", "it is gone");
  const bool same_space = entry.space == wanted.space && entry.space_generation == wanted.space_generation;
  const bool same_flags = (entry.flags & ~uint32_t{abi::kWatchAdopted}) == wanted.flags;
  if (same_space && same_flags && entry.rate_mhz == wanted.rate_mhz) return {};
  entry.rate_mhz = wanted.rate_mhz;
  entry.space = target.counters.space = wanted.space;
  entry.space_generation = target.counters.space_generation = wanted.space_generation;
  entry.flags = wanted.flags | (entry.flags & abi::kWatchAdopted);
  bpf_map_update_elem(watched_.fd(), &tgid, &entry, BPF_EXIST);
  target.counters.rate_mhz = entry.rate_mhz;
  target.counters.flags = entry.flags;
  return {};
}

// While anybody is attached with children, forks and exits of the whole machine run a program of some 100 ns.
Result<void> StackEngine::watch_forks() {
  const bool wanted = std::ranges::any_of(
      targets_, [](const auto& target) { return (target.second.counters.flags & abi::kWatchChildren) != 0; });
  if (wanted == !fork_links_.empty()) return {};
  fork_links_.clear();
  if (!wanted) return {};
  const LibbpfMessages messages;
  for (bpf_program* program : {program_.on_fork, program_.on_exit}) {
    BpfLink link(bpf_program__attach(program));
    if (!link) {
      const int error = errno;
      fork_links_.clear();
      return fail_bpf("follow the children of a process", error, messages);
    }
    fork_links_.push_back(std::move(link));
  }
  return {};
}

void StackEngine::detach(const ProcessKey& process, ProbeKind kind) {
  Target* target = find({static_cast<uint32_t>(process.pid), start_ticks_of(process)});
  if (target == nullptr || target->key != process) return;
  target->kinds[index_of(kind)] = {};
  if (std::ranges::none_of(target->kinds, &Target::Kind::attached)) forget(process);
}

void StackEngine::forget(const ProcessKey& process) {
  const auto tgid = static_cast<uint32_t>(process.pid);
  const auto found = targets_.find(tgid);
  if (found == targets_.end() || found->second.key != process) return;
  bpf_map_delete_elem(watched_.fd(), &tgid);
  for (const auto& [hash, stack] : found->second.stacks) {
    const abi::stack_key key{{tgid, start_ticks_of(process)}, hash};
    bpf_map_delete_elem(counts_.fd(), &key);
  }
  if (unwind_ && found->second.unwound) unwind_->release(process);
  targets_.erase(found);
  end(process);
  // Whether the others need as many events is looked at once per collect, not once per process that ends.
  if (!targets_.empty()) return;
  fork_links_.clear();
  static_cast<void>(fit());
}

int StackEngine::take_frames(void* engine, void* data, size_t size) {
  abi::stack_frames header;
  if (size < sizeof(header)) return 0;
  std::memcpy(&header, data, sizeof(header));
  const size_t frames = size_t{header.user} + header.kernel;
  if (frames > 2 * abi::kMaxHalfStack || size < sizeof(header) + frames * sizeof(uint64_t)) return 0;
  static_cast<StackEngine*>(engine)->add_frames(
      header, reinterpret_cast<const uint64_t*>(static_cast<const char*>(data) + sizeof(header)));
  return 0;
}

void StackEngine::add_frames(const abi::stack_frames& header, const uint64_t* frames) {
  if (!take_in(header.key.process)) return;  // detached meanwhile
  StackDelta::NewStack& stack = find(header.key.process)->new_stacks.emplace_back();
  stack.hash = StackHash{header.key.hash};
  stack.stack.exec = ExecId{header.exec_id};
  stack.stack.user_frames.assign(frames, frames + header.user);
  stack.stack.kernel_frames.assign(frames + header.user, frames + header.user + header.kernel);
}

Result<void> StackEngine::collect() {
  if (targets_.empty()) return {};
  ++collects_;
  if (auto forks = watch_forks(); !forks) return forks;
  if (auto fitted = fit(); !fitted) return fitted;
  if (auto read = collect_processes(); !read) return read;
  if (auto read = collect_counts(); !read) return read;
  if (auto read = collect_open(); !read) return read;
  tell_changes();
  tell_misses();
  collected_ns_ = clock_.monotonic_ns();
  // Frames are told right after their stack's first count, so they are in the ring by now, if there was room.
  drain();
  return {};
}

Result<void> StackEngine::collect_processes() {
  return watched_.for_each([this](uint32_t tgid, const abi::watched_process& now) { collect_process(tgid, now); });
}

void StackEngine::collect_process(uint32_t tgid, const abi::watched_process& now) {
  auto found = targets_.find(tgid);
  if (found != targets_.end() && start_ticks_of(found->second.key) != now.start_ticks) return;
  if (found == targets_.end()) {
    if ((now.flags & abi::kWatchAdopted) == 0 || now.counted == 0) return;
    found = targets_.emplace(tgid, Target{}).first;
    found->second.key = key_of({tgid, now.start_ticks});
    found->second.counters.start_ticks = now.start_ticks;
    found->second.counters.flags = now.flags;
    found->second.counters.rate_mhz = now.rate_mhz;
    found->second.counters.since_ns = now.since_ns;
    adopted_.push_back({found->second.key, key_of(now.parent)});
  }
  Target& target = found->second;
  target.lost[LossReason::kMapFull] += now.lost_map_full - target.counters.lost_map_full;
  target.lost[LossReason::kFramesLate] += now.frames_late - target.counters.frames_late;
  target.lost[LossReason::kTruncated] += now.truncated - target.counters.truncated;
  target.lost[LossReason::kUnwindFailed] += now.unwind_failed - target.counters.unwind_failed;
  target.lost[LossReason::kUnwindIncomplete] += now.unwind_incomplete - target.counters.unwind_incomplete;
  if (unwind_) unwind_->seen(target.key, now.exec_id, now.unwind_misses != target.counters.unwind_misses);
  target.lost[LossReason::kWatchFull] += now.watch_full - target.counters.watch_full;
  target.counters = now;
}

void StackEngine::touch(Target& target, uint64_t hash, Stack& stack) {
  if (std::exchange(stack.touched, true)) return;
  touched_.push_back({&target, hash, &stack});
}

// The kernel's values are totals; what was counted in a tick is the difference to what was told so far.
Result<void> StackEngine::collect_counts() {
  size_t entries = 0;
  std::vector<std::pair<abi::stack_key, abi::stack_count>> orphans;
  auto take = [this](const abi::stack_key& key, const abi::stack_count& now) {
    Target* target = find(key.process);
    if (target == nullptr) return false;
    Stack& stack = target->stacks[key.hash];
    for (size_t kind = 0; kind < kinds_.size(); ++kind) {
      const auto value = static_cast<int64_t>(now.values[kind]);
      if (std::exchange(stack.now[kind], value) != value) touch(*target, key.hash, stack);
    }
    return true;
  };
  auto read = counts_.for_each([&](const abi::stack_key& key, const abi::stack_count& now) {
    ++entries;
    if (!take(key, now)) orphans.emplace_back(key, now);
  });
  if (!read) return read;
  // Of a child that was adopted a moment ago, or counted on another CPU while its process was being detached.
  for (const auto& [key, now] : orphans) {
    if (!take_in(key.process) || !take(key, now)) bpf_map_delete_elem(counts_.fd(), &key);
  }
  if (entries > max_stacks_ / 4 * 3) make_room(entries);
  return {};
}

void StackEngine::add_open(const abi::stack_key& key, size_t kind, int64_t value) {
  Target* target = find(key.process);
  if (target == nullptr) return;
  Stack& stack = target->stacks[key.hash];
  stack.open[kind] += value;
  touch(*target, key.hash, stack);
}

void StackEngine::add_lost(const abi::process_id& id, LossReason reason, uint64_t count) {
  if (Target* target = find(id)) target->lost[reason] += count;
}

// Something that ended between the reading of the counts and of what is open is in neither: the value then stands still
// until the next collect.
void StackEngine::tell_changes() {
  for (const Touched& touched : touched_) {
    Stack& stack = *touched.stack;
    for (size_t kind = 0; kind < kinds_.size(); ++kind) {
      const int64_t value = stack.now[kind] + std::exchange(stack.open[kind], 0);
      const int64_t change = value - stack.told[kind];
      if (change == 0 || (grows_ && change < 0)) continue;
      stack.told[kind] = value;
      touched.target->kinds[kind].values.push_back({StackHash{touched.hash}, change});
    }
    stack.changed = collects_;
    stack.touched = false;
  }
  touched_.clear();
}

// The kernel counts what it left out per program, not per process: whose it was is known where there is but one. Else
// it is the engine's.
void StackEngine::tell_misses() {
  uint64_t misses = 0;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, program_.object) {
    misses += program_statistics(bpf_program__fd(program)).recursion_misses;
  }
  const uint64_t fresh = misses - std::exchange(misses_, misses);
  if (fresh == 0 || targets_.size() != 1) return;
  targets_.begin()->second.lost[LossReason::kRecursionMissed] += fresh;
  told_misses_ += fresh;
}

// Drops the stacks that were idle longest until a quarter of the map is free. What a dropped entry was counted since
// the read just done (microseconds ago, after minutes of silence) is the only thing that could be lost. A signed value
// must not be forgotten: what was added is taken away some day.
void StackEngine::make_room(size_t entries) {
  const size_t wanted = entries - max_stacks_ / 4 * 3;
  size_t dropped = 0;
  for (uint64_t idle = kIdleCollects; idle >= 1 && dropped < wanted; idle /= 2) {
    for (auto& entry_of_target : targets_) {
      Target& target = entry_of_target.second;
      std::erase_if(target.stacks, [&, id = entry_of_target.first](const auto& entry) {
        const Stack& stack = entry.second;
        if (dropped >= wanted || stack.touched || stack.changed + idle > collects_) return false;
        if (!grows_ && (stack.now != decltype(stack.now){} || stack.told != stack.now)) return false;
        const abi::stack_key key{{id, start_ticks_of(target.key)}, entry.first};
        ++dropped;
        return bpf_map_delete_elem(counts_.fd(), &key) == 0;
      });
    }
  }
}

Result<StackDelta> StackEngine::read(const ProcessKey& process, ProbeKind kind) {
  Target* target = find({static_cast<uint32_t>(process.pid), start_ticks_of(process)});
  Target::Kind* mine = target == nullptr ? nullptr : &target->kinds[index_of(kind)];
  if (mine == nullptr || !mine->attached) return fail("read a probe", "its process is not attached");
  StackDelta delta;
  delta.process = process;
  delta.probe = kind;
  delta.values = std::exchange(mine->values, {});
  delta.new_stacks = std::exchange(target->new_stacks, {});
  delta.lost = std::exchange(target->lost, {});
  delta.time_ns = std::max(collected_ns_, mine->begun_ns);  // the latter: attached after the last collect
  delta.interval_ns = delta.time_ns - mine->begun_ns;
  mine->begun_ns = delta.time_ns;
  return delta;
}

ProbeEngine::Cost StackEngine::cost() const {
  Cost cost;
  if (program_.object == nullptr) return cost;
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, program_.object) cost.map_bytes += map_memory_bytes(bpf_map__fd(map));
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, program_.object) {
    const ProgramStatistics statistics = program_statistics(bpf_program__fd(program));
    cost.runs += statistics.runs;
    cost.run_ns += statistics.run_ns;
    cost.recursion_misses += statistics.recursion_misses;
  }
  cost.recursion_misses -= std::min(cost.recursion_misses, told_misses_);
  return cost;
}

}  // namespace stackwatch
