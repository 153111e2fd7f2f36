// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only.

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "bpf/abi.h"
#include "bpf/bpf_support.h"
#include "bpf/map_reader.h"
#include "bpf/unwind_maps.h"
#include "bpf/work_thread.h"
#include "core/clock.h"
#include "core/probe.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// The user side of bpf/stack_counting.bpf.h: the attached processes, their stacks, and what changed since the last
/// collect. A subclass brings the program, makes its events fit the attached processes, and may add values that are
/// still open. The program is loaded at the first attach, so that a probe that nobody wants costs nothing.
class StackEngine : public ProbeEngine {
 public:
  StackEngine(const StackEngine&) = delete;
  StackEngine& operator=(const StackEngine&) = delete;
  ~StackEngine() override;

  [[nodiscard]] std::span<const ProbeKind> kinds() const override { return kinds_; }
  [[nodiscard]] std::unique_ptr<Probe> make_probe(ProbeKind kind) override;
  [[nodiscard]] Result<void> prepare() override { return ensure_loaded(); }
  [[nodiscard]] bool load_beside() override;
  [[nodiscard]] int poll_fd() const override { return epoll_.get(); }
  void drain() override;
  [[nodiscard]] Result<void> collect() override;
  [[nodiscard]] std::vector<Adopted> take_adopted() override { return std::exchange(adopted_, {}); }
  void forget(const ProcessKey& process) override;
  [[nodiscard]] Cost cost() const override;
  /// What user stacks are unwound with; without it they are walked by frame pointers. Before the first attach.
  void set_unwind_maps(std::shared_ptr<UnwindMaps> maps) { unwind_ = std::move(maps); }

 protected:
  /// One stack of addresses in one process.
  struct Stack {
    std::array<int64_t, abi::kValuesPerStack> now{};   ///< as the kernel's map says
    std::array<int64_t, abi::kValuesPerStack> open{};  ///< on top of it: what goes on at the moment
    std::array<int64_t, abi::kValuesPerStack> told{};  ///< handed out so far
    uint64_t changed = 0;                              ///< number of the collect that last saw it change
    bool touched = false;                              ///< in touched_
  };
  /// One process in the kernel's maps, whether a probe was made for it yet or not.
  struct Target {
    struct Kind {
      bool attached = false;
      uint64_t begun_ns = 0;  ///< start of the interval that `values` cover
      std::vector<StackDelta::Value> values;
    };
    ProcessKey key;
    abi::watched_process counters{};
    std::unordered_map<uint64_t, Stack> stacks;
    std::array<Kind, abi::kValuesPerStack> kinds;
    std::vector<StackDelta::NewStack> new_stacks;  ///< these two go to the probe that is read first
    Losses lost;
    bool unwound = false;  ///< has a place in unwind_
  };

  /// The program's maps and hooks, once it is loaded. Owned by the subclass's skeleton.
  struct Program {
    bpf_object* object = nullptr;
    bpf_map* watched = nullptr;
    bpf_map* counts = nullptr;
    bpf_map* new_stacks = nullptr;
    bpf_program* on_fork = nullptr;
    bpf_program* on_exit = nullptr;
  };

  /// How large the maps are that each program has.
  struct Sizes {
    uint32_t stacks = 0;
    uint32_t processes = 0;
    uint32_t ring_bytes = 0;
  };
  template <class Maps>
  [[nodiscard]] static bool set_common_sizes(const Maps& maps, const Sizes& sizes) {
    return set_sizes(
        {{maps.counts, sizes.stacks}, {maps.watched, sizes.processes}, {maps.new_stacks, sizes.ring_bytes}});
  }

  /// `kinds` in order of the values in a stack_count. `grows`: values never fall, so that a snapshot below an earlier
  /// one only means that something was seen half-way; otherwise they are signed.
  StackEngine(const Clock& clock, UniqueFd epoll, std::vector<ProbeKind> kinds, bool grows);

