// SPDX-License-Identifier: Apache-2.0
#include "detectors/kernel_way.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/kernel_entry.h"
#include "detectors/wait_kind.h"

namespace stackwatch {
namespace {

// Beside those that wait (wait_kind.h), which are asked too.
constexpr auto kCalls = std::to_array<std::string_view>({"access",
                                                         "bind",
                                                         "brk",
                                                         "clock_gettime",
                                                         "close",
                                                         "connect",
                                                         "epoll_ctl",
                                                         "fcntl",
                                                         "fcntl64",
                                                         "fstat",
                                                         "fstat64",
                                                         "fstatat",
                                                         "fstatat64",
                                                         "ftruncate",
                                                         "futex",
                                                         "getdents64",
                                                         "gettid",
                                                         "gettimeofday",
                                                         "ioctl",
                                                         "lseek",
                                                         "lseek64",
                                                         "lstat",
                                                         "madvise",
                                                         "mmap",
                                                         "mmap64",
                                                         "mprotect",
                                                         "mremap",
                                                         "munmap",
                                                         "openat",
                                                         "openat64",
                                                         "readlink",
                                                         "recv",
                                                         "recvfrom",
                                                         "recvmsg",
                                                         "recvmmsg",
                                                         "sbrk",
                                                         "sched_yield",
                                                         "send",
                                                         "sendfile",
                                                         "sendmmsg",
                                                         "sendmsg",
                                                         "sendto",
                                                         "setsockopt",
                                                         "shutdown",
                                                         "sigprocmask",
                                                         "socket",
                                                         "stat",
                                                         "statx",
                                                         "timerfd_settime",
                                                         "unlink",
                                                         "vdso_clock_gettime",
                                                         "vdso_gettimeofday",
                                                         "epoll_pwait2"});
// How the names begin of what no program has functions of its own for: the C library's locks and waits, the packages in
// which Go keeps its system calls.
constexpr auto kReserved = std::to_array<std::string_view>(
    {"__lll_", "pthread_mutex_", "pthread_rwlock_", "pthread_cond_", "pthread_spin_", "pthread_barrier_", "__pthread_",
     "___pthread_", "__new_sem_", "__futex_", "__syscall", "syscall.", "runtime/internal/syscall.",
     "internal/runtime/syscall.", "internal/syscall/", "internal/poll.", "golang.org/x/sys/unix."});
// Whole names of the C library, and of Go's runtime, which does much more than waiting and waking.
constexpr auto kReservedNames = std::to_array<std::string_view>({"lll_mutex_lock_optimized",
                                                                 "lll_mutex_unlock_optimized",
                                                                 "sem_wait",
                                                                 "sem_timedwait",
                                                                 "sem_clockwait",
                                                                 "sem_trywait",
                                                                 "sem_post",
                                                                 "futex_wait",
                                                                 "futex_wake",
                                                                 "futex_abstimed_wait",
                                                                 "futex_abstimed_wait64",
                                                                 "runtime.futex",
                                                                 "runtime.futexsleep",
                                                                 "runtime.futexwakeup",
                                                                 "runtime.notesleep",
                                                                 "runtime.notetsleep",
                                                                 "runtime.notewakeup",
                                                                 "runtime.epollwait",
                                                                 "runtime.netpoll",
                                                                 "runtime.usleep",
                                                                 "runtime.osyield",
                                                                 "runtime.semacquire1",
                                                                 "runtime.semrelease1",
                                                                 "runtime.lock2",
                                                                 "runtime.unlock2",
                                                                 "runtime.madvise",
                                                                 "sync.(*Mutex).lockSlow",
                                                                 "sync.(*Mutex).unlockSlow"});
// One for each system call, and the C of those that programs wait with.
constexpr auto kStubs = std::to_array<std::string_view>(
    {"__x64_sys_", "__ia32_sys_", "__arm64_sys_", "__se_sys_", "__do_sys_", "do_futex"});
constexpr auto kLibraryFiles =
    std::to_array<std::string_view>({"[libc.so", "[libc-2.", "[libpthread", "[ld-musl", "[ld-linux"});
constexpr std::string_view kVdso = "[vdso]";
// Of the C library, at the root of each thread's stack.
constexpr auto kRoots =
    std::to_array<std::string_view>({"__libc_start_main", "__libc_start_call_main", "start_thread", "clone", "clone3"});

bool begins_with_one_of(std::string_view name, std::span<const std::string_view> beginnings) {
  return std::ranges::any_of(beginnings, [&](std::string_view beginning) { return name.starts_with(beginning); });
}

/// Without a symbol version, and the C library's aliases and endings.
std::string_view base_name(std::string_view name) {
  name = name.substr(0, name.find('@'));
  for (const std::string_view prefix : {"__GI___", "__GI_", "__libc_", "___", "__"}) {
    if (!name.starts_with(prefix)) continue;
    name.remove_prefix(prefix.size());
    break;
  }
  constexpr std::string_view kNoCancel = "_nocancel";
  if (name.ends_with(kNoCancel)) name.remove_suffix(kNoCancel.size());
  return name;
}

bool is_reserved(std::string_view name) {
  const std::string_view whole = name.substr(0, name.find('@'));
  return begins_with_one_of(name, kReserved) || std::ranges::find(kReservedNames, whole) != kReservedNames.end();
}

bool is_call(std::string_view name) {
  const std::string_view base = base_name(name);
  return is_wait_primitive(name) || is_wait_primitive(base) || std::ranges::find(kCalls, base) != kCalls.end();
}

/// The build id or path of the C library, where this stack shows it; else empty.
std::string_view library_of(std::span<const FunctionId> root_first, const FunctionTable& functions) {
  constexpr size_t kDeepestRoot = 4;  // clone3, start_thread; _start, __libc_start_main, __libc_start_call_main
  for (const FunctionId id : root_first.first(std::min(root_first.size(), kDeepestRoot))) {
    if (id.value >= functions.size()) break;
    const Function& function = functions[id];
    const std::string_view name = std::string_view(function.name).substr(0, function.name.find('@'));
    const bool is_root = std::ranges::find(kRoots, name) != kRoots.end();
    if (is_root || begins_with_one_of(name, kLibraryFiles)) return function.object;  // stripped, its root has no name
  }
  return {};
}

/// "[file]" is anything in it, "[file]+0x1230" one function.
bool is_named(std::string_view name) { return !name.starts_with('[') || name.find("+0x") != std::string_view::npos; }

bool is_of_library(const Function& function, std::string_view library) {
  return (!library.empty() && function.object == library) || begins_with_one_of(function.name, kLibraryFiles) ||
         function.object == kVdso || function.name.starts_with(kVdso);
}

/// How many frames are left where only the last of them is no way; 0 where all of them are.
size_t nearest(std::span<const FunctionId> root_first, size_t at, const FunctionTable& functions,
               std::string_view library) {
  const auto is_entry = [&](size_t i) {
    return i < root_first.size() && root_first[i].value < functions.size() &&
           is_system_call_entry(functions[root_first[i]].name);
  };
  for (size_t i = at + 1; i > 0; --i) {
    if (root_first[i - 1].value >= functions.size()) return i;
    const Function& function = functions[root_first[i - 1]];
    if (is_of_library(function, library) || is_in_kernel(function.name) || is_reserved(function.name)) continue;
    if (!is_entry(i) || !is_call(function.name)) return i;
  }
  return 0;
}

}  // namespace

bool is_way_into_kernel(std::string_view name) {
  if (is_in_kernel(name)) return is_system_call_entry(name) || begins_with_one_of(name, kStubs);
  return is_reserved(name) || is_call(name);
}

// In a program that is linked statically the library is the program: nobody is left.
std::optional<FunctionId> who_went(std::span<const FunctionId> root_first, size_t at, const FunctionTable& functions) {
  const std::string_view library = library_of(root_first, functions);
  size_t left = nearest(root_first, at, functions, library);
  if (left == 0 && !library.empty()) left = nearest(root_first, at, functions, {});
  if (left == 0) return std::nullopt;
  const FunctionId found = root_first[left - 1];
  if (found.value >= functions.size() || !is_named(functions[found].name)) return std::nullopt;
  return found;
}

}  // namespace stackwatch
