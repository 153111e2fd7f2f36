// SPDX-License-Identifier: Apache-2.0
// How the program of a StackEngine gets into the kernel: at once, or beside, on a thread of its own.
#include <bpf/bpf.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "bpf/stack_engine.h"

namespace stackwatch {
namespace {

/// A program that the kernel refused is refused again; what it lacked, memory for example, may be there later.
constexpr uint64_t kLoadAgainS = 60;

}  // namespace

// A thread for each load, since most programs are loaded once or never.
bool StackEngine::load_beside() {
  if (loaded() || failed_lately()) return true;
  if (loader_) return load_done_;
  if (!load_event_) {
    load_event_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    epoll_event event{};
    event.events = EPOLLIN;
    // Where this fails its end is seen when somebody asks again.
    static_cast<void>(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, load_event_.get(), &event));
  }
  load_done_ = false;
  try {
    loader_ = std::make_unique<WorkThread>(1);
  } catch (const std::system_error&) {
    return true;  // no thread to be had: attach() loads it itself
  }
  loader_->push_always([this] {
    loaded_ = load();
    load_done_ = true;
    static_cast<void>(::eventfd_write(load_event_.get(), 1));
  });
  return false;
}

bool StackEngine::failed_lately() const {
  return load_error_ && clock_.monotonic_ns() < load_failed_ns_ + kLoadAgainS * 1'000'000'000;
}

Result<StackEngine::Program> StackEngine::load_or_wait() {
  if (!loader_) return load();
  finish_loading();
  return *std::exchange(loaded_, std::nullopt);
}

Result<void> StackEngine::ensure_loaded() {
  if (loaded()) return {};
  if (failed_lately()) return Failure(*load_error_);
  auto program = load_or_wait();
  if (!program) {
    load_error_ = program.error();
    load_failed_ns_ = clock_.monotonic_ns();
    return Failure(program.error());
  }
  const LibbpfMessages messages;
  ring_.reset(ring_buffer__new(bpf_map__fd(program->new_stacks), take_frames, this, nullptr));
  if (!ring_) return fail_bpf("read the ring buffer of new stacks", errno, messages);
  epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, ring_buffer__epoll_fd(ring_.get()), &event) != 0) {
    return fail_errno("poll the ring buffer of new stacks", errno);
  }
  watched_ = {bpf_map__fd(program->watched)};
  counts_ = {bpf_map__fd(program->counts)};
  max_stacks_ = bpf_map__max_entries(program->counts);
  program_ = *program;
  return {};
}

Result<void> StackEngine::share_unwind_maps(bpf_map* spaces, bpf_map* tables) {
  if (!unwind_) return {};
  const LibbpfMessages messages;
  int error = bpf_map__reuse_fd(spaces, unwind_->spaces_fd());
  if (error == 0) error = bpf_map__reuse_fd(tables, unwind_->tables_fd());
  if (error != 0) return fail_bpf("share the maps for unwinding", -error, messages);
  return {};
}

}  // namespace stackwatch
