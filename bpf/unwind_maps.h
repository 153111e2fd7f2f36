// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/ids.h"
#include "core/process.h"
#include "core/result.h"
#include "core/unique_fd.h"
#include "core/unwind_table.h"

namespace stackwatch {

class UnwindWriter;

/// Memory of all tables together. The 300 objects of a busy host come to some 20 MB, a large browser to 16 MB.
inline constexpr uint64_t kMaxUnwindMapBytes = 96U << 20;

/// One executable mapping of a process, as the kernel side is told of it.
struct UnwindMapping {
  enum class Kind : uint8_t { kByFrame, kByTable, kPending };
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t base = 0;   ///< kByTable: address in the table = address - base
  uint32_t table = 0;  ///< kByTable: from add_table()
  Kind kind = Kind::kByFrame;
};

/// The maps that stacks are unwound with, shared by all engines: tables of objects, and which process has which where.
/// Engines say which processes are attached; whoever knows their mappings (daemon/unwinding.h) fills in the rest.
/// Empty it takes 128 kB. One thread.
class UnwindMaps {
 public:
  /// Errors: as check_bpf_possible(); kUnsupported where the kernel has no maps of maps of different sizes (5.10).
  static Result<std::shared_ptr<UnwindMaps>> create();
  ~UnwindMaps();
  UnwindMaps(const UnwindMaps&) = delete;
  UnwindMaps& operator=(const UnwindMaps&) = delete;

  [[nodiscard]] int spaces_fd() const;
  [[nodiscard]] int tables_fd() const;

  // For engines.
  struct Place {
    uint32_t space = 0;  ///< as in watched_process; 0 where there is no room
    uint32_t generation = 0;
  };
  /// One more attachment of the process. `exec`: the program that it ran when it was looked at; its mappings serve no
  /// other. 0 where that is not known: then they serve whatever it runs until they are read again.
  Place use(const ProcessKey& process, int32_t pid_in_ns, ExecId exec);
  void release(const ProcessKey& process);
  /// What the kernel side tells: the program that it saw last, and whether code was met in no known mapping.
  void seen(const ProcessKey& process, uint64_t exec_id, bool missed);

  // For whoever knows mappings.
  struct Wanted {
    ProcessKey process;
    int32_t pid_in_ns = 0;
    ExecId exec;  ///< 0: not known yet
  };
  /// Readable while take_wanted() has something: a process is attached in the midst of a tick, and its stacks are
  /// incomplete until its mappings have been read.
  [[nodiscard]] int wanted_fd() const { return wanted_event_.get(); }
  /// Processes whose mappings are to be read (again), each once.
  [[nodiscard]] std::vector<Wanted> take_wanted();
  [[nodiscard]] std::vector<ProcessKey> take_released() { return std::exchange(released_, {}); }
  /// Its number. Error: no room.
  [[nodiscard]] Result<uint32_t> add_table(std::span<const UnwindRow> rows);
  void drop_table(uint32_t table);
  /// Replaces what is known of a process, at once. `mappings` ascend and do not overlap; those beyond
  /// abi::kUnwindMostMappings are left out. `code_bytes`: what it has mapped that can be run and not written; when that
  /// is no longer so the mappings are wanted again (code at an address that had other code before). 0: not known.
  /// Nothing happens where the process is not attached.
  Result<void> set_space(const ProcessKey& process, ExecId exec, std::span<const UnwindMapping> mappings,
                         uint64_t code_bytes = 0);

  /// Until all that was changed is in force; else within some ten milliseconds.
  void wait_until_written();
  [[nodiscard]] uint64_t map_bytes() const { return map_bytes_; }
  [[nodiscard]] size_t tables() const { return table_sizes_.size(); }

 private:
  struct Space {
    uint32_t slot = 0;
    uint32_t generation = 0;
    uint32_t users = 0;
    int32_t pid_in_ns = 0;
    uint64_t exec_id = 0;  ///< of the last set_space() or request
    uint64_t bytes = 0;
  };
  struct Table {
    uint64_t bytes = 0;
    uint16_t depth = 0;
  };

  UnwindMaps() = default;
  void want(Wanted wanted);

  std::unique_ptr<UnwindWriter> writer_;
  std::unordered_map<ProcessKey, Space> by_process_;
  std::deque<uint32_t> free_slots_;
  std::deque<uint32_t> free_tables_;
  std::unordered_map<uint32_t, Table> table_sizes_;
  uint32_t generations_ = 0;
  uint64_t map_bytes_ = 0;
  std::vector<Wanted> wanted_;
  UniqueFd wanted_event_;
  std::vector<ProcessKey> released_;
};

}  // namespace stackwatch
