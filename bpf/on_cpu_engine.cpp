// SPDX-License-Identifier: Apache-2.0
#include "bpf/on_cpu_engine.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <unordered_map>

#include "bpf/abi.h"
#include "bpf/bpf_support.h"
#include "bpf/cpu_clock_events.h"
#include "bpf/map_reader.h"
#include "on_cpu.skel.h"

namespace stackwatch {
namespace {

struct SkeletonDeleter {
  void operator()(on_cpu_bpf* skeleton) const { on_cpu_bpf__destroy(skeleton); }
};
struct RingDeleter {
  void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};

uint32_t start_ticks_of(const ProcessKey& key) { return static_cast<uint32_t>(key.start_time_ns / abi::kStartTickNs); }

uint32_t milli_hertz(double frequency_hz) {
  return static_cast<uint32_t>(std::lround(std::max(frequency_hz, 0.001) * static_cast<double>(abi::kMilliHertz)));
}

// The kernel's own limit may be lower than ours: a stack of that many frames is cut as well.
uint32_t max_half_stack() {
  std::ifstream file("/proc/sys/kernel/perf_event_max_stack");
  uint32_t frames = 0;
  constexpr uint32_t kMost = abi::kMaxHalfStack;
  return file >> frames && frames > 0 ? std::min(frames, kMost) : kMost;
}

/// One process in the kernel's maps, whether a probe was made for it yet or not.
struct Target {
  struct Stack {
    uint64_t count = 0;
    uint64_t changed = 0;  ///< number of the collect that last saw it change
  };

  ProcessKey key;
  abi::watched_process counters{};
  std::unordered_map<uint64_t, Stack> stacks;
  StackDelta pending;
  uint64_t begun_ns = 0;  ///< start of the interval that `pending` covers
};

/// Stacks idle for this many collects may be dropped from the kernel's map when it runs full; the need halves it until
/// something is found.
constexpr uint64_t kIdleCollects = 600;

/// The two clocks are read one after the other: a smaller difference says nothing.
constexpr uint64_t kSleepNs = 100'000'000;

class OnCpuEngine final : public ProbeEngine {
 public:
  explicit OnCpuEngine(const Clock& clock) : clock_(clock) {}
  Result<void> load(const OnCpuLimits& limits);

  std::unique_ptr<Probe> make_probe() override;
  [[nodiscard]] int poll_fd() const override { return ring_buffer__epoll_fd(ring_.get()); }
  void drain() override { ring_buffer__consume(ring_.get()); }
  Result<void> collect() override;
  std::vector<Adopted> take_adopted() override { return std::exchange(adopted_, {}); }
  void forget(const ProcessKey& process) override { detach(process); }
  [[nodiscard]] Cost cost() const override;

  // For OnCpuProbe.
  Result<void> attach(const ProcessKey& process, const ProbeOptions& options);
  void detach(const ProcessKey& process);
  Result<StackDelta> read(const ProcessKey& process);

 private:
  static int take_frames(void* engine, void* data, size_t size);
  void add_frames(const abi::stack_frames& header, const uint64_t* frames);
  Target* find(const abi::process_id& id);
  bool take_in(const abi::process_id& id);
  [[nodiscard]] ProcessKey key_of(const abi::process_id& id) const;
  Result<void> take_over(Target& target, const abi::watched_process& wanted);
  Result<void> collect_processes();
  void collect_process(uint32_t tgid, const abi::watched_process& now);
  Result<void> collect_counts();
  void make_room(size_t entries);
  Result<void> fit_events();

  const Clock& clock_;
  std::unique_ptr<on_cpu_bpf, SkeletonDeleter> skeleton_;
  std::unique_ptr<ring_buffer, RingDeleter> ring_;
  CpuClockEvents events_;
  MapReader<uint32_t, abi::watched_process> watched_;
  MapReader<abi::stack_key, abi::stack_count> counts_;
  std::unordered_map<uint32_t, Target> targets_;  // by tgid: the kernel's map has one entry per tgid as well
  std::vector<Adopted> adopted_;
  uint64_t collects_ = 0;
  uint64_t collected_ns_ = 0;
  uint64_t suspended_ns_ = 0;  // boot time minus monotonic time when the events were opened
  uint32_t max_stacks_ = 0;
};

class OnCpuProbe final : public Probe {
 public:
  explicit OnCpuProbe(OnCpuEngine& engine) : engine_(engine) {}
  ~OnCpuProbe() override { OnCpuProbe::detach(); }
  OnCpuProbe(const OnCpuProbe&) = delete;
  OnCpuProbe& operator=(const OnCpuProbe&) = delete;

  [[nodiscard]] ProbeKind kind() const override { return ProbeKind::kOnCpu; }

