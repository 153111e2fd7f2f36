// SPDX-License-Identifier: Apache-2.0
#include "detectors/wait_kind.h"

#include <algorithm>
#include <array>

#include "core/kernel_entry.h"

namespace stackwatch {
namespace {

// Names of Linux 5.10 to 6.18 and of glibc. Where several are on one stack the leaf-most decides, so that a page fault
// inside of a condition variable's wait is work.
constexpr std::array<std::string_view, 31> kIdle = {"ep_poll",
                                                    "do_epoll_wait",
                                                    "epoll_wait",
                                                    "epoll_pwait",
                                                    "do_sys_poll",
                                                    "do_poll",
                                                    "poll",
                                                    "ppoll",
                                                    "do_select",
                                                    "select",
                                                    "pselect",
                                                    "core_sys_select",
                                                    "do_nanosleep",
                                                    "hrtimer_nanosleep",
                                                    "nanosleep",
                                                    "clock_nanosleep",
                                                    "common_nsleep",
                                                    "sleep",
                                                    "usleep",
                                                    "inet_csk_accept",
                                                    "accept",
                                                    "accept4",
                                                    "do_wait",
                                                    "wait4",
                                                    "sigtimedwait",
                                                    "do_sigtimedwait",
                                                    "sigsuspend",
                                                    "pause",
                                                    "pthread_cond_wait",
                                                    "pthread_cond_timedwait",
                                                    "pthread_cond_clockwait"};
constexpr std::array<std::string_view, 32> kWork = {"io_schedule",
                                                    "io_schedule_timeout",
                                                    "folio_wait_bit_common",
                                                    "wait_on_page_bit_common",
                                                    "blk_mq_get_tag",
                                                    "rwsem_down_read_slowpath",
                                                    "rwsem_down_write_slowpath",
                                                    "__mutex_lock",
                                                    "mutex_lock",
                                                    "mutex_lock_interruptible",
                                                    "__lll_lock_wait",
                                                    "__lll_lock_wait_private",
                                                    "lll_mutex_lock_optimized",
                                                    "pthread_mutex_lock",
                                                    "pthread_mutex_timedlock",
                                                    "pthread_rwlock_rdlock",
                                                    "pthread_rwlock_wrlock",
                                                    "jbd2_log_wait_commit",
                                                    "wait_on_buffer",
                                                    "fsync",
                                                    "fdatasync",
                                                    "do_fsync",
                                                    "vfs_fsync_range",
                                                    "handle_mm_fault",
                                                    "shrink_node",
                                                    "try_to_free_pages",
                                                    "throttle_direct_reclaim",
                                                    "balance_dirty_pages",
                                                    "rq_qos_wait",
                                                    "mutex_lock_killable",
                                                    "down_read",
                                                    "down_write"};
// What the user side of a lock or of a wait is called; kernel functions are all primitives. glibc has several names for
// one address, and a symbol table gives any of them.
constexpr std::array<std::string_view, 26> kPlumbing = {"futex_wait", "__futex_abstimed_wait_common",
                                                        "syscall",    "__futex_abstimed_wait_common64",
                                                        "read",       "write",
                                                        "pread",      "pwrite",
                                                        "pread64",    "pwrite64",
                                                        "readv",      "writev",
                                                        "preadv",     "pwritev",
                                                        "preadv64",   "pwritev64",
                                                        "preadv2",    "pwritev2",
                                                        "preadv64v2", "pwritev64v2",
                                                        "open",       "open64",
                                                        "msync",      "sync_file_range",
                                                        "syncfs",     "fallocate64"};

/// Without the kernel's mark, what a compiler appended, a symbol version, and the C library's aliases.
std::string_view base_name(std::string_view name) {
  if (is_in_kernel(name)) name.remove_suffix(kKernelSuffix.size());
  return name.substr(0, std::min(name.find('.'), name.find('@')));
}

template <size_t N>
bool is_one_of(const std::array<std::string_view, N>& names, std::string_view name) {
  if (std::ranges::find(names, name) != names.end()) return true;
  for (const std::string_view prefix : {"___", "__GI___", "__libc_", "__GI_", "__"}) {
    if (name.starts_with(prefix) && std::ranges::find(names, name.substr(prefix.size())) != names.end()) return true;
  }
  return false;
}

}  // namespace

WaitKind wait_kind(std::span<const FunctionId> root_first, const FunctionTable& functions) {
  for (size_t i = root_first.size(); i > 0; --i) {
    if (root_first[i - 1].value >= functions.size()) continue;
    const std::string_view name = base_name(functions[root_first[i - 1]].name);
    if (is_one_of(kWork, name)) return WaitKind::kWork;
    if (is_one_of(kIdle, name)) return WaitKind::kIdle;
  }
  return WaitKind::kUnknown;
}

bool is_wait_primitive(std::string_view name) {
  const std::string_view base = base_name(name);
  return is_in_kernel(name) || is_one_of(kIdle, base) || is_one_of(kWork, base) || is_one_of(kPlumbing, base);
}

}  // namespace stackwatch
