// SPDX-License-Identifier: Apache-2.0
#include "detectors/kernel_way.h"

#include <algorithm>
#include <array>

#include "core/kernel_entry.h"
#include "detectors/wait_kind.h"

namespace stackwatch {
namespace {

// Beside those that wait (wait_kind.h), which are asked too.
constexpr std::array<std::string_view, 40> kCalls{
    "accept",   "accept4",  "access",   "bind",      "close",    "connect",     "epoll_ctl", "fcntl",
    "fcntl64",  "fstat",    "fstat64",  "ftruncate", "futex",    "getdents64",  "ioctl",     "lseek",
    "lseek64",  "lstat",    "madvise",  "mmap",      "mmap64",   "mprotect",    "munmap",    "openat",
    "openat64", "recv",     "recvfrom", "recvmsg",   "recvmmsg", "sched_yield", "sem_post",  "sem_wait",
    "send",     "sendfile", "sendmmsg", "sendmsg",   "sendto",   "shutdown",    "stat",      "unlink"};
// How names begin that only the C library, or the Go runtime and its packages for system calls, give to functions.
constexpr std::array<std::string_view, 13> kReserved{"__lll_",
                                                     "lll_",
                                                     "pthread_",
                                                     "__pthread_",
                                                     "___pthread_",
                                                     "__GI_",
                                                     "__libc_",
                                                     "__futex_",
                                                     "futex_",
                                                     "__syscall",
                                                     "syscall.",
                                                     "runtime/internal/syscall.",
                                                     "internal/runtime/syscall."};

bool is_reserved(std::string_view name) {
  return std::ranges::any_of(kReserved, [&](std::string_view beginning) { return name.starts_with(beginning); });
}

std::string_view without_prefix(std::string_view name) {
  for (const std::string_view prefix : {"__GI___", "__GI_", "__libc_", "__"}) {
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  }
  return name;
}

}  // namespace

bool is_way_into_kernel(std::string_view name) {
  if (is_in_kernel(name)) return is_system_call_entry(name);
  const std::string_view base = without_prefix(name.substr(0, name.find('@')));
  return is_wait_primitive(name) || is_reserved(name) || std::ranges::find(kCalls, base) != kCalls.end();
}

std::optional<FunctionId> who_went(std::span<const FunctionId> root_first, size_t at, const FunctionTable& functions) {
  for (size_t i = at + 1; i > 0; --i) {
    const FunctionId id = root_first[i - 1];
    if (id.value >= functions.size()) return std::nullopt;
    const Function& function = functions[id];
    if (is_way_into_kernel(function.name)) continue;
    if (function.name.starts_with('[')) return std::nullopt;
    for (size_t j = at; j >= i; --j) {
      const Function& way = functions[root_first[j]];
      if (way.object == function.object && !is_reserved(way.name)) return root_first[j];
    }
    return id;
  }
  return std::nullopt;
}

}  // namespace stackwatch
