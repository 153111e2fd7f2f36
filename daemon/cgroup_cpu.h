// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace stackwatch {

/// What a control group may use of the machine's CPUs, as its files say.
struct CgroupCpu {
  /// In the scheduler's units, where one task of nice 0 has 1024 (v2: cpu.weight 100; v1: cpu.shares 1024). Nothing
  /// where the group has no CPU controller: its tasks compete in the next group above that has one.
  std::optional<double> weight;
  std::optional<double> quota_cores;     ///< cpu.max, cpu.cfs_quota_us; nothing where there is no limit
  std::optional<unsigned> allowed_cpus;  ///< cpuset.cpus.effective
  uint64_t periods = 0;                  ///< cpu.stat: periods in which it ran under a quota
  uint64_t throttled_periods = 0;        ///< and those of them in which it was stopped
};

/// Reads the files of control groups. Works on v2 (unified), v1 and the two mixed. Whatever cannot be read is nothing;
/// what cannot be understood is nothing too.
class CgroupFiles {
 public:
  /// `root` is /sys/fs/cgroup, or a made-up tree in tests. Empty: there are none.
  explicit CgroupFiles(std::string root = "");
  /// `path` is below the hierarchy's root, e.g. /system.slice/redis.service. Opens at most four files, each read once
  /// and up to 4 kB; about 30 us.
  [[nodiscard]] CgroupCpu read(const std::string& path) const;
  [[nodiscard]] bool exist() const { return !cpu_.empty(); }

 private:
  [[nodiscard]] std::optional<std::string> file(const std::string& base, const std::string& path,
                                                std::string_view name) const;
  std::string cpu_;     // where cpu.* are
  std::string cpuset_;  // where cpuset.* are
  bool v2_ = false;
};

/// Number of CPUs in a list such as "0-3,8"; nothing where it is none.
[[nodiscard]] std::optional<unsigned> count_cpu_list(std::string_view list);

}  // namespace stackwatch
