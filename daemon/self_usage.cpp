// SPDX-License-Identifier: Apache-2.0
#include "daemon/self_usage.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "daemon/proc_census.h"

namespace stackwatch {
namespace {

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

}  // namespace

void SelfUsage::observe(double time_s, pid_t worker) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  if (worker != worker_) {
    ended_workers_s_ += worker_s_;
    worker_s_ = 0;
    worker_ = worker;
  }
  if (worker > 0) {
    const auto text = procfs_.read(worker, "stat");
    const auto stat = text ? parse_proc_stat(*text) : std::nullopt;
    if (stat) worker_s_ = static_cast<double>(stat->cpu_ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  points_.push_back({time_s, seconds(usage.ru_utime) + seconds(usage.ru_stime) + ended_workers_s_ + worker_s_});
  while (points_.size() > 2 && points_.front().time_s < time_s - kWindowS) points_.pop_front();
}

double SelfUsage::cpu_share(double seconds) const {
  if (points_.size() < 2) return 0;
  const Point& now = points_.back();
  const auto then = std::ranges::find_if(points_, [&](const Point& p) { return p.time_s >= now.time_s - seconds; });
  const double passed_s = now.time_s - then->time_s;
  return passed_s > 0 ? (now.cpu_s - then->cpu_s) / passed_s : 0;
}

uint64_t SelfUsage::resident_bytes() const { return resident_bytes_of(getpid()); }

uint64_t SelfUsage::resident_bytes_of(pid_t pid) const {
  if (pid <= 0) return 0;
  const auto statm = procfs_.read(pid, "statm", 256);  // "SIZE RESIDENT …", in pages
  if (!statm) return 0;
  const size_t blank = statm->find(' ');
  uint64_t pages = 0;
  if (blank != statm->npos) std::from_chars(statm->data() + blank + 1, statm->data() + statm->size(), pages);
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

uint64_t SelfUsage::open_fds() const {
  DIR* dir = opendir((procfs_.root() + "/self/fd").c_str());
  if (dir == nullptr) return 0;
  uint64_t entries = 0;
  while (readdir(dir) != nullptr) ++entries;
  closedir(dir);
  return entries - std::min<uint64_t>(entries, 3);  // ".", ".." and the directory itself
}

}  // namespace stackwatch
