// SPDX-License-Identifier: Apache-2.0
#include "bpf/mapping_counter.h"

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "memory.skel.h"

namespace stackwatch {

Result<void> MappingCounter::start(memory_bpf& skeleton, int epoll) {
  const LibbpfMessages messages;
  skeleton_ = &skeleton;
  skeleton.data->number_mmap = SYS_mmap;
  skeleton.data->number_munmap = SYS_munmap;
  skeleton.data->number_mremap = SYS_mremap;
  skeleton.data->page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  ring_.reset(ring_buffer__new(bpf_map__fd(skeleton.maps.mapping_events), take, this, nullptr));
  if (!ring_) return fail_bpf("read the ring buffer of mappings", errno, messages);
  epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, ring_buffer__epoll_fd(ring_.get()), &event) != 0) {
    return fail_errno("poll the ring buffer of mappings", errno);
  }
  return {};
}

Result<void> MappingCounter::follow(bool wanted) {
  if (wanted == !links_.empty()) return {};
  links_.clear();
  if (!wanted) return {};
  const LibbpfMessages messages;
  // The end first: a call that nobody saw begin is nothing to it.
  for (const bpf_program* program : {skeleton_->progs.leave_call, skeleton_->progs.enter_call}) {
    BpfLink link(bpf_program__attach(program));
    if (!link) {
      const int error = errno;
      links_.clear();
      return fail_bpf("follow mmap, munmap and mremap", error, messages);
    }
    links_.push_back(std::move(link));
  }
  return {};
}

void MappingCounter::drain() {
  if (ring_) ring_buffer__consume(ring_.get());
}

int MappingCounter::take(void* counter, void* data, size_t size) {
  abi::mapping_event event;
  if (size < sizeof(event)) return 0;
  std::memcpy(&event, data, sizeof(event));
  static_cast<MappingCounter*>(counter)->take(event);
  return 0;
}

void MappingCounter::take(const abi::mapping_event& event) {
  Process& process = tables_[event.key.process.tgid];
  if (process.start_ticks != event.key.process.start_ticks) process = {event.key.process.start_ticks, event.image, {}};
  if (std::exchange(process.image, event.image) != event.image) process.table.clear();
  switch (event.kind) {
    case abi::kMappingEntered: {
      uint64_t replaced = 0;
      const bool entered = process.table.enter(event.address, event.length, event.key.hash, replaced);
      if (!entered) lose(event.key.process, LossReason::kMapFull, event.length);
      if (replaced > 0 && (event.flags & abi::kMappingFixed) == 0) lose(event.key.process, LossReason::kMissedFree, 1);
      break;
    }
    case abi::kMappingLeaving:
      // A part that is not known may be one that is not mapped, which is nothing wrong.
      if (process.table.leave(event.thread, event.address, event.length) == 0 &&
          (event.flags & abi::kMappingOwnFree) == 0) {
        lose(event.key.process, LossReason::kUnknownFree, 1);
      }
      break;
    case abi::kMappingLeft:
      process.table.left(event.thread);
      break;
    case abi::kMappingStays:
      process.table.stays(event.thread);
      break;
    default:
      break;
  }
}

void MappingCounter::clear(uint32_t tgid, uint32_t image) {
  const auto found = tables_.find(tgid);
  if (found == tables_.end() || found->second.image == image) return;
  found->second.image = image;
  found->second.table.clear();
}

void MappingCounter::lose(const abi::process_id& process, LossReason reason, uint64_t count) {
  const auto same = std::ranges::find_if(lost_, [&](const Lost& lost) {
    return lost.process.tgid == process.tgid && lost.process.start_ticks == process.start_ticks &&
           lost.reason == reason;
  });
  if (same != lost_.end()) {
    same->count += count;
  } else {
    lost_.push_back({process, reason, count});
  }
}

void MappingCounter::for_each(const std::function<void(const abi::stack_key&, int64_t bytes)>& visit) {
  for (auto& [tgid, process] : tables_) {
    for (const auto& [hash, bytes] : process.table.bytes()) visit({{tgid, process.start_ticks}, hash}, bytes);
    process.table.drop_empty();
  }
}

}  // namespace stackwatch
