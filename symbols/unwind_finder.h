// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/ids.h"
#include "core/process.h"
#include "core/result.h"
#include "core/unwind_table.h"
#include "symbols/worker_process.h"

namespace stackwatch {

/// Object files known at a time. 200 processes of a busy host have some 300.
inline constexpr size_t kMaxUnwindFiles = 2048;
inline constexpr size_t kMaxUnwoundProcesses = 4096;
/// Mappings of a process are read again this often at most: one that maps code all the time costs no more.
inline constexpr uint64_t kReadMappingsEveryNs = 1'000'000'000;
/// A file that no process has any more is let go of after this time.
inline constexpr uint64_t kKeepUnwindFileNs = 30'000'000'000;

/// Where the code of processes is mapped, and the unwind tables of their files. Reads mappings on a thread of its own,
/// files in a worker process of its own (stackwatch-symbols), both started at the first watch(). All calls on one
/// thread (the loop's); none blocks.
class UnwindFinder {
 public:
  static constexpr uint32_t kNoFile = 0;
  struct Mapping {
    uint64_t start = 0;
    uint64_t end = 0;
    uint64_t file_offset = 0;
    uint32_t file = kNoFile;  ///< kNoFile: code without a file
    bool settled = true;      ///< false: whether the file has a table is not known yet
  };
  struct Space {
    ProcessKey process;
    ExecId exec;
    std::vector<Mapping> mappings;  ///< ascending
    uint64_t code_bytes = 0;        ///< as the kernel counts them: what can be run and not written
  };
  struct FoundTable {
    uint32_t file = 0;
    UnwindTable table;  ///< no segments: it has none
  };
  struct Found {
    std::vector<FoundTable> tables;  ///< each once, before the spaces that use them
    std::vector<Space> spaces;
    std::vector<uint32_t> dropped;  ///< files that nobody has any more
  };

  virtual ~UnwindFinder() = default;
  /// The one descriptor to poll for reading; valid and the same for the life of the object.
  [[nodiscard]] virtual int fd() const = 0;
  /// Call when fd() is readable and once per tick.
  virtual void dispatch() = 0;
  /// Reads the mappings of a process (again). `exec` is the program that the caller believes it runs.
  virtual void watch(const ProcessKey& process, int32_t pid_in_ns, ExecId exec) = 0;
  virtual void forget(const ProcessKey& process) = 0;
  [[nodiscard]] virtual Found take() = 0;
  /// Processes some of whose files are still looked at.
  [[nodiscard]] virtual size_t pending() const = 0;
  /// What a person should know, each once: the worker died, … The caller logs it.
  [[nodiscard]] virtual std::vector<Error> take_events() = 0;
};

struct UnwindFinderOptions {
  std::string worker_program;              ///< path of stackwatch-symbols; empty means default_symbol_worker()
  std::string proc_root = "/proc";         ///< other in tests
  std::unique_ptr<WorkerSpawner> spawner;  ///< tests play the worker; empty: a process of worker_program
};

/// `clock` outlives it. Must be made, used and destroyed on the same thread: the worker dies with the thread that
/// started it.
[[nodiscard]] Result<std::unique_ptr<UnwindFinder>> make_unwind_finder(const Clock& clock,
                                                                       UnwindFinderOptions options = {});

}  // namespace stackwatch
