// SPDX-License-Identifier: Apache-2.0
#include "bpf/uprobe_links.h"

#include <bpf/libbpf.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace stackwatch {
namespace {

constexpr const char* kPerfHint =
    "without uprobe_multi (Linux 6.6) it needs CAP_SYS_ADMIN: see perf-uprobes.conf among the package's examples";

// Through our own descriptor: also works for files that are deleted or in another mount namespace.
std::string path_of(int file) { return "/proc/self/fd/" + std::to_string(file); }

BpfLink attach_multi(const UprobeOrder& order, std::span<const UprobePlace> places) {
  std::vector<unsigned long> offsets;
  std::vector<__u64> cookies;
  for (const UprobePlace& place : places) {
    offsets.push_back(static_cast<unsigned long>(place.offset));
    cookies.push_back(place.cookie);
  }
  LIBBPF_OPTS(bpf_uprobe_multi_opts, options);
  options.offsets = offsets.data();
  options.cookies = cookies.data();
  options.cnt = offsets.size();
  options.retprobe = order.at_return;
  return BpfLink(
      bpf_program__attach_uprobe_multi(order.program, order.pid, path_of(order.file).c_str(), nullptr, &options));
}

BpfLink attach_perf(const UprobeOrder& order, const UprobePlace& place) {
  LIBBPF_OPTS(bpf_uprobe_opts, options);
  options.retprobe = order.at_return;
  return BpfLink(bpf_program__attach_uprobe_opts(order.program, order.pid, path_of(order.file).c_str(),
                                                 static_cast<size_t>(place.offset), &options));
}

}  // namespace

Result<UprobeLinks> attach_uprobes(UprobeWay way, const UprobeOrder& order, std::span<const UprobePlace> places) {
  UprobeLinks result;
  if (places.empty()) return result;
  const LibbpfMessages messages;
  if (way == UprobeWay::kMulti) {
    if (BpfLink all = attach_multi(order, places)) {
      result.links.push_back(std::move(all));
      return result;
    }
    // One bad place refuses all of them; a process that is gone refuses each.
    result.gone = errno == ESRCH;
    if (result.gone) return result;
  }
  int error = 0;
  for (const UprobePlace& place : places) {
    BpfLink link = way == UprobeWay::kMulti ? attach_multi(order, {&place, 1}) : attach_perf(order, place);
    if (link) {
      result.links.push_back(std::move(link));
      continue;
    }
    error = errno;
    if (error == ESRCH) return UprobeLinks{{}, {}, true};
    result.refused.push_back(place.offset);
  }
  if (result.links.empty()) {
    Failure refusal = fail_bpf("attach probes to an allocator", error, messages);
    if (way == UprobeWay::kPerf && (error == EACCES || error == EPERM)) refusal.value().hint = kPerfHint;
    return refusal;
  }
  return result;
}

}  // namespace stackwatch
