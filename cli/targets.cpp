// SPDX-License-Identifier: Apache-2.0
#include "cli/targets.h"

#include <charconv>
#include <string>

#include "daemon/proc_census.h"

namespace stackwatch {
namespace {

constexpr uint64_t kKernelThreadFlag = 0x00200000;  // PF_KTHREAD

/// The process that a thread belongs to; 0 where that cannot be read.
int32_t process_of(const Procfs& procfs, int32_t pid) {
  const auto status = procfs.read(pid, "status");
  constexpr std::string_view kKey = "\nTgid:\t";
  const size_t at = status ? status->find(kKey) : std::string::npos;
  int32_t process = 0;
  if (at != std::string::npos) {
    std::from_chars(status->data() + at + kKey.size(), status->data() + status->size(), process);
  }
  return process;
}

Result<void> check_pid(const Procfs& procfs, int32_t pid) {
  const std::string what = "process " + std::to_string(pid);
  const auto text = procfs.read(pid, "stat");
  const auto stat = text ? parse_proc_stat(*text) : std::nullopt;
  if (!stat) return fail(what, "there is no such process");
  if (const int32_t process = process_of(procfs, pid); process != 0 && process != pid) {
    return fail(what, "it is a thread of process " + std::to_string(process),
                "processes are counted with all their threads: use -p " + std::to_string(process));
  }
  if ((stat->flags & kKernelThreadFlag) != 0) return fail(what, "it is a thread of the kernel");
  // The leader may have ended while other threads go on.
  if ((stat->state == 'Z' || stat->state == 'X') && stat->threads <= 1) {
    return fail(what, "it has ended already (its parent has not asked for its exit code yet)");
  }
  return {};
}

}  // namespace

Result<void> check_pids(const Procfs& procfs, std::span<const int32_t> pids) {
  for (const int32_t pid : pids) {
    if (auto checked = check_pid(procfs, pid); !checked) return checked;
  }
  return {};
}

}  // namespace stackwatch
