// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/allocator.h"
#include "core/clock.h"
#include "core/process.h"
#include "core/result.h"
#include "symbols/worker_process.h"

namespace stackwatch {

/// Object files known at a time, with or without an allocator in them. 200 processes of a busy host have some 300.
inline constexpr size_t kMaxAllocatorFiles = 2048;
/// Processes looked after: more than can be attached.
inline constexpr size_t kMaxFoundProcesses = 4096;
/// A process is looked at again this often: whether code was mapped since (dlopen, the start of a program).
inline constexpr uint64_t kLookAgainNs = 900'000'000;
/// A file that no process has any more is let go of after this time.
inline constexpr uint64_t kKeepFileNs = 30'000'000'000;

/// Where the allocator functions of processes are: in which of their mapped files, at which offsets. Reads mappings on
/// a thread of its own, files in a worker process of its own (stackwatch-symbols), both started at the first watch().
/// All calls on one thread (the loop's); none blocks.
class AllocatorFinder {
 public:
  virtual ~AllocatorFinder() = default;

  /// The one descriptor to poll for reading; valid and the same for the life of the object.
  [[nodiscard]] virtual int fd() const = 0;
  /// Call when fd() is readable and once per tick.
  virtual void dispatch() = 0;

  /// Looks after a process until forget(): its functions come through take(), again whenever code was mapped that has
  /// more. `pid_in_ns` is the pid that the daemon's own /proc shows. Repeated calls look again at once.
  virtual void watch(const ProcessKey& process, int32_t pid_in_ns) = 0;
  virtual void forget(const ProcessKey& process) = 0;
  [[nodiscard]] virtual std::vector<AllocatorFunctions> take() = 0;
  /// Processes whose answer is still to come.
  [[nodiscard]] virtual size_t pending() const = 0;
  /// What a person should know, each once: the worker died, … The caller logs it.
  [[nodiscard]] virtual std::vector<Error> take_events() = 0;
};

struct AllocatorFinderOptions {
  std::string worker_program;              ///< path of stackwatch-symbols; empty means default_symbol_worker()
  std::string proc_root = "/proc";         ///< other in tests
  std::unique_ptr<WorkerSpawner> spawner;  ///< tests play the worker; empty: a process of worker_program
};

/// `clock` outlives it. Must be made, used and destroyed on the same thread: the worker dies with the thread that
/// started it.
[[nodiscard]] Result<std::unique_ptr<AllocatorFinder>> make_allocator_finder(const Clock& clock,
                                                                             AllocatorFinderOptions options = {});

}  // namespace stackwatch
