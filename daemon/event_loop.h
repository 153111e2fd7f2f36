// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/result.h"

struct sd_event;
struct sd_event_source;

namespace stackwatch {

/// sd-event for C++: callbacks as functions, sources owned. One thread. Callbacks must not throw.
class EventLoop {
 public:
  [[nodiscard]] static Result<EventLoop> create();
  EventLoop(EventLoop&&) noexcept;
  EventLoop& operator=(EventLoop&&) noexcept;
  ~EventLoop();

  [[nodiscard]] sd_event* get() const { return event_; }
  /// The signal must be blocked in all threads.
  [[nodiscard]] Result<void> on_signal(int signal, std::function<void()> callback);
  [[nodiscard]] Result<void> on_readable(int fd, std::function<void()> callback);
  /// Calls back every `period_us`, on a grid that begins now, with the number of grid points that were missed before
  /// this call. Replaces the period of an earlier call.
  [[nodiscard]] Result<void> every(uint64_t period_us, std::function<void(uint64_t missed)> callback);
  /// Calls back once, `delay_us` from now; a call before that takes the place of the earlier one.
  [[nodiscard]] Result<void> once(uint64_t delay_us, std::function<void()> callback);
  /// Until stop(). Errors: what sd-event says.
  [[nodiscard]] Result<void> run();
  void stop();

 private:
  struct Source;
  struct Ticker;
  EventLoop() = default;

  sd_event* event_ = nullptr;
  std::vector<std::unique_ptr<Source>> sources_;
  std::unique_ptr<Ticker> ticker_;
  std::unique_ptr<Source> once_;
};

}  // namespace stackwatch
