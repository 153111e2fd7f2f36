// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only.

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bpf/map_reader.h"
#include "bpf/mapping_counter.h"
#include "bpf/memory_engine.h"
#include "bpf/memory_rate.h"
#include "bpf/stack_engine.h"
#include "bpf/uprobe_links.h"
#include "bpf/work_thread.h"

struct memory_bpf;

namespace stackwatch {

/// Processes whose probes wait to be put in: more than can be attached.
inline constexpr size_t kMaxAttachJobs = 4096;
/// Objects with an allocator in one process. One is usual, a few with plugins; each costs every process two links.
inline constexpr size_t kMaxAllocatorObjects = 16;
/// Events that nobody has taken.
inline constexpr size_t kMaxMemoryEvents = 256;

class MemoryStackEngine final : public StackEngine, public MemoryControl {
 public:
  MemoryStackEngine(const Clock& clock, UniqueFd epoll, UniqueFd done, const MemoryLimits& limits);
  ~MemoryStackEngine() override;

  void drain() override;
  Result<void> collect() override;
  void forget(const ProcessKey& process) override;

  void set_functions(const AllocatorFunctions& functions) override;
  void set_overhead_limit(double percent) override { limits_.overhead_percent = percent; }
  [[nodiscard]] std::optional<MemoryState> state(const ProcessKey& process) const override;
  [[nodiscard]] std::vector<MemoryEvent> take_process_events() override { return std::exchange(events_, {}); }
  void wait_until_settled() override;

 private:
  using Object = std::shared_ptr<const AllocatorObject>;

  struct SkeletonDeleter {
    void operator()(memory_bpf* skeleton) const;
  };
  /// One attached process.
  struct Watch {
    uint64_t generation = 0;  ///< tells answers of the thread for this attachment from those for an earlier one
    int32_t pid_in_ns = 0;
    std::vector<Object> objects;
    size_t asked = 0;  ///< of them: attached or on their way
    std::vector<BpfLink> links;
    abi::memory_process counters{};
    MemoryRate rate;
    bool entered = false;  ///< in the kernel's map: is counted
    uint64_t paused_until_ns = 0;
    uint64_t window_until_ns = 0;  ///< 0: counts for good
    MemoryState state;
  };
  /// What the thread has done.
  struct Done {
    ProcessKey process;
    uint64_t generation = 0;
    std::vector<BpfLink> links;
    std::vector<std::string> refused;  ///< functions that the kernel takes no probe at
    bool gone = false;
    std::optional<Error> error;
  };

  Result<Program> load() override;
  Result<void> fit() override;
  Result<void> collect_open() override;
  [[nodiscard]] bool wants_mappings(const ProcessKey& process) const;
  [[nodiscard]] bool put_in_map(const ProcessKey& process, Watch& watch);
  [[nodiscard]] bool enter_process(const ProcessKey& process, Watch& watch);

  void attach_objects(const ProcessKey& process, Watch& watch);
  [[nodiscard]] Done put_in(Done done, pid_t pid, const std::vector<Object>& objects) const;
  [[nodiscard]] Result<UprobeLinks> put_in_entries(const AllocatorObject& object, pid_t pid) const;
  void take_done();
  void take_done(Done done);
  void take_out(uint32_t tgid, Watch& watch);
  void sweep(uint32_t tgid, std::optional<uint32_t> keep_image);
  void tell_children();
  void read_counters();
  void read_counters(const ProcessKey& process, Watch& watch, const abi::memory_process& now);
  void look_at_rate(const ProcessKey& process, Watch& watch);
  void pause(const ProcessKey& process, Watch& watch);
  void sweep_calls();
  void tell(const ProcessKey& process, std::string why, std::string hint);

  MemoryLimits limits_;
  UniqueFd done_event_;
  UprobeTrial trial_;
  std::optional<Error> trial_error_;
  std::unique_ptr<memory_bpf, SkeletonDeleter> skeleton_;
  BpfLink exec_link_;
  MappingCounter mappings_;
  MapReader<uint32_t, abi::watched_process> watched_;
  MapReader<uint32_t, abi::memory_process> processes_;
  MapReader<uint64_t, abi::memory_call> calls_;
  std::unordered_map<ProcessKey, Watch> watches_;
  std::vector<MemoryEvent> events_;
  uint64_t generations_ = 0;
  uint32_t collects_ = 0;
  std::mutex mutex_;  // guards done_
  std::vector<Done> done_;
  WorkThread thread_;  // last: its jobs use the others
};

}  // namespace stackwatch
