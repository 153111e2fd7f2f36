// SPDX-License-Identifier: Apache-2.0
// The worker's system call filter (seccomp_filter in Documentation/userspace-api of Linux), as a list of rules that is
// turned into classic BPF.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "symbols/worker/sandbox.h"

namespace stackwatch {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "which AUDIT_ARCH_ is this?"
#endif

/// Reading and answering; memory; what malloc, libelf and a C library at its end call.
constexpr std::array kAllowed{SYS_read,           SYS_pread64,      SYS_write,        SYS_writev,
                              SYS_close,          SYS_lseek,        SYS_recvmsg,      SYS_sendmsg,
                              SYS_fcntl,          SYS_dup,          SYS_memfd_create, SYS_ftruncate,
                              SYS_munmap,         SYS_mremap,       SYS_brk,          SYS_madvise,
                              SYS_futex,          SYS_exit,         SYS_getrandom,    SYS_fstat,
                              SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_setitimer,    SYS_clock_gettime,
                              SYS_getpid,         SYS_gettid,       SYS_sysinfo,      SYS_restart_syscall,
                              SYS_exit_group};
/// Tried by libraries that do without: libdw looks for dwz's files, glibc for the number of processors.
constexpr std::array kRefused {
  SYS_openat, SYS_readlinkat, SYS_faccessat, SYS_ioctl, SYS_prlimit64, SYS_sched_getaffinity,
#if defined(__x86_64__)
      SYS_open, SYS_readlink, SYS_access, SYS_stat,
#endif
};
/// Memory, but never code: the protection is their third argument.
constexpr std::array kWithoutCode{SYS_mmap, SYS_mprotect};

constexpr uint32_t kNumberAt = offsetof(seccomp_data, nr);
constexpr uint32_t kArchitectureAt = offsetof(seccomp_data, arch);
/// The low half of an argument: what is looked at fits it, and both machines are little-endian.
constexpr uint32_t argument_at(uint32_t index) { return offsetof(seccomp_data, args) + index * 8; }

sock_filter load(uint32_t at) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at); }
sock_filter answer(uint32_t action) { return BPF_STMT(BPF_RET | BPF_K, action); }
/// Skips so many instructions unless the value is equal.
sock_filter unless_equal(uint32_t value, uint8_t skip) { return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip); }

std::vector<sock_filter> make_program() {
  static constexpr uint32_t kPermit = SECCOMP_RET_ALLOW;
  static constexpr uint32_t kRefuse = SECCOMP_RET_ERRNO | EPERM;
  std::vector<sock_filter> program{load(kArchitectureAt), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
                                   answer(SECCOMP_RET_KILL_PROCESS), load(kNumberAt)};
  const auto add = [&program](long number, uint32_t action) {
    program.push_back(unless_equal(static_cast<uint32_t>(number), 1));
    program.push_back(answer(action));
  };
  for (const long number : kAllowed) add(number, kPermit);
  for (const long number : kRefused) add(number, kRefuse);
  for (const long number : kWithoutCode) {
    program.push_back(unless_equal(static_cast<uint32_t>(number), 4));
    program.push_back(load(argument_at(2)));
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1));
    program.push_back(answer(SECCOMP_RET_KILL_PROCESS));
    program.push_back(answer(kPermit));
  }
  // fstat() of glibc: of an open file, not of a path.
  program.push_back(unless_equal(SYS_newfstatat, 4));
  program.push_back(load(argument_at(3)));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, AT_EMPTY_PATH, 0, 1));
  program.push_back(answer(kPermit));
  program.push_back(answer(kRefuse));
  program.push_back(answer(SECCOMP_RET_KILL_PROCESS));
  return program;
}

}  // namespace

Result<void> filter_system_calls() {
  std::vector<sock_filter> program = make_program();
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0) {
    return fail_errno("confine the worker's system calls", errno, "the kernel needs CONFIG_SECCOMP_FILTER");
  }
  return {};
}

}  // namespace stackwatch
