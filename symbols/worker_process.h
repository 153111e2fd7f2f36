// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// How a worker ended.
struct WorkerExit {
  bool by_signal = false;
  int code = 0;  ///< the signal, or the exit status
};

/// A running worker: its process and our end of the socket pair.
struct WorkerProcess {
  pid_t pid = 0;    ///< 0 in tests where the worker is no process
  UniqueFd socket;  ///< SOCK_SEQPACKET, non-blocking
  UniqueFd pidfd;   ///< readable when the process has ended; none where the kernel has no pidfd_open
};

/// Starts workers. A seam for tests, which play the worker themselves.
class WorkerSpawner {
 public:
  virtual ~WorkerSpawner() = default;
  [[nodiscard]] virtual Result<WorkerProcess> spawn() = 0;
};

/// Starts the program: with empty standard input and output, our standard error, default signals, the socket at
/// descriptor 3, and nothing in its environment but what the dynamic loader and the sanitizers read.
[[nodiscard]] std::unique_ptr<WorkerSpawner> make_program_spawner(std::string program);

}  // namespace stackwatch
