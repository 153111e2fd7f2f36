// SPDX-License-Identifier: Apache-2.0
#include "daemon/memory_probe.h"

#include <poll.h>
#include <sys/epoll.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "core/unique_fd.h"
#include "symbols/allocator_finder.h"

namespace stackwatch {
namespace {

class Engine final : public MemoryProbeEngine {
 public:
  Engine(const Clock& clock, MemoryEngine counter, std::unique_ptr<AllocatorFinder> finder, UniqueFd epoll)
      : clock_(clock), counter_(std::move(counter)), finder_(std::move(finder)), epoll_(std::move(epoll)) {}

  [[nodiscard]] std::span<const ProbeKind> kinds() const override { return counter_.engine->kinds(); }
  [[nodiscard]] std::unique_ptr<Probe> make_probe(ProbeKind kind) override {
    return std::make_unique<FoundProbe>(*finder_, counter_.engine->make_probe(kind));
  }
  [[nodiscard]] Result<void> prepare() override { return counter_.engine->prepare(); }
  [[nodiscard]] bool load_beside() override { return counter_.engine->load_beside(); }
  [[nodiscard]] int poll_fd() const override { return epoll_.get(); }
  void drain() override {
    finder_->dispatch();
    for (const AllocatorFunctions& functions : finder_->take()) counter_.control->set_functions(functions);
    counter_.engine->drain();
  }
  [[nodiscard]] Result<void> collect() override {
    drain();
    return counter_.engine->collect();
  }
  [[nodiscard]] std::vector<Adopted> take_adopted() override { return counter_.engine->take_adopted(); }
  void forget(const ProcessKey& process) override {
    finder_->forget(process);
    counter_.engine->forget(process);
  }
  [[nodiscard]] Cost cost() const override { return counter_.engine->cost(); }

  [[nodiscard]] std::vector<Error> take_events() override {
    std::vector<Error> events = finder_->take_events();
    for (MemoryEvent& event : counter_.control->take_process_events()) events.push_back(std::move(event.text));
    return events;
  }
  [[nodiscard]] std::string note(const ProcessKey& process) const override {
    const auto state = counter_.control->state(process);
    return state ? state->note : std::string();
  }
  void set_overhead_limit(double percent) override { counter_.control->set_overhead_limit(percent); }

  void wait_until_counting(double seconds) override {
    const uint64_t end_ns = clock_.monotonic_ns() + static_cast<uint64_t>(seconds * 1e9);
    for (drain(); finder_->pending() > 0 && clock_.monotonic_ns() < end_ns; drain()) {
      constexpr int kPatienceMs = 50;  // restarts of the worker are seen in dispatch() alone
      pollfd found{epoll_.get(), POLLIN, 0};
      static_cast<void>(::poll(&found, 1, kPatienceMs));
    }
    counter_.control->wait_until_settled();
    drain();
  }

 private:
  /// A probe whose process the finder looks after for as long as it is attached.
  class FoundProbe final : public Probe {
   public:
    FoundProbe(AllocatorFinder& finder, std::unique_ptr<Probe> probe) : finder_(finder), probe_(std::move(probe)) {}
    ~FoundProbe() override { FoundProbe::detach(); }
    FoundProbe(const FoundProbe&) = delete;
    FoundProbe& operator=(const FoundProbe&) = delete;

    [[nodiscard]] ProbeKind kind() const override { return probe_->kind(); }
    Result<void> attach(const ProcessKey& process, const ProbeOptions& options) override {
      if (auto attached = probe_->attach(process, options); !attached) return attached;
      process_ = process;
      finder_.watch(process, options.pid_in_ns > 0 ? options.pid_in_ns : process.pid);
      return {};
    }
    Result<void> change(const ProbeOptions& options) override { return probe_->change(options); }
    Result<StackDelta> read() override { return probe_->read(); }
    void detach() override {
      if (process_) finder_.forget(*process_);
      process_.reset();
      probe_->detach();
    }

   private:
    AllocatorFinder& finder_;
    std::unique_ptr<Probe> probe_;
    std::optional<ProcessKey> process_;
  };

  const Clock& clock_;
  MemoryEngine counter_;
  std::unique_ptr<AllocatorFinder> finder_;
  UniqueFd epoll_;  // readable when one of the two has something to do
};

}  // namespace

Result<std::unique_ptr<MemoryProbeEngine>> make_memory_probe_engine(const Clock& clock, const MemoryLimits& limits,
                                                                    std::shared_ptr<UnwindMaps> unwind) {
  static constexpr const char* kWhat = "make the memory probe";
  auto counter = make_memory_engine(clock, limits, std::move(unwind));
  if (!counter) return Failure(counter.error());
  auto finder = make_allocator_finder(clock);
  if (!finder) return Failure(finder.error());
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(kWhat, errno);
  for (const int fd : {counter->engine->poll_fd(), (*finder)->fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno(kWhat, errno);
  }
  return std::unique_ptr<MemoryProbeEngine>(
      std::make_unique<Engine>(clock, std::move(*counter), std::move(*finder), std::move(epoll)));
}

}  // namespace stackwatch