  /// Sets up what is the subclass's own. On the thread that loads or on the caller's, before anything is attached: what
  /// both could see at a time is not to be looked at before loaded().
  [[nodiscard]] virtual Result<Program> load() = 0;
  [[nodiscard]] bool loaded() const { return program_.object != nullptr; }
  /// Waits for the thread that loads. Each subclass's destructor calls it: load() uses what is the subclass's.
  void finish_loading() { loader_.reset(); }
  /// Lets events run as the attached processes need them: after attaching, once per collect, and when the last one
  /// is detached.
  [[nodiscard]] virtual Result<void> fit() = 0;
  /// A process was attached and its events run; what it does already may be taken up.
  [[nodiscard]] virtual Result<void> begin(const Target& /*target*/) { return {}; }
  /// A process was detached.
  virtual void end(const ProcessKey& /*process*/) {}
  /// Adds what is still open by add_open(); after the counts were read.
  [[nodiscard]] virtual Result<void> collect_open() { return {}; }
  void add_open(const abi::stack_key& key, size_t kind, int64_t value);
  /// Lets a program that is open and not loaded yet use the shared maps for unwinding.
  [[nodiscard]] Result<void> share_unwind_maps(bpf_map* spaces, bpf_map* tables);
  /// Calls load() if it was not called yet, or waits for the thread that does. What failed is not tried again for
  /// kLoadAgainS: it takes as long as what succeeds.
  [[nodiscard]] Result<void> ensure_loaded();
  [[nodiscard]] Result<Program> load_or_wait();
  [[nodiscard]] bool failed_lately() const;
  /// Adds to what the process's next delta tells as lost; nothing where it is not attached.
  void add_lost(const abi::process_id& id, LossReason reason, uint64_t count);

  [[nodiscard]] const std::unordered_map<uint32_t, Target>& targets() const { return targets_; }
  [[nodiscard]] const Clock& clock() const { return clock_; }

 private:
  class StackProbe;

  [[nodiscard]] Result<void> attach(const ProcessKey& process, ProbeKind kind, const ProbeOptions& options);
  [[nodiscard]] Result<void> change(const ProcessKey& process, const ProbeOptions& options);
  void detach(const ProcessKey& process, ProbeKind kind);
  [[nodiscard]] Result<StackDelta> read(const ProcessKey& process, ProbeKind kind);

  [[nodiscard]] Result<void> watch_forks();
  void place_in_unwind_maps(const ProcessKey& process, const ProbeOptions& options, abi::watched_process& entry);
  [[nodiscard]] Result<Target*> enter(const ProcessKey& process, const ProbeOptions& options, bool& known);
  [[nodiscard]] Result<void> take_over(Target& target, const abi::watched_process& wanted);
  static int take_frames(void* engine, void* data, size_t size);
  void add_frames(const abi::stack_frames& header, const uint64_t* frames);
  [[nodiscard]] size_t index_of(ProbeKind kind) const;
  [[nodiscard]] Target* find(const abi::process_id& id);
  [[nodiscard]] bool take_in(const abi::process_id& id);
  [[nodiscard]] ProcessKey key_of(const abi::process_id& id) const;
  Result<void> collect_processes();
  void collect_process(uint32_t tgid, const abi::watched_process& now);
  Result<void> collect_counts();
  void touch(Target& target, uint64_t hash, Stack& stack);
  void tell_changes();
  void tell_misses();
  void make_room(size_t entries);

  struct Touched {
    Target* target;
    uint64_t hash;
    Stack* stack;
  };
  struct RingDeleter {
    void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
  };

  const Clock& clock_;
  UniqueFd epoll_;  // readable when the ring is; there before the ring is
  std::vector<ProbeKind> kinds_;
  bool grows_;
  Program program_;
  std::unique_ptr<ring_buffer, RingDeleter> ring_;
  std::vector<BpfLink> fork_links_;
  MapReader<uint32_t, abi::watched_process> watched_;
  MapReader<abi::stack_key, abi::stack_count> counts_;
  std::unordered_map<uint32_t, Target> targets_;  // by tgid: the kernel's map has one entry per tgid as well
  std::vector<Touched> touched_;
  std::vector<Adopted> adopted_;
  std::shared_ptr<UnwindMaps> unwind_;
  uint64_t collects_ = 0;
  uint64_t collected_ns_ = 0;
  uint64_t misses_ = 0;       // as the kernel said last
  uint64_t told_misses_ = 0;  // of them: in a process's losses
  uint32_t max_stacks_ = 0;
  // Of the thread that loads, while there is one; the loop reads loaded_ when that has ended.
  UniqueFd load_event_;
  std::optional<Result<Program>> loaded_;
  std::atomic<bool> load_done_{false};
  std::unique_ptr<WorkThread> loader_;
  std::optional<Error> load_error_;
  uint64_t load_failed_ns_ = 0;
};

/// How far this kernel lets a stack be read, at most abi::kMaxHalfStack frames.
[[nodiscard]] uint32_t max_half_stack();
[[nodiscard]] uint32_t start_ticks_of(const ProcessKey& key);

}  // namespace stackwatch
