// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/process.h"
#include "daemon/cgroup_cpu.h"

namespace stackwatch {

/// The scheduler's weight of a nice value: 1024 at 0, a quarter more or less per step (sched_prio_to_weight).
[[nodiscard]] double weight_of_nice(int nice);

/// How many CPU cores each process may count on when everybody who is active wants all: by nice value and policy among
/// the tasks of its control group, by weight among the groups at each level, and no more than quotas, cpusets, its
/// affinity and its number of threads allow. What a group cannot use because of its quota is not given to the others:
/// they are entitled to their part, and may use more.
///
/// Cheap: files are read per control group, not per process, of groups with active processes alone, at most
/// kReadsPerTick groups a tick and each at most every kRefreshS.
class Entitlement {
 public:
  /// Opening four files takes about 30 us: 1 ms a tick.
  static constexpr size_t kReadsPerTick = 32;
  static constexpr double kRefreshS = 5;
  /// Groups that are known; of more, those that were not active for longest are forgotten. About 200 bytes each.
  static constexpr size_t kMaxGroups = 2048;
  /// Reads of a process's affinity a tick, 1 us each, and their life.
  static constexpr size_t kAffinityReadsPerTick = 64;
  static constexpr double kAffinityRefreshS = 30;

  struct Sources {
    CgroupFiles cgroups;
    /// How many CPUs the scheduler may put a process on, by the pid of the daemon's own namespace; may be empty.
    std::function<std::optional<unsigned>(int32_t pid_in_ns)> allowed_cpus;
  };
  struct Active {
    const ProcessSample* process = nullptr;
    double cores = 0;  ///< that it uses now
  };
  /// What holds a process back.
  struct Limits {
    std::optional<double> quota_cores;  ///< the tightest of its groups
    double quota_used = 0;              ///< cores that all active processes under that quota use
    double throttled = 0;               ///< part of the last periods in which that group was stopped, 0 to 1
  };

  explicit Entitlement(unsigned cpus) : cpus_(cpus) {}
  Entitlement(unsigned cpus, Sources sources) : cpus_(cpus), sources_(std::move(sources)) {}

  Entitlement(Entitlement&&) = default;  // not copied: it points into itself
  Entitlement& operator=(Entitlement&&) = default;
  ~Entitlement() = default;

  /// Tells who competes in this tick, which ends at `time_s`: who used the CPU or waited for it.
  void begin_tick(double time_s, std::span<const Active> active);
  /// In cores, more than 0. Bounded by the number of threads: one thread can use one core.
  [[nodiscard]] double cores(const ProcessSample& process) const;
  [[nodiscard]] const Limits& limits(const ProcessSample& process) const;
  /// What the scheduler owes it against others in the same group.
  [[nodiscard]] static double weight(const ProcessSample& process);

 private:
  struct Group {
    CgroupCpu cpu;
    double read_s = -1e300;
    double throttled = 0;
    uint64_t active_tick = 0;
    double competing = 0;  // weights of active tasks and groups in it
    double used = 0;       // cores, everything below included
    double share = 0;      // cores that all in it may count on
    unsigned allowed = 0;
  };
  /// What is the same for all in a group; looked up once a tick, since thousands of processes may be in one.
  struct Place {
    const Group* competing = nullptr;
    Limits limits;
  };
  struct Affinity {
    unsigned cpus = 0;
    double read_s = 0;
  };

  void read_groups(double time_s, std::span<const Active> active);
  void read(const std::string& path, Group& group, double time_s) const;
  void read_affinities(double time_s, std::span<const Active> active);
  void share_out();
  /// The nearest group above (or the one itself) that competes as one.
  [[nodiscard]] std::string competing_group(std::string path) const;
  [[nodiscard]] const Group* group(const std::string& path) const;
  [[nodiscard]] const Place& place(const std::string& cgroup) const;
  [[nodiscard]] Limits limits_at(std::string path) const;
  void bound();

  unsigned cpus_;
  Sources sources_;
  std::unordered_map<std::string, Group> groups_;  // by path; "" is the root
  std::unordered_map<ProcessKey, Affinity> affinities_;
  using Places = std::unordered_map<std::string, Place>;
  mutable Places places_;                                   // of this tick, by cgroup as processes have it
  mutable const Places::value_type* last_place_ = nullptr;  // processes that follow each other are often in one
  uint64_t ticks_ = 0;
};

}  // namespace stackwatch
