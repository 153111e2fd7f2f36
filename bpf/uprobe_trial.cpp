// SPDX-License-Identifier: Apache-2.0
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <thread>

#include "bpf/uprobe_links.h"
#include "core/unique_fd.h"
#include "uprobe_trial.skel.h"

// Three functions that do nothing. Of the first two the kernel emulates the first instruction (a nop), through that of
// the third it has to step.
extern "C" {
#if defined(__x86_64__)
__asm__(
    ".pushsection .text\n"
    ".globl stackwatch_trial_entry\n.type stackwatch_trial_entry, @function\n"
    "stackwatch_trial_entry: nop\nret\n.size stackwatch_trial_entry, .-stackwatch_trial_entry\n"
    ".globl stackwatch_trial_return\n.type stackwatch_trial_return, @function\n"
    "stackwatch_trial_return: nop\nret\n.size stackwatch_trial_return, .-stackwatch_trial_return\n"
    ".globl stackwatch_trial_stepped\n.type stackwatch_trial_stepped, @function\n"
    "stackwatch_trial_stepped: xor %eax, %eax\nret\n.size stackwatch_trial_stepped, .-stackwatch_trial_stepped\n"
    ".popsection\n");
void stackwatch_trial_entry();
void stackwatch_trial_return();
void stackwatch_trial_stepped();
#else
[[gnu::noinline]] void stackwatch_trial_entry() { __asm__ volatile("nop" ::: "memory"); }
[[gnu::noinline]] void stackwatch_trial_return() { __asm__ volatile("nop\nnop" ::: "memory"); }
[[gnu::noinline]] void stackwatch_trial_stepped() { __asm__ volatile("nop\nnop\nnop" ::: "memory"); }
#endif
}

namespace stackwatch {
namespace {

/// Enough for a figure within some per cent; takes some milliseconds.
constexpr int kCalls = 1000;

struct Deleter {
  void operator()(uprobe_trial_bpf* skeleton) const { uprobe_trial_bpf__destroy(skeleton); }
};
using Skeleton = std::unique_ptr<uprobe_trial_bpf, Deleter>;

struct Place {
  uint64_t address = 0;
  std::string path;
  uint64_t offset = 0;
};

int locate(dl_phdr_info* info, size_t, void* data) {
  auto& place = *static_cast<Place*>(data);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    const uint64_t start = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type != PT_LOAD || place.address < start || place.address - start >= segment.p_filesz) continue;
    place.path = info->dlpi_name[0] != '\0' ? info->dlpi_name : "/proc/self/exe";
    place.offset = place.address - start + segment.p_offset;
    return 1;
  }
  return 0;
}

using Function = void (*)();
constexpr std::array<Function, 3> kFunctions = {stackwatch_trial_entry, stackwatch_trial_return,
                                                stackwatch_trial_stepped};

double cost_ns(const Clock& clock, Function function) {
  double best = 1e9;  // of three: whatever else the machine does only adds
  for (int round = 0; round < 3; ++round) {
    const uint64_t begun = clock.monotonic_ns();
    for (int i = 0; i < kCalls; ++i) function();
    best = std::min(best, static_cast<double>(clock.monotonic_ns() - begun) / kCalls);
  }
  return best;
}

Result<UprobeTrial> try_way(const Clock& clock, UprobeWay way) {
  const LibbpfMessages messages;
  const Skeleton skeleton(uprobe_trial_bpf__open());
  if (!skeleton) return fail_bpf("try probes on user code", errno, messages);
  if (way == UprobeWay::kMulti) {
    bpf_program__set_expected_attach_type(skeleton->progs.count_entry, BPF_TRACE_UPROBE_MULTI);
    bpf_program__set_expected_attach_type(skeleton->progs.count_return, BPF_TRACE_UPROBE_MULTI);
  }
  if (const int error = uprobe_trial_bpf__load(skeleton.get()); error != 0) {
    return fail_bpf("try probes on user code", error, messages);
  }
  std::vector<UprobePlace> places;
  Place place;
  for (const Function function : kFunctions) {
    place = {reinterpret_cast<uint64_t>(function), {}, 0};
    ::dl_iterate_phdr(locate, &place);
    places.push_back({place.offset, 0});
  }
  const UniqueFd file(::open(place.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail_errno("try probes on user code: open " + place.path, errno);
  auto entries = attach_uprobes(way, {skeleton->progs.count_entry, false, file.get(), ::getpid()}, places);
  if (!entries) return Failure(entries.error());
  auto returns = attach_uprobes(way, {skeleton->progs.count_return, true, file.get(), ::getpid()}, {&places[1], 1});
  if (!returns) return Failure(returns.error());
  std::array<double, 3> cost{};
  std::thread([&] {
    for (size_t i = 0; i < cost.size(); ++i) cost[i] = cost_ns(clock, kFunctions[i]);
  }).join();
  if (skeleton->bss->entries < 9 * kCalls || skeleton->bss->returns < 3 * kCalls) {
    return fail(ErrorKind::kUnsupported, "try probes on user code", "this kernel does not run them in all threads");
  }
  return UprobeTrial{way, cost[0], std::max(0.0, cost[2] - cost[0]), std::max(0.0, cost[1] - cost[0])};
}

}  // namespace

Result<UprobeTrial> try_uprobes(const Clock& clock, bool allow_multi) {
  if (allow_multi) {
    if (auto multi = try_way(clock, UprobeWay::kMulti)) return multi;
  }
  auto perf = try_way(clock, UprobeWay::kPerf);
  if (!perf) {
    Error error = perf.error();
    error.kind = ErrorKind::kUnsupported;
    if (error.hint.empty()) error.hint = "without uprobe_multi (Linux 6.6) probes on user code need CAP_SYS_ADMIN";
    return Failure(error);
  }
  return perf;
}

}  // namespace stackwatch
