// SPDX-License-Identifier: Apache-2.0
#include "bpf/memory_engine.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <unordered_set>
#include <utility>

#include "bpf/memory_engine_impl.h"
#include "memory.skel.h"

namespace stackwatch {
namespace {

/// Threads that have not been in the allocator for so many collects are looked at as gone when the map fills up.
constexpr uint32_t kIdleCollects = 60;

constexpr const char* kMapFull = "the kernel's map of processes is full";

uint32_t role_of(AllocatorRole role) { return static_cast<uint32_t>(role) + 1; }

static_assert(static_cast<uint32_t>(AllocatorRole::kMalloc) + 1 == abi::kMemoryMalloc);
static_assert(static_cast<uint32_t>(AllocatorRole::kFree) + 1 == abi::kMemoryFree);
static_assert(static_cast<uint32_t>(AllocatorRole::kNewReturn) + 1 == abi::kMemoryNewReturn);

bool has_return_probe(AllocatorRole role) { return role < AllocatorRole::kFree; }

/// As the kernel side makes it of process and exec.
uint32_t image_of(const abi::memory_process& process) {
  return static_cast<uint32_t>(process.exec_id) ^ (process.start_ticks * 0x9e3779b1U);
}

abi::process_id id_of(const ProcessKey& key) { return {static_cast<uint32_t>(key.pid), start_ticks_of(key)}; }

std::string percent(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.0f %%", value);
  return text.data();
}

}  // namespace

void MemoryStackEngine::SkeletonDeleter::operator()(memory_bpf* skeleton) const { memory_bpf__destroy(skeleton); }

MemoryStackEngine::MemoryStackEngine(const Clock& clock, UniqueFd epoll, UniqueFd done, const MemoryLimits& limits)
    : StackEngine(clock, std::move(epoll), {ProbeKind::kMemory}, false),
      limits_(limits),
      done_event_(std::move(done)),
      thread_(kMaxAttachJobs) {
  // Meanwhile the daemon starts; whoever attaches first waits for what is left of it.
  thread_.push_always([this] {
    auto trial = try_uprobes(this->clock(), limits_.allow_multi);
    if (trial) {
      trial_ = *trial;
    } else {
      trial_error_ = trial.error();
    }
  });
}

MemoryStackEngine::~MemoryStackEngine() { finish_loading(); }

Result<StackEngine::Program> MemoryStackEngine::load() {
  thread_.wait_idle();
  if (trial_error_) return tl::make_unexpected(*trial_error_);
  const LibbpfMessages messages;
  skeleton_.reset(memory_bpf__open());
  if (!skeleton_) return fail_bpf("open the memory program", errno, messages);
  auto& maps = skeleton_->maps;
  auto& programs = skeleton_->progs;
  if (!set_common_sizes(maps, {limits_.stacks, limits_.processes, limits_.ring_bytes}) ||
      !set_sizes({{maps.processes, limits_.processes},
                  {maps.calls, limits_.threads},
                  {maps.mapping_calls, limits_.threads},
                  {maps.live, limits_.addresses}})) {
    return fail_bpf("size the maps of the memory program", errno, messages);
  }
  const bool multi = trial_.way == UprobeWay::kMulti;
  for (bpf_program* single : {programs.enter_malloc, programs.enter_calloc, programs.enter_aligned,
                              programs.enter_posix_memalign, programs.enter_realloc, programs.enter_reallocarray,
                              programs.enter_free, programs.enter_new, programs.leave_new}) {
    bpf_program__set_autoload(single, !multi);
  }
  bpf_program__set_autoload(programs.enter_any, multi);
  if (multi) {
    bpf_program__set_expected_attach_type(programs.enter_any, BPF_TRACE_UPROBE_MULTI);
    bpf_program__set_expected_attach_type(programs.leave, BPF_TRACE_UPROBE_MULTI);
  }
  if (auto shared = share_unwind_maps(maps.unwind_spaces, maps.unwind_tables); !shared) return Failure(shared.error());
  if (const int error = memory_bpf__load(skeleton_.get()); error != 0) {
    skeleton_.reset();
    return fail_bpf("load the memory program", error, messages);
  }
  exec_link_.reset(bpf_program__attach(programs.on_exec));
  if (!exec_link_) return fail_bpf("follow a process to its next program", errno, messages);
  skeleton_->data->max_half_stack = max_half_stack();
  watched_ = {bpf_map__fd(maps.watched)};
  processes_ = {bpf_map__fd(maps.processes)};
  calls_ = {bpf_map__fd(maps.calls)};
  if (auto started = mappings_.start(*skeleton_, poll_fd()); !started) return Failure(started.error());
  return Program{skeleton_->obj, maps.watched, maps.counts, maps.new_stacks, programs.on_fork, programs.on_exit};
}

bool MemoryStackEngine::wants_mappings(const ProcessKey& process) const {
  const auto target = targets().find(static_cast<uint32_t>(process.pid));
  return target != targets().end() && target->second.key == process &&
         (target->second.counters.flags & abi::kWatchMappings) != 0;
}

// While anybody wants mappings counted every system call of the machine runs a program that looks at its number.
Result<void> MemoryStackEngine::fit() {
  if (!skeleton_) return {};
  bool wanted = false;
  for (auto& [process, watch] : watches_) {
    const bool mappings = wants_mappings(process);
    wanted = wanted || mappings;
    // Without an allocator it is counted for its mappings alone, from when they are wanted.
    if (mappings && !watch.entered && watch.state.phase == MemoryPhase::kNothing) {
      if (!put_in_map(process, watch)) watch.state.note = kMapFull;
    } else if (watch.entered && (watch.counters.mappings != 0) != mappings) {
      // What the kernel side adds to its counters in between is lost to them, not to the bytes.
      const auto tgid = static_cast<uint32_t>(process.pid);
      abi::memory_process now{};
      if (bpf_map_lookup_elem(processes_.fd(), &tgid, &now) != 0) continue;
      now.mappings = watch.counters.mappings = mappings ? 1 : 0;
      bpf_map_update_elem(processes_.fd(), &tgid, &now, BPF_EXIST);
      if (!mappings) mappings_.clear(tgid, 0);
    }
  }
  return mappings_.follow(wanted);
}

// After the counts: what was mapped until now, so that nothing is told that has no stack yet.
Result<void> MemoryStackEngine::collect_open() {
  mappings_.drain();
  mappings_.for_each([this](const abi::stack_key& key, int64_t bytes) { add_open(key, 0, bytes); });
  for (const MappingCounter::Lost& lost : mappings_.take_lost()) add_lost(lost.process, lost.reason, lost.count);
  return {};
}

bool MemoryStackEngine::put_in_map(const ProcessKey& process, Watch& watch) {
  const abi::process_id id = id_of(process);
  watch.counters = {};
  watch.counters.start_ticks = id.start_ticks;
  watch.counters.mappings = wants_mappings(process) ? 1 : 0;
  watch.entered = bpf_map_update_elem(processes_.fd(), &id.tgid, &watch.counters, BPF_ANY) == 0;
  return watch.entered;
}

bool MemoryStackEngine::enter_process(const ProcessKey& process, Watch& watch) {
  if (!put_in_map(process, watch)) tell(process, kMapFull, {});
  if (auto followed = fit(); !followed) tell(process, followed.error().message(), {});
  return watch.entered;
}

void MemoryStackEngine::set_functions(const AllocatorFunctions& functions) {
  const abi::process_id id = id_of(functions.process);
  const auto target = targets().find(id.tgid);
  if (target == targets().end() || target->second.key != functions.process || !functions.alive) return;
  const bool known = watches_.contains(functions.process);
  Watch& watch = watches_[functions.process];
  if (!known) watch.generation = ++generations_;
  watch.pid_in_ns = functions.pid_in_ns;
  for (const Object& object : functions.objects) {
    if (std::ranges::find(watch.objects, object) != watch.objects.end()) continue;
    if (watch.objects.size() == kMaxAllocatorObjects) {
      watch.state.note = "more than " + std::to_string(kMaxAllocatorObjects) + " allocators: the last are not counted";
      break;
    }
    watch.objects.push_back(object);
    if (object->uncounted_new) watch.state.note = "what operator new of " + object->path + " allocates is not counted";
  }
  if (watch.objects.empty()) {
    if (!watch.entered && wants_mappings(functions.process)) static_cast<void>(enter_process(functions.process, watch));
    if (std::exchange(watch.state.phase, MemoryPhase::kNothing) == MemoryPhase::kNothing) return;
    watch.state.note = "no allocator function was found by its name";
    tell(functions.process, watch.state.note,
         "is its allocator linked in without symbols? page_fault shows its growth");
    return;
  }
  if (watch.state.phase != MemoryPhase::kPaused) attach_objects(functions.process, watch);
}

void MemoryStackEngine::attach_objects(const ProcessKey& process, Watch& watch) {
  if (watch.asked == watch.objects.size()) return;
  const std::vector<Object> objects(watch.objects.begin() + static_cast<ptrdiff_t>(watch.asked), watch.objects.end());
  const bool taken = thread_.push([this, process, generation = watch.generation, pid = watch.pid_in_ns, objects] {
    Done done = put_in({process, generation, {}, {}, false, {}}, pid, objects);
    const std::lock_guard lock(mutex_);
    done_.push_back(std::move(done));
    ::eventfd_write(done_event_.get(), 1);
  });
  if (!taken) return;  // tried again at the next collect
  watch.asked = watch.objects.size();
  if (watch.state.phase != MemoryPhase::kCounting) watch.state.phase = MemoryPhase::kAttaching;
}

// On the thread. The order does not matter: nothing is counted before the process is in the map.
MemoryStackEngine::Done MemoryStackEngine::put_in(Done done, pid_t pid, const std::vector<Object>& objects) const {
  for (const Object& object : objects) {
    std::vector<UprobePlace> returns;
    for (const AllocatorPlace& place : object->places) {
      if (has_return_probe(place.role)) returns.push_back({place.offset, 0});
    }
    auto entries = put_in_entries(*object, pid);
    auto leaving = attach_uprobes(trial_.way, {skeleton_->progs.leave, true, object->file.get(), pid}, returns);
    for (auto* links : {&leaving, &entries}) {
      if (!*links) {
        done.error = links->error();
        continue;
      }
      done.gone = done.gone || (*links)->gone;
      for (BpfLink& link : (*links)->links) done.links.push_back(std::move(link));
      if (!(*links)->refused.empty()) {
        done.refused.push_back(std::to_string((*links)->refused.size()) + " functions of " + object->path);
      }
    }
  }
  return done;
}

Result<UprobeLinks> MemoryStackEngine::put_in_entries(const AllocatorObject& object, pid_t pid) const {
  const auto& programs = skeleton_->progs;
  std::vector<UprobePlace> places;
  if (trial_.way == UprobeWay::kMulti) {
    for (const AllocatorPlace& place : object.places) places.push_back({place.offset, role_of(place.role)});
    return attach_uprobes(trial_.way, {programs.enter_any, false, object.file.get(), pid}, places);
  }
  const std::array<bpf_program*, static_cast<size_t>(AllocatorRole::kCount)> by_role = {
      programs.enter_malloc,         programs.enter_calloc,  programs.enter_aligned,
      programs.enter_posix_memalign, programs.enter_realloc, programs.enter_reallocarray,
      programs.enter_free,           programs.enter_new,     programs.leave_new};
  UprobeLinks all;
  for (const AllocatorPlace& place : object.places) {
    const UprobePlace at{place.offset, 0};
    const bpf_program* program = by_role[static_cast<size_t>(place.role)];
    auto one = attach_uprobes(trial_.way, {program, false, object.file.get(), pid}, {&at, 1});
    if (!one) {
      all.refused.push_back(place.offset);
      if (all.refused.size() == object.places.size()) return one;
      continue;
    }
    if (one->gone) return one;
    for (BpfLink& link : one->links) all.links.push_back(std::move(link));
  }
  return all;
}

void MemoryStackEngine::take_done() {
  eventfd_t ignored = 0;
  ::eventfd_read(done_event_.get(), &ignored);  // resets it
  std::vector<Done> all;
  {
    const std::lock_guard lock(mutex_);
    all.swap(done_);
  }
  for (Done& done : all) take_done(std::move(done));
}

void MemoryStackEngine::take_done(Done done) {
  const auto found = watches_.find(done.process);
  if (found == watches_.end() || found->second.generation != done.generation) {
    // Detached meanwhile.
    Watch late;
    late.links = std::move(done.links);
    take_out(0, late);
    return;
  }
  Watch& watch = found->second;
  for (BpfLink& link : done.links) watch.links.push_back(std::move(link));
  if (done.gone) return;
  for (const std::string& refused : done.refused) {
    watch.state.note = "the kernel takes no probe in " + refused;
    tell(done.process, watch.state.note, "what they allocate is not counted");
  }
  if (done.error) {
    watch.state.phase = MemoryPhase::kRefused;
    watch.state.note = done.error->message();
    tell(done.process, done.error->why, done.error->hint);
    return;
  }
  if (watch.state.phase == MemoryPhase::kCounting) return;  // another object of it
  if (!enter_process(done.process, watch)) return;
  watch.state.phase = MemoryPhase::kCounting;
  const uint64_t now = clock().monotonic_ns();
  watch.rate.begin(watch.pid_in_ns, now);
  if (watch.window_until_ns != 0) watch.window_until_ns = now + limits_.window_ns;
}

// Nothing is counted from here on; the probes go as the thread comes to it. Then what was live is forgotten: of a free
// that comes later nobody will know.
void MemoryStackEngine::take_out(uint32_t tgid, Watch& watch) {
  if (tgid != 0) {
    bpf_map_delete_elem(processes_.fd(), &tgid);
    mappings_.forget(tgid);
  }
  watch.entered = false;
  watch.generation = ++generations_;
  watch.asked = 0;
  auto links = std::make_shared<std::vector<BpfLink>>(std::exchange(watch.links, {}));
  thread_.push_always([this, links, tgid] {
    links->clear();
    if (tgid != 0) sweep(tgid, std::nullopt);
  });
}

void MemoryStackEngine::forget(const ProcessKey& process) {
  if (const auto found = watches_.find(process); found != watches_.end()) {
    take_out(static_cast<uint32_t>(process.pid), found->second);
    watches_.erase(found);
  }
  StackEngine::forget(process);
}

// On the thread. What was live in an earlier image of the process is gone with it: those stacks hold nothing any more.
void MemoryStackEngine::sweep(uint32_t tgid, std::optional<uint32_t> keep_image) {
  MapReader<abi::memory_address, abi::memory_block> live(bpf_map__fd(skeleton_->maps.live));
  uint32_t start_ticks = 0;
  if (abi::memory_process process{}; bpf_map_lookup_elem(processes_.fd(), &tgid, &process) == 0) {
    start_ticks = process.start_ticks;
  }
  std::unordered_set<uint64_t> emptied;
  static_cast<void>(live.for_each([&](const abi::memory_address& address, const abi::memory_block& block) {
    if (address.tgid != tgid || address.image == keep_image) return;
    if (bpf_map_delete_elem(live.fd(), &address) == 0) emptied.insert(block.hash);
  }));
  if (!keep_image) return;
  for (const uint64_t hash : emptied) {
    const abi::stack_key key{{tgid, start_ticks}, hash};
    abi::stack_count count{};
    const int counts = bpf_map__fd(skeleton_->maps.counts);
    if (bpf_map_lookup_elem(counts, &key, &count) != 0) continue;
    count.values[0] = 0;
    bpf_map_update_elem(counts, &key, &count, BPF_EXIST);
  }
}

void MemoryStackEngine::drain() {
  if (loaded()) {
    take_done();
    mappings_.drain();
  }
  StackEngine::drain();
}

void MemoryStackEngine::wait_until_settled() {
  thread_.wait_idle();
  if (loaded()) take_done();
}

Result<void> MemoryStackEngine::collect() {
  if (targets().empty()) return {};
  take_done();
  tell_children();
  if (auto collected = StackEngine::collect(); !collected) return collected;
  read_counters();
  for (auto& [process, watch] : watches_) look_at_rate(process, watch);
  skeleton_->data->epoch = ++collects_ + 1;
  if (collects_ % kIdleCollects == 0) sweep_calls();
  return {};
}

// In a child nothing is counted before it has probes, so it is told of at once and not when something is counted.
void MemoryStackEngine::tell_children() {
  std::vector<std::pair<uint32_t, abi::watched_process>> children;
  static_cast<void>(watched_.for_each([&](uint32_t tgid, const abi::watched_process& process) {
    if ((process.flags & abi::kWatchAdopted) != 0 && process.counted == 0) children.emplace_back(tgid, process);
  }));
  for (auto& [tgid, process] : children) {
    process.counted = 1;
    bpf_map_update_elem(watched_.fd(), &tgid, &process, BPF_EXIST);
  }
}

void MemoryStackEngine::read_counters() {
  std::vector<std::pair<uint32_t, abi::memory_process>> all;
  static_cast<void>(
      processes_.for_each([&](uint32_t tgid, const abi::memory_process& process) { all.emplace_back(tgid, process); }));
  for (const auto& [tgid, now] : all) {
    const auto target = targets().find(tgid);
    if (target == targets().end() || start_ticks_of(target->second.key) != now.start_ticks) continue;
    const auto watch = watches_.find(target->second.key);
    if (watch != watches_.end()) read_counters(watch->first, watch->second, now);
  }
}

void MemoryStackEngine::read_counters(const ProcessKey& process, Watch& watch, const abi::memory_process& now) {
  const abi::process_id id = id_of(process);
  const abi::memory_process& before = watch.counters;
  add_lost(id, LossReason::kMapFull, now.lost_map_full - before.lost_map_full);
  add_lost(id, LossReason::kMapFull, now.lost_frees - before.lost_frees);
  add_lost(id, LossReason::kUnknownFree, now.unknown_frees - before.unknown_frees);
  add_lost(id, LossReason::kMissedFree, now.missed_frees - before.missed_frees);
  add_lost(id, LossReason::kAbandonedCall, now.abandoned - before.abandoned);
  if (now.execs != before.execs) {
    mappings_.clear(id.tgid, image_of(now));
    thread_.push_always([this, tgid = id.tgid, image = image_of(now)] { sweep(tgid, image); });
  }
  watch.counters = now;
}

void MemoryStackEngine::look_at_rate(const ProcessKey& process, Watch& watch) {
  const uint64_t now = clock().monotonic_ns();
  if (watch.state.phase == MemoryPhase::kPaused && now >= watch.paused_until_ns) {
    watch.window_until_ns = now + limits_.window_ns;
    watch.state.phase = MemoryPhase::kAttaching;
  }
  if (watch.state.phase == MemoryPhase::kAttaching) attach_objects(process, watch);  // where there was no room before
  if (watch.state.phase != MemoryPhase::kCounting) return;
  size_t stepped = 0;
  size_t entries = 0;
  for (const Object& object : watch.objects) {
    for (const AllocatorPlace& place : object->places) {
      if (place.role != AllocatorRole::kMalloc && place.role != AllocatorRole::kFree) continue;
      ++entries;
      stepped += place.stepped ? 1 : 0;
    }
  }
  const double steps = entries == 0 ? 0 : static_cast<double>(stepped) / static_cast<double>(entries);
  const abi::memory_process& c = watch.counters;
  const double cost_ns = static_cast<double>(c.spent_ns) +
                         static_cast<double>(c.calls) * (trial_.entry_ns + steps * trial_.stepped_ns) +
                         static_cast<double>(c.returns) * trial_.return_ns +
                         static_cast<double>(c.new_returns) * (trial_.entry_ns + trial_.stepped_ns);
  const bool too_slow = watch.rate.is_too_slow({c.calls, cost_ns}, now, limits_.overhead_percent);
  watch.state.calls_per_s = watch.rate.calls_per_s();
  watch.state.ns_per_call = watch.rate.ns_per_call();
  watch.state.overhead_percent = watch.rate.overhead_percent();
  const bool in_window = watch.window_until_ns != 0;
  if (in_window && now < watch.window_until_ns) return;
  const bool over = in_window ? watch.state.overhead_percent > limits_.overhead_percent : too_slow;
  if (over) {
    pause(process, watch);
  } else if (in_window) {
    watch.window_until_ns = 0;
    watch.state.note.clear();
    tell(process, "it is counted again: the probe takes " + percent(watch.state.overhead_percent) + " of its CPU", {});
  }
}

void MemoryStackEngine::pause(const ProcessKey& process, Watch& watch) {
  const bool first = watch.window_until_ns == 0;
  take_out(static_cast<uint32_t>(process.pid), watch);
  watch.state.phase = MemoryPhase::kPaused;
  watch.paused_until_ns = clock().monotonic_ns() + limits_.pause_ns;
  watch.state.note = "let go: " + std::to_string(static_cast<uint64_t>(watch.state.calls_per_s)) +
                     " allocator calls/s would take " + percent(watch.state.overhead_percent) +
                     " of its CPU, allowed are " + percent(limits_.overhead_percent);
  if (!first) return;
  tell(process, watch.state.note,
       "it is looked at for " + std::to_string(limits_.window_ns / 1'000'000'000) + " s every " +
           std::to_string(limits_.pause_ns / 1'000'000'000) + " s; page_fault is the cheap probe for memory");
}

// Entries of threads that are gone. One that comes back in this moment loses one call.
void MemoryStackEngine::sweep_calls() {
  thread_.push_always([this, now = collects_ + 1] {
    MapReader<uint64_t, abi::memory_call> calls(bpf_map__fd(skeleton_->maps.calls));
    static_cast<void>(calls.for_each([&](uint64_t thread, const abi::memory_call& call) {
      if (call.role == 0 && now - call.epoch > kIdleCollects) bpf_map_delete_elem(calls.fd(), &thread);
    }));
  });
}

void MemoryStackEngine::tell(const ProcessKey& process, std::string why, std::string hint) {
  if (events_.size() >= kMaxMemoryEvents) return;
  const std::string what = "count memory of process " + std::to_string(process.pid);
  events_.push_back({process, Error{ErrorKind::kFailed, what, std::move(why), std::move(hint)}});
}

std::optional<MemoryState> MemoryStackEngine::state(const ProcessKey& process) const {
  if (const auto found = watches_.find(process); found != watches_.end()) return found->second.state;
  const auto target = targets().find(static_cast<uint32_t>(process.pid));
  if (target == targets().end() || target->second.key != process) return std::nullopt;
  return MemoryState{};
}

Result<MemoryEngine> make_memory_engine(const Clock& clock, const MemoryLimits& limits,
                                        std::shared_ptr<UnwindMaps> unwind) {
  if (auto possible = check_bpf_possible(); !possible) return Failure(possible.error());
  auto epoll = make_epoll();
  if (!epoll) return Failure(epoll.error());
  UniqueFd done(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_event event{};
  event.events = EPOLLIN;
  if (!done || ::epoll_ctl(epoll->get(), EPOLL_CTL_ADD, done.get(), &event) != 0) {
    return fail_errno("make an event descriptor", errno);
  }
  auto engine = std::make_unique<MemoryStackEngine>(clock, std::move(*epoll), std::move(done), limits);
  engine->set_unwind_maps(std::move(unwind));
  MemoryControl* const control = engine.get();
  return MemoryEngine{std::move(engine), control};
}

}  // namespace stackwatch
