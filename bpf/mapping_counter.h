// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only.

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "bpf/abi.h"
#include "bpf/bpf_support.h"
#include "bpf/mapping_table.h"
#include "core/losses.h"
#include "core/result.h"

struct memory_bpf;

namespace stackwatch {

/// The user side of bpf/mappings.bpf.h: what processes map themselves, for those for which it is wanted. A part of the
/// memory engine.
class MappingCounter {
 public:
  /// Of the loaded program; `epoll` becomes readable when events wait.
  [[nodiscard]] Result<void> start(memory_bpf& skeleton, int epoll);
  /// Follows system calls, at a price for every process of the machine, or does not.
  [[nodiscard]] Result<void> follow(bool wanted);
  void drain();
  void forget(uint32_t tgid) { tables_.erase(tgid); }
  /// What it has mapped counts no longer: it executes another program (after drain()), or is not to be asked.
  void clear(uint32_t tgid, uint32_t image);

  /// Bytes that are mapped now, by stack.
  void for_each(const std::function<void(const abi::stack_key&, int64_t bytes)>& visit);
  struct Lost {
    abi::process_id process;
    LossReason reason;
    uint64_t count = 0;
  };
  [[nodiscard]] std::vector<Lost> take_lost() { return std::exchange(lost_, {}); }

 private:
  struct Process {
    uint32_t start_ticks = 0;
    uint32_t image = 0;
    MappingTable table;
  };
  struct RingDeleter {
    void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
  };

  static int take(void* counter, void* data, size_t size);
  void take(const abi::mapping_event& event);
  void lose(const abi::process_id& process, LossReason reason, uint64_t count);

  memory_bpf* skeleton_ = nullptr;
  std::unique_ptr<ring_buffer, RingDeleter> ring_;
  std::vector<BpfLink> links_;
  std::unordered_map<uint32_t, Process> tables_;  // by tgid
  std::vector<Lost> lost_;                        // since the last collect, one entry per process and reason
};

}  // namespace stackwatch
