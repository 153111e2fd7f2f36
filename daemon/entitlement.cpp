// SPDX-License-Identifier: Apache-2.0
#include "daemon/entitlement.h"

#include <algorithm>
#include <cmath>

namespace stackwatch {
namespace {

bool is_real_time(SchedulingPolicy policy) {
  return policy == SchedulingPolicy::kFifo || policy == SchedulingPolicy::kRoundRobin ||
         policy == SchedulingPolicy::kDeadline;
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

/// "/" and "" are both the root.
std::string normal(const std::string& path) { return path == "/" ? "" : path; }

}  // namespace

double weight_of_nice(int nice) { return 1024.0 * std::pow(1.25, -std::clamp(nice, -20, 19)); }

double Entitlement::weight(const ProcessSample& process) {
  constexpr double kIdleWeight = 3;  // WEIGHT_IDLEPRIO
  if (process.policy == SchedulingPolicy::kIdle) return kIdleWeight;
  return weight_of_nice(process.nice);
}

void Entitlement::begin_tick(double time_s, std::span<const Active> active) {
  ++ticks_;
  places_.clear();
  last_place_ = nullptr;
  for (auto& [path, group] : groups_) group.competing = group.used = 0;
  read_groups(time_s, active);
  read_affinities(time_s, active);
  for (const Active& one : active) {
    groups_[competing_group(normal(one.process->cgroup))].competing += weight(*one.process);
    for (std::string path = normal(one.process->cgroup);; path = parent_of(path)) {
      if (const auto found = groups_.find(path); found != groups_.end()) found->second.used += one.cores;
      if (path.empty()) break;
    }
  }
  share_out();
  bound();
}

// Groups that nobody read yet come first, then those read longest ago.
void Entitlement::read_groups(double time_s, std::span<const Active> active) {
  groups_[""].active_tick = ticks_;
  std::vector<std::pair<double, std::string>> due;
  for (const Active& one : active) {
    for (std::string path = normal(one.process->cgroup); !path.empty(); path = parent_of(path)) {
      Group& group = groups_[path];
      if (group.active_tick == ticks_) break;  // and so are all above it
      group.active_tick = ticks_;
      if (time_s - group.read_s >= kRefreshS) due.emplace_back(group.read_s, path);
    }
  }
  if (!sources_.cgroups.exist()) return;
  const size_t count = std::min(due.size(), kReadsPerTick);
  std::ranges::partial_sort(due, due.begin() + static_cast<std::ptrdiff_t>(count));
  for (size_t i = 0; i < count; ++i) read(due[i].second, groups_[due[i].second], time_s);
}

void Entitlement::read(const std::string& path, Group& group, double time_s) const {
  const CgroupCpu before = group.cpu;
  group.cpu = sources_.cgroups.read(path);
  const bool is_first = group.read_s < 0;
  group.read_s = time_s;
  const CgroupCpu& now = group.cpu;
  const bool forward = now.periods > before.periods && now.throttled_periods >= before.throttled_periods;
  group.throttled = is_first || !forward
                        ? 0
                        : std::min(1.0, static_cast<double>(now.throttled_periods - before.throttled_periods) /
                                            static_cast<double>(now.periods - before.periods));
}

void Entitlement::read_affinities(double time_s, std::span<const Active> active) {
  if (!sources_.allowed_cpus) return;
  size_t reads = 0;
  for (const Active& one : active) {
    if (reads >= kAffinityReadsPerTick) break;
    const auto found = affinities_.find(one.process->key);
    if (found != affinities_.end() && time_s - found->second.read_s < kAffinityRefreshS) continue;
    ++reads;
    affinities_[one.process->key] = {sources_.allowed_cpus(one.process->pid_in_ns).value_or(cpus_), time_s};
  }
  std::erase_if(affinities_, [&](const auto& entry) { return time_s - entry.second.read_s > 2 * kAffinityRefreshS; });
}

std::string Entitlement::competing_group(std::string path) const {
  while (!path.empty()) {
    const auto found = groups_.find(path);
    if (found != groups_.end() && found->second.cpu.weight) return path;
    path = parent_of(path);
  }
  return path;
}

const Entitlement::Group* Entitlement::group(const std::string& path) const {
  const auto found = groups_.find(path);
  return found == groups_.end() ? nullptr : &found->second;
}

// From the root down: parents have shorter paths than what is in them.
void Entitlement::share_out() {
  std::vector<std::pair<std::string, Group*>> order;
  for (auto& [path, group] : groups_) {
    if (group.active_tick == ticks_) order.emplace_back(path, &group);
  }
  std::ranges::sort(order, [](const auto& a, const auto& b) {
    return a.first.size() != b.first.size() ? a.first.size() < b.first.size() : a.first < b.first;
  });
  for (const auto& [path, group] : order) {
    if (!path.empty() && group->cpu.weight) groups_[competing_group(parent_of(path))].competing += *group->cpu.weight;
  }
  for (const auto& [path, group] : order) {
    group->share = group->allowed = cpus_;
    if (path.empty()) continue;
    const Group& above = *this->group(competing_group(parent_of(path)));
    group->share = above.share;
    group->allowed = above.allowed;
    if (group->cpu.weight) group->share *= *group->cpu.weight / std::max(above.competing, *group->cpu.weight);
    if (group->cpu.allowed_cpus) group->allowed = std::min(group->allowed, std::max(1U, *group->cpu.allowed_cpus));
    group->share =
        std::min({group->share, static_cast<double>(group->allowed), group->cpu.quota_cores.value_or(cpus_)});
  }
}

double Entitlement::cores(const ProcessSample& process) const {
  const Place& place = this->place(process.cgroup);
  const auto affinity = affinities_.find(process.key);
  double most = std::min<double>(cpus_, std::max(1U, process.threads));
  if (affinity != affinities_.end()) most = std::min<double>(most, std::max(1U, affinity->second.cpus));
  const Group* group = place.competing;
  const bool is_known = group != nullptr && group->active_tick == ticks_;
  if (is_known) most = std::min<double>(most, group->allowed);
  // Real-time threads go before everybody else, and CFS quotas are not for them.
  if (is_real_time(process.policy)) return most;
  if (place.limits.quota_cores) most = std::min(most, *place.limits.quota_cores);
  const double own = weight(process);
  const double share = is_known ? group->share : cpus_;
  const double competing = is_known ? group->competing : own;
  return std::max(1e-3, std::min(share * own / std::max(competing, own), most));
}

const Entitlement::Limits& Entitlement::limits(const ProcessSample& process) const {
  return place(process.cgroup).limits;
}

const Entitlement::Place& Entitlement::place(const std::string& cgroup) const {
  if (last_place_ != nullptr && last_place_->first == cgroup) return last_place_->second;
  const auto [entry, is_new] = places_.try_emplace(cgroup);
  if (is_new) entry->second = {group(competing_group(normal(cgroup))), limits_at(normal(cgroup))};
  last_place_ = &*entry;
  return entry->second;
}

Entitlement::Limits Entitlement::limits_at(std::string path) const {
  Limits out;
  for (; !path.empty(); path = parent_of(path)) {
    const Group* group = this->group(path);
    if (group == nullptr || !group->cpu.quota_cores) continue;
    if (out.quota_cores && *out.quota_cores <= *group->cpu.quota_cores) continue;
    out.quota_cores = group->cpu.quota_cores;
    out.quota_used = group->used;
    out.throttled = group->throttled;
  }
  return out;
}

void Entitlement::bound() {
  if (groups_.size() <= kMaxGroups) return;
  std::erase_if(groups_, [this](const auto& entry) { return entry.second.active_tick != ticks_; });
}

}  // namespace stackwatch
