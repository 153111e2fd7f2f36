// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>

#include "daemon/procfs.h"

namespace stackwatch {

/// What the daemon and its symbol worker use themselves.
class SelfUsage {
 public:
  static constexpr double kWindowS = 60;

  explicit SelfUsage(Procfs procfs) : procfs_(std::move(procfs)) {}

  /// Once per tick. `worker` is 0 where none runs.
  void observe(double time_s, pid_t worker);
  /// CPU time of both over about the last minute, as a share of one core.
  [[nodiscard]] double cpu_share() const { return cpu_share(kWindowS); }
  /// The same over the last `seconds`, at most kWindowS.
  [[nodiscard]] double cpu_share(double seconds) const;
  [[nodiscard]] uint64_t resident_bytes() const;
  [[nodiscard]] uint64_t resident_bytes_of(pid_t pid) const;
  [[nodiscard]] uint64_t open_fds() const;

 private:
  struct Point {
    double time_s = 0;
    double cpu_s = 0;
  };
  Procfs procfs_;
  std::deque<Point> points_;
  pid_t worker_ = 0;
  double ended_workers_s_ = 0;  // CPU time of workers that have been replaced
  double worker_s_ = 0;
};

}  // namespace stackwatch