  Result<void> attach(const ProcessKey& process, const ProbeOptions& options) override {
    if (attached_) return fail("attach a probe", "it is attached to a process already");
    if (auto done = engine_.attach(process, options); !done) return done;
    process_ = process;
    attached_ = true;
    return {};
  }

  Result<StackDelta> read() override {
    if (!attached_) return fail("read a probe", "it is not attached");
    return engine_.read(process_);
  }

  void detach() override {
    if (attached_) engine_.detach(process_);
    attached_ = false;
  }

 private:
  OnCpuEngine& engine_;
  ProcessKey process_;
  bool attached_ = false;
};

Result<void> OnCpuEngine::load(const OnCpuLimits& limits) {
  const LibbpfMessages messages;
  skeleton_.reset(on_cpu_bpf__open());
  if (!skeleton_) return fail_bpf("open the sampling program", errno, messages);
  max_stacks_ = limits.stacks;
  if (bpf_map__set_max_entries(skeleton_->maps.counts, limits.stacks) != 0 ||
      bpf_map__set_max_entries(skeleton_->maps.watched, limits.processes) != 0 ||
      bpf_map__set_max_entries(skeleton_->maps.new_stacks, limits.ring_bytes) != 0) {
    return fail_bpf("size the maps of the sampling program", errno, messages);
  }
  if (const int error = on_cpu_bpf__load(skeleton_.get()); error != 0) {
    return fail_bpf("load the sampling program", error, messages);
  }
  ring_.reset(ring_buffer__new(bpf_map__fd(skeleton_->maps.new_stacks), take_frames, this, nullptr));
  if (!ring_) return fail_bpf("read the ring buffer of the sampling program", errno, messages);
  skeleton_->data->max_half_stack = max_half_stack();
  watched_ = {bpf_map__fd(skeleton_->maps.watched)};
  counts_ = {bpf_map__fd(skeleton_->maps.counts)};
  return {};
}

std::unique_ptr<Probe> OnCpuEngine::make_probe() { return std::make_unique<OnCpuProbe>(*this); }

Target* OnCpuEngine::find(const abi::process_id& id) {
  const auto found = targets_.find(id.tgid);
  if (found == targets_.end() || start_ticks_of(found->second.key) != id.start_ticks) return nullptr;
  return &found->second;
}

// The kernel side knows a start time in ticks and only to 32 bits; the upper ones are those of "now".
ProcessKey OnCpuEngine::key_of(const abi::process_id& id) const {
  const uint64_t ticks_now = clock_.boottime_ns() / abi::kStartTickNs;
  uint64_t ticks = (ticks_now & ~0xffffffffULL) | id.start_ticks;
  if (ticks > ticks_now) ticks -= 1ULL << 32U;
  return {static_cast<int32_t>(id.tgid), ticks * abi::kStartTickNs};
}

// Whether a process is attached; one that the kernel side adopted a moment ago becomes known here.
bool OnCpuEngine::take_in(const abi::process_id& id) {
  if (find(id) != nullptr) return true;
  abi::watched_process entry{};
  if (bpf_map_lookup_elem(watched_.fd(), &id.tgid, &entry) != 0 || entry.start_ticks != id.start_ticks) return false;
  collect_process(id.tgid, entry);
  return find(id) != nullptr;
}

Result<void> OnCpuEngine::attach(const ProcessKey& process, const ProbeOptions& options) {
  const auto tgid = static_cast<uint32_t>(process.pid);
  abi::watched_process entry{};
  entry.start_ticks = start_ticks_of(process);
  if (options.children) entry.flags = abi::kWatchChildren;
  entry.rate_mhz = milli_hertz(options.frequency_hz);
  if (const auto known = targets_.find(tgid); known != targets_.end()) {
    if (known->second.key == process) return take_over(known->second, entry);
    detach(known->second.key);  // an earlier process with this pid
  }
  if (bpf_map_update_elem(watched_.fd(), &tgid, &entry, BPF_ANY) != 0) {
    return fail("attach to process " + std::to_string(process.pid),
                errno == E2BIG ? "the kernel's map of attached processes is full" : strerrordesc_np(errno));
  }
  Target& target = targets_[tgid];
  target.key = process;
  target.counters = entry;
  target.begun_ns = clock_.monotonic_ns();
  if (auto fitted = fit_events(); !fitted) {
    detach(process);
    return fitted;
  }
  return {};
}

// The process was adopted before and is counted already. Where it is to be counted otherwise its entry is written anew,
// with its counters; what a sample adds to them in between is lost to them, not to the counts of its stacks.
Result<void> OnCpuEngine::take_over(Target& target, const abi::watched_process& wanted) {
  const auto tgid = static_cast<uint32_t>(target.key.pid);
  abi::watched_process entry{};
  if (bpf_map_lookup_elem(watched_.fd(), &tgid, &entry) != 0) return fail("attach to an adopted process", "it is gone");
  if (entry.rate_mhz == wanted.rate_mhz && (entry.flags & abi::kWatchChildren) == wanted.flags) return {};
  entry.rate_mhz = wanted.rate_mhz;
  entry.flags = wanted.flags | (entry.flags & abi::kWatchAdopted);
  bpf_map_update_elem(watched_.fd(), &tgid, &entry, BPF_EXIST);
  target.counters.rate_mhz = entry.rate_mhz;
  target.counters.flags = entry.flags;
  return fit_events();
}

void OnCpuEngine::detach(const ProcessKey& process) {
  const auto tgid = static_cast<uint32_t>(process.pid);
  const auto found = targets_.find(tgid);
  if (found == targets_.end() || found->second.key != process) return;
  bpf_map_delete_elem(watched_.fd(), &tgid);
  for (const auto& [hash, stack] : found->second.stacks) {
    const abi::stack_key key{{tgid, start_ticks_of(process)}, hash};
    bpf_map_delete_elem(counts_.fd(), &key);
  }
  targets_.erase(found);
  // Whether the others need as many samples is looked at once per collect, not once per process that ends.
  if (targets_.empty()) static_cast<void>(fit_events());
}

// The events run at the highest rate that anybody wants, in whole hertz, and not at all where nobody is attached.
Result<void> OnCpuEngine::fit_events() {
  uint32_t highest_mhz = 0;
  bool children = false;
  for (const auto& [tgid, target] : targets_) {
    highest_mhz = std::max(highest_mhz, target.counters.rate_mhz);
    children = children || (target.counters.flags & abi::kWatchChildren) != 0;
  }
  skeleton_->bss->adopting = children ? 1 : 0;
  if (highest_mhz == 0) {
    events_.close();
    return {};
  }
  const uint32_t frequency_hz = (highest_mhz + abi::kMilliHertz - 1) / abi::kMilliHertz;
  // A suspended machine takes its CPUs offline and online again before anybody can look.
  const uint64_t suspended_ns = clock_.boottime_ns() - clock_.monotonic_ns();
  const bool slept = suspended_ns > suspended_ns_ + kSleepNs;
  if (events_.frequency_hz() == frequency_hz && !slept && !events_.cpus_changed()) return {};
  suspended_ns_ = suspended_ns;
  // Thinning must never see a rate that is not the events' own.
  return events_.open(*skeleton_->progs.sample_on_cpu, frequency_hz,
                      [&] { skeleton_->data->base_rate_mhz = frequency_hz * abi::kMilliHertz; });
}

int OnCpuEngine::take_frames(void* engine, void* data, size_t size) {
  abi::stack_frames header;
  if (size < sizeof(header)) return 0;
  std::memcpy(&header, data, sizeof(header));
  const size_t frames = size_t{header.user} + header.kernel;
  if (frames > 2 * abi::kMaxHalfStack || size < sizeof(header) + frames * sizeof(uint64_t)) return 0;
  static_cast<OnCpuEngine*>(engine)->add_frames(
      header, reinterpret_cast<const uint64_t*>(static_cast<const char*>(data) + sizeof(header)));
  return 0;
}

void OnCpuEngine::add_frames(const abi::stack_frames& header, const uint64_t* frames) {
  if (!take_in(header.key.process)) return;  // detached meanwhile
  Target* target = find(header.key.process);
  StackDelta::NewStack& stack = target->pending.new_stacks.emplace_back();
  stack.hash = StackHash{header.key.hash};
  stack.stack.exec = ExecId{header.exec_id};
  stack.stack.user_frames.assign(frames, frames + header.user);
  stack.stack.kernel_frames.assign(frames + header.user, frames + header.user + header.kernel);
}

Result<void> OnCpuEngine::collect() {
  if (targets_.empty()) return {};
  ++collects_;
  if (auto fitted = fit_events(); !fitted) return fitted;
  if (auto read = collect_processes(); !read) return read;
  if (auto read = collect_counts(); !read) return read;
  // Frames are told right after their stack's first count, so they are in the ring by now, if there was room.
  drain();
  const uint64_t now = clock_.monotonic_ns();
  for (auto& [tgid, target] : targets_) target.pending.time_ns = now;
  collected_ns_ = now;
  return {};
}

Result<void> OnCpuEngine::collect_processes() {
  return watched_.for_each([this](uint32_t tgid, const abi::watched_process& now) { collect_process(tgid, now); });
}

void OnCpuEngine::collect_process(uint32_t tgid, const abi::watched_process& now) {
  auto found = targets_.find(tgid);
  if (found != targets_.end() && start_ticks_of(found->second.key) != now.start_ticks) return;
  if (found == targets_.end()) {
    if ((now.flags & abi::kWatchAdopted) == 0) return;
    found = targets_.emplace(tgid, Target{}).first;
    found->second.key = key_of({tgid, now.start_ticks});
    found->second.counters.start_ticks = now.start_ticks;
    found->second.counters.flags = now.flags;
    found->second.counters.rate_mhz = now.rate_mhz;
    found->second.begun_ns = std::max(found->second.key.start_time_ns - suspended_ns_, collected_ns_);
    adopted_.push_back({found->second.key, key_of(now.parent)});
  }
  Target& target = found->second;
  Losses& lost = target.pending.lost;
  lost[LossReason::kMapFull] += now.lost_map_full - target.counters.lost_map_full;
  lost[LossReason::kFramesLate] += now.frames_late - target.counters.frames_late;
  lost[LossReason::kTruncated] += now.truncated - target.counters.truncated;
  lost[LossReason::kUnwindFailed] += now.unwind_failed - target.counters.unwind_failed;
  lost[LossReason::kWatchFull] += now.watch_full - target.counters.watch_full;
  target.counters = now;
}

// Counts in the kernel only grow; what was counted in a tick is the difference to the count at the last one.
Result<void> OnCpuEngine::collect_counts() {
  size_t entries = 0;
  std::vector<abi::stack_key> orphans;
  auto read = counts_.for_each([&](const abi::stack_key& key, const abi::stack_count& now) {
    ++entries;
    Target* target = find(key.process);
    if (target == nullptr) {
      orphans.push_back(key);  // counted on another CPU while its process was being detached
      return;
    }
    Target::Stack& stack = target->stacks[key.hash];
    if (now.count == stack.count) return;
    target->pending.values.push_back({StackHash{key.hash}, static_cast<int64_t>(now.count - stack.count)});
    stack = {now.count, collects_};
  });
  if (!read) return read;
  for (const abi::stack_key& key : orphans) {
    if (!take_in(key.process)) bpf_map_delete_elem(counts_.fd(), &key);
  }
  if (entries > max_stacks_ / 4 * 3) make_room(entries);
  return {};
}

// Drops the stacks that were idle longest until a quarter of the map is free. What a dropped entry was counted since
// the read just done (microseconds ago, after minutes of silence) is the only thing that could be lost.
void OnCpuEngine::make_room(size_t entries) {
  const size_t wanted = entries - max_stacks_ / 4 * 3;
  size_t dropped = 0;
  for (uint64_t idle = kIdleCollects; idle >= 1 && dropped < wanted; idle /= 2) {
    for (auto& [tgid, target] : targets_) {
      std::erase_if(target.stacks, [&, id = tgid](const auto& entry) {
        if (dropped >= wanted || entry.second.changed + idle > collects_) return false;
        const abi::stack_key key{{id, start_ticks_of(target.key)}, entry.first};
        ++dropped;
        return bpf_map_delete_elem(counts_.fd(), &key) == 0;
      });
    }
  }
}

Result<StackDelta> OnCpuEngine::read(const ProcessKey& process) {
  Target* target = find({static_cast<uint32_t>(process.pid), start_ticks_of(process)});
  if (target == nullptr) return fail("read a probe", "its process is not attached");
  StackDelta delta = std::exchange(target->pending, {});
  delta.process = process;
  delta.probe = ProbeKind::kOnCpu;
  if (delta.time_ns == 0) delta.time_ns = target->begun_ns;  // attached after the last collect
  delta.interval_ns = delta.time_ns - std::min(delta.time_ns, target->begun_ns);
  target->begun_ns = delta.time_ns;
  return delta;
}

ProbeEngine::Cost OnCpuEngine::cost() const {
  Cost cost;
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton_->obj) cost.map_bytes += map_memory_bytes(bpf_map__fd(map));
  const ProgramStatistics statistics = program_statistics(bpf_program__fd(skeleton_->progs.sample_on_cpu));
  cost.runs = statistics.runs;
  cost.run_ns = statistics.run_ns;
  cost.recursion_misses = statistics.recursion_misses;
  return cost;
}

}  // namespace

Result<std::unique_ptr<ProbeEngine>> make_on_cpu_engine(const Clock& clock, const OnCpuLimits& limits) {
  if (auto possible = check_bpf_possible(); !possible) return Failure(possible.error());
  auto engine = std::make_unique<OnCpuEngine>(clock);
  if (auto loaded = engine->load(limits); !loaded) return Failure(loaded.error());
  return std::unique_ptr<ProbeEngine>(std::move(engine));
}

}  // namespace stackwatch
