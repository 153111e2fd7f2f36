// SPDX-License-Identifier: Apache-2.0
#include "bpf/exec_events.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <cstring>

#include "bpf/abi.h"
#include "bpf/bpf_support.h"
#include "exec.skel.h"

namespace stackwatch {
namespace {

struct SkeletonDeleter {
  void operator()(exec_bpf* skeleton) const { exec_bpf__destroy(skeleton); }
};
struct RingDeleter {
  void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};

class BpfExecEvents final : public ExecEvents {
 public:
  Result<void> load() {
    const LibbpfMessages messages;
    skeleton_.reset(exec_bpf__open_and_load());
    if (!skeleton_) return fail_bpf("load the program that sees execs", errno, messages);
    ring_.reset(ring_buffer__new(bpf_map__fd(skeleton_->maps.execs), take, this, nullptr));
    if (!ring_) return fail_bpf("read the ring buffer of execs", errno, messages);
    return {};
  }

  [[nodiscard]] int fd() const override { return ring_buffer__epoll_fd(ring_.get()); }
  [[nodiscard]] bool is_on() const override { return link_ != nullptr; }

  Result<void> switch_on(bool on) override {
    if (on == is_on()) return {};
    link_.reset();
    if (!on) return {};
    const LibbpfMessages messages;
    link_.reset(bpf_program__attach(skeleton_->progs.on_exec));
    if (!link_) return fail_bpf("attach the program that sees execs", errno, messages);
    return {};
  }

  void drain(const std::function<void(std::string_view)>& visit) override {
    visit_ = &visit;
    ring_buffer__consume(ring_.get());
    visit_ = nullptr;
  }

 private:
  static int take(void* self, void* data, size_t size) {
    abi::exec_event event;
    if (size < sizeof(event)) return 0;
    std::memcpy(&event, data, sizeof(event));
    (*static_cast<BpfExecEvents*>(self)->visit_)({event.comm, strnlen(event.comm, sizeof(event.comm))});
    return 0;
  }

  std::unique_ptr<exec_bpf, SkeletonDeleter> skeleton_;
  std::unique_ptr<ring_buffer, RingDeleter> ring_;
  BpfLink link_;
  const std::function<void(std::string_view)>* visit_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<ExecEvents>> make_exec_events() {
  if (auto possible = check_bpf_possible(); !possible) return Failure(possible.error());
  auto events = std::make_unique<BpfExecEvents>();
  if (auto loaded = events->load(); !loaded) return Failure(loaded.error());
  return std::unique_ptr<ExecEvents>(std::move(events));
}

}  // namespace stackwatch
