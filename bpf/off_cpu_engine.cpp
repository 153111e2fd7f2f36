// SPDX-License-Identifier: Apache-2.0
#include "bpf/off_cpu_engine.h"

#include <bpf/bpf.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "bpf/stack_engine.h"
#include "off_cpu.skel.h"

namespace stackwatch {
namespace {

struct SkeletonDeleter {
  void operator()(off_cpu_bpf* skeleton) const { off_cpu_bpf__destroy(skeleton); }
};

/// Order of the values in a stack_count.
constexpr size_t kBlockedValue = 0;
constexpr size_t kRunQueueValue = 1;

class OffCpuEngine final : public StackEngine {
 public:
  OffCpuEngine(const Clock& clock, UniqueFd epoll, const OffCpuLimits& limits)
      : StackEngine(clock, std::move(epoll), {ProbeKind::kBlocked, ProbeKind::kRunQueue}, true), limits_(limits) {}
  ~OffCpuEngine() override { finish_loading(); }
  OffCpuEngine(const OffCpuEngine&) = delete;
  OffCpuEngine& operator=(const OffCpuEngine&) = delete;

 private:
  Result<Program> load() override;
  Result<void> fit() override;
  Result<void> begin(const Target& target) override;
  void end(const ProcessKey& /*process*/) override { stale_waits_ = true; }
  Result<void> collect_open() override;
  template <class Function>
  Result<void> for_each_open_wait(Function&& visit);
  void drop_stale_waits();

  OffCpuLimits limits_;
  std::unique_ptr<off_cpu_bpf, SkeletonDeleter> skeleton_;
  BpfLink on_switch_;
  BpfLink waits_iterator_;
  MapReader<uint32_t, abi::thread_wait> waits_;
  bool stale_waits_ = false;  // there may be some of processes that are attached no longer
};

Result<StackEngine::Program> OffCpuEngine::load() {
  const LibbpfMessages messages;
  std::unique_ptr<off_cpu_bpf, SkeletonDeleter> skeleton(off_cpu_bpf__open());
  if (!skeleton) return fail_bpf("open the off-CPU program", errno, messages);
  const auto& maps = skeleton->maps;
  if (!set_common_sizes(maps, {limits_.stacks, limits_.processes, limits_.ring_bytes}) ||
      !set_sizes({{maps.waits, limits_.threads}})) {
    return fail_bpf("size the maps of the off-CPU program", errno, messages);
  }
  if (auto shared = share_unwind_maps(maps.unwind_spaces, maps.unwind_tables); !shared) return Failure(shared.error());
  if (const int error = off_cpu_bpf__load(skeleton.get()); error != 0) {
    return fail_bpf("load the off-CPU program", error, messages);
  }
  skeleton->data->max_half_stack = max_half_stack();
  waits_iterator_.reset(bpf_program__attach_iter(skeleton->progs.tell_waits, nullptr));
  if (!waits_iterator_) return fail_bpf("attach the iterator over waits", errno, messages);
  waits_ = {bpf_map__fd(maps.waits)};
  skeleton_ = std::move(skeleton);
  const auto& programs = skeleton_->progs;
  return Program{skeleton_->obj, maps.watched, maps.counts, maps.new_stacks, programs.on_fork, programs.on_exit};
}

Result<void> OffCpuEngine::fit() {
  if (targets().empty()) {
    on_switch_.reset();
    drop_stale_waits();
    return {};
  }
  if (on_switch_) return {};
  const LibbpfMessages messages;
  on_switch_.reset(bpf_program__attach(skeleton_->progs.on_switch));
  if (!on_switch_) return fail_bpf("attach to switches between tasks", errno, messages);
  return {};
}

// Threads that sleep at the moment of attaching have a wait that nobody saw begin.
Result<void> OffCpuEngine::begin(const Target& /*target*/) {
  return for_each_open_wait([](const abi::open_wait&) {});
}

Result<void> OffCpuEngine::collect_open() {
  if (stale_waits_) drop_stale_waits();
  ++skeleton_->bss->memo_epoch;
  return for_each_open_wait([this](const abi::open_wait& wait) {
    add_open(wait.key, kBlockedValue, static_cast<int64_t>(wait.blocked_ns));
    add_open(wait.key, kRunQueueValue, static_cast<int64_t>(wait.run_queue_ns));
  });
}

template <class Function>
Result<void> OffCpuEngine::for_each_open_wait(Function&& visit) {
  const UniqueFd waits(bpf_iter_create(bpf_link__fd(waits_iterator_.get())));
  if (!waits) return fail_errno("iterate over waits", errno);
  std::array<abi::open_wait, 512> buffer;
  size_t held = 0;  // bytes of a record that a read has cut
  for (;;) {
    const ssize_t got = ::read(waits.get(), reinterpret_cast<char*>(buffer.data()) + held, sizeof(buffer) - held);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return fail_errno("iterate over waits", errno);
    if (got == 0) return {};
    held += static_cast<size_t>(got);
    const size_t whole = held / sizeof(abi::open_wait);
    for (size_t i = 0; i < whole; ++i) visit(buffer[i]);
    const size_t rest = held % sizeof(abi::open_wait);
    std::copy_n(reinterpret_cast<const char*>(&buffer[0]) + whole * sizeof(abi::open_wait), rest,
                reinterpret_cast<char*>(buffer.data()));
    held = rest;
  }
}

// Threads of a process that was detached while it lived, or that ended after it was.
void OffCpuEngine::drop_stale_waits() {
  stale_waits_ = false;
  std::vector<uint32_t> tids;
  static_cast<void>(waits_.for_each([&](uint32_t tid, const abi::thread_wait& wait) {
    const auto target = targets().find(wait.key.process.tgid);
    const bool attached =
        target != targets().end() && start_ticks_of(target->second.key) == wait.key.process.start_ticks;
    if (!attached) tids.push_back(tid);
  }));
  for (const uint32_t tid : tids) bpf_map_delete_elem(waits_.fd(), &tid);
}

}  // namespace

Result<std::unique_ptr<ProbeEngine>> make_off_cpu_engine(const Clock& clock, const OffCpuLimits& limits,
                                                         std::shared_ptr<UnwindMaps> unwind) {
  if (auto possible = check_bpf_possible(); !possible) return Failure(possible.error());
  auto epoll = make_epoll();
  if (!epoll) return Failure(epoll.error());
  auto engine = std::make_unique<OffCpuEngine>(clock, std::move(*epoll), limits);
  engine->set_unwind_maps(std::move(unwind));
  return std::unique_ptr<ProbeEngine>(std::move(engine));
}

}  // namespace stackwatch
