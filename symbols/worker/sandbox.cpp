// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/sandbox.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace stackwatch {
namespace {

constexpr uid_t kNobody = 65534;
/// The first descriptor after the standard ones and the socket: nothing the daemon may have left open is kept.
constexpr unsigned kFirstUnneededFd = 4;

#ifdef STACKWATCH_SANITIZED
constexpr bool kHugeShadowMemory = true;  // the sanitizers reserve terabytes of address space
#else
constexpr bool kHugeShadowMemory = false;
#endif

void limit(__rlimit_resource resource, rlim_t most) {
  rlimit value{};
  if (::getrlimit(resource, &value) != 0) return;
  if (value.rlim_max != RLIM_INFINITY && value.rlim_max < most) most = value.rlim_max;
  value = {most, most};
  ::setrlimit(resource, &value);
}

void drop_capabilities_for_good() {
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability) {
    ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);  // needs CAP_SETPCAP; without it there is nothing to gain anyway
  }
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

Result<void> drop_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capset, &header, none) != 0) return fail_errno("drop the worker's capabilities", errno);
  return {};
}

void become_nobody() {
  if (::geteuid() != 0) return;
  // In a user namespace nobody may not exist. Root without capabilities is then what is left, and has no more power
  // over files than the owner of root's files has.
  const auto as_far_as_possible = [](int) {};
  as_far_as_possible(::setgroups(0, nullptr));
  as_far_as_possible(::setresgid(kNobody, kNobody, kNobody));
  as_far_as_possible(::setresuid(kNobody, kNobody, kNobody));
}

}  // namespace

Result<void> enter_sandbox() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("forbid the worker new privileges", errno);
  ::syscall(SYS_close_range, kFirstUnneededFd, ~0U, 0);  // best effort: everything is close-on-exec already
  drop_capabilities_for_good();                          // before the change of user takes CAP_SETPCAP away
  become_nobody();
  if (auto dropped = drop_capabilities(); !dropped) return dropped;
  limit(RLIMIT_NOFILE, kWorkerOpenFiles);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_FSIZE, kWorkerFileBytes);
  if (!kHugeShadowMemory) limit(RLIMIT_AS, kWorkerAddressSpaceBytes);
  // After the change of user, which resets both.
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (kHugeShadowMemory) return {};
  return filter_system_calls();
}

}  // namespace stackwatch
