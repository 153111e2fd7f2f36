// SPDX-License-Identifier: Apache-2.0
#include "bpf/bpf_support.h"

#include <bpf/bpf.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <string>

namespace stackwatch {
namespace {

constexpr const char* kBtfPath = "/sys/kernel/btf/vmlinux";
constexpr const char* kPrivilegeHint = "run as root, or grant CAP_BPF and CAP_PERFMON";

thread_local std::string last_warning;  // libbpf's callback has no context argument

int keep_message(libbpf_print_level level, const char* format, va_list arguments) {
  if (level != LIBBPF_WARN) return 0;
  std::array<char, 512> line{};
  const int length = std::vsnprintf(line.data(), line.size(), format, arguments);
  if (length <= 0) return 0;
  last_warning.assign(line.data());
  while (!last_warning.empty() && last_warning.back() == '\n') last_warning.pop_back();
  for (char& c : last_warning) {
    if (c == '\n') c = ' ';
  }
  return 0;
}

}  // namespace

LibbpfMessages::LibbpfMessages() {
  last_warning.clear();
  libbpf_set_print(keep_message);
}

LibbpfMessages::~LibbpfMessages() { last_warning.clear(); }

std::string LibbpfMessages::last() const { return last_warning; }

Result<void> check_bpf_possible() {
  if (access(kBtfPath, R_OK) != 0) {
    return fail(ErrorKind::kUnsupported, "use BPF", std::string(kBtfPath) + " is missing",
                "the kernel must be built with CONFIG_DEBUG_INFO_BTF=y, as distributions' kernels from 5.10 on are");
  }
  // The cheapest thing that needs the privilege: a map of one element.
  const int map = bpf_map_create(BPF_MAP_TYPE_HASH, "sw_check", 4, 4, 1, nullptr);
  if (map < 0) {
    if (errno == ENOSYS) {
      return fail(ErrorKind::kUnsupported, "use BPF", "the kernel has no bpf system call or it is filtered",
                  "in a container, allow bpf and perf_event_open in the seccomp profile");
    }
    return fail(ErrorKind::kUnsupported, "use BPF", errno == EPERM ? "not permitted" : strerrordesc_np(errno),
                kPrivilegeHint);
  }
  close(map);
  return {};
}

Failure fail_bpf(std::string what, int error_number, const LibbpfMessages& messages) {
  const int number = error_number < 0 ? -error_number : error_number;
  std::string why = strerrordesc_np(number) != nullptr ? strerrordesc_np(number) : std::to_string(number);
  if (const std::string words = messages.last(); !words.empty()) why += "; " + words;
  // The verifier says EACCES too; that the privileges suffice was checked before anything was loaded.
  const bool denied = number == EPERM;
  const bool missing = number == EACCES || number == ENOTSUP || number == ESRCH || number == EINVAL;
  return fail(denied || missing ? ErrorKind::kUnsupported : ErrorKind::kFailed, std::move(what), std::move(why),
              denied ? kPrivilegeHint : "this kernel does not take the program");
}

bool set_sizes(std::initializer_list<MapSize> sizes) {
  for (const MapSize& size : sizes) {
    if (bpf_map__set_max_entries(size.map, size.entries) != 0) return false;
  }
  return true;
}

Result<UniqueFd> make_epoll() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno("make an epoll instance", errno);
  return epoll;
}

uint64_t map_memory_bytes(int map_fd) {
  std::ifstream info("/proc/self/fdinfo/" + std::to_string(map_fd));
  std::string key;
  while (info >> key) {
    uint64_t value = 0;
    if (key == "memlock:" && info >> value) return value;
    info.ignore(256, '\n');
  }
  return 0;
}

ProgramStatistics program_statistics(int program_fd) {
  bpf_prog_info info{};
  uint32_t size = sizeof(info);
  if (bpf_prog_get_info_by_fd(program_fd, &info, &size) != 0) return {};
  return {.runs = info.run_cnt, .run_ns = info.run_time_ns, .recursion_misses = info.recursion_misses};
}

}  // namespace stackwatch
