// SPDX-License-Identifier: Apache-2.0
#include "daemon/event_loop.h"

#include <sys/epoll.h>
#include <systemd/sd-event.h>

#include <csignal>
#include <ctime>
#include <utility>

namespace stackwatch {
namespace {

// Wake-ups of other programs within this time of a tick share it. 1 % of the shortest tick.
constexpr uint64_t kAccuracyUs = 1000;

}  // namespace

struct EventLoop::Source {
  std::function<void()> callback;
  sd_event_source* source = nullptr;
  ~Source() { sd_event_source_disable_unref(source); }

  static int on_signal(sd_event_source* /*source*/, const signalfd_siginfo* /*info*/, void* self) {
    static_cast<Source*>(self)->callback();
    return 0;
  }
  // The callback may ask for another call: that replaces this source.
  static int on_time(sd_event_source* /*source*/, uint64_t /*due_us*/, void* self) {
    const std::function<void()> callback = std::move(static_cast<Source*>(self)->callback);
    callback();
    return 0;
  }
  static int on_io(sd_event_source* /*source*/, int /*fd*/, uint32_t /*events*/, void* self) {
    static_cast<Source*>(self)->callback();
    return 0;
  }
};

struct EventLoop::Ticker {
  std::function<void(uint64_t)> callback;
  sd_event* event = nullptr;
  sd_event_source* source = nullptr;
  uint64_t period_us = 0;
  uint64_t next_us = 0;
  ~Ticker() { sd_event_source_disable_unref(source); }

  static int on_time(sd_event_source* source, uint64_t /*due_us*/, void* self) {
    auto& ticker = *static_cast<Ticker*>(self);
    uint64_t now_us = 0;
    if (const int error = sd_event_now(ticker.event, CLOCK_MONOTONIC, &now_us); error < 0) return error;
    const uint64_t missed = now_us > ticker.next_us ? (now_us - ticker.next_us) / ticker.period_us : 0;
    ticker.next_us += (missed + 1) * ticker.period_us;
    if (const int error = sd_event_source_set_time(source, ticker.next_us); error < 0) return error;
    ticker.callback(missed);
    return 0;
  }
};

Result<EventLoop> EventLoop::create() {
  EventLoop loop;
  if (const int error = sd_event_new(&loop.event_); error < 0) return fail_errno("create an event loop", -error);
  return loop;
}

EventLoop::EventLoop(EventLoop&& other) noexcept
    : event_(std::exchange(other.event_, nullptr)),
      sources_(std::move(other.sources_)),
      ticker_(std::move(other.ticker_)),
      once_(std::move(other.once_)) {}

EventLoop& EventLoop::operator=(EventLoop&& other) noexcept {
  std::swap(event_, other.event_);
  std::swap(sources_, other.sources_);
  std::swap(ticker_, other.ticker_);
  std::swap(once_, other.once_);
  return *this;
}

EventLoop::~EventLoop() {
  ticker_.reset();
  once_.reset();
  sources_.clear();
  sd_event_unref(event_);
}

Result<void> EventLoop::on_signal(int signal, std::function<void()> callback) {
  auto source = std::make_unique<Source>();
  source->callback = std::move(callback);
  if (const int error = sd_event_add_signal(event_, &source->source, signal, Source::on_signal, source.get());
      error < 0) {
    return fail_errno("wait for a signal", -error);
  }
  sources_.push_back(std::move(source));
  return {};
}

Result<void> EventLoop::on_readable(int fd, std::function<void()> callback) {
  auto source = std::make_unique<Source>();
  source->callback = std::move(callback);
  if (const int error = sd_event_add_io(event_, &source->source, fd, EPOLLIN, Source::on_io, source.get()); error < 0) {
    return fail_errno("wait for a descriptor", -error);
  }
  sources_.push_back(std::move(source));
  return {};
}

Result<void> EventLoop::every(uint64_t period_us, std::function<void(uint64_t)> callback) {
  ticker_.reset();
  auto ticker = std::make_unique<Ticker>();
  ticker->callback = std::move(callback);
  ticker->event = event_;
  ticker->period_us = period_us;
  if (const int error = sd_event_now(event_, CLOCK_MONOTONIC, &ticker->next_us); error < 0) {
    return fail_errno("read the loop's clock", -error);
  }
  ticker->next_us += period_us;
  int error = sd_event_add_time(event_, &ticker->source, CLOCK_MONOTONIC, ticker->next_us, kAccuracyUs, Ticker::on_time,
                                ticker.get());
  if (error >= 0) error = sd_event_source_set_enabled(ticker->source, SD_EVENT_ON);
  if (error < 0) return fail_errno("start the tick", -error);
  ticker_ = std::move(ticker);
  return {};
}

Result<void> EventLoop::once(uint64_t delay_us, std::function<void()> callback) {
  auto source = std::make_unique<Source>();
  source->callback = std::move(callback);
  if (const int error = sd_event_add_time_relative(event_, &source->source, CLOCK_MONOTONIC, delay_us, kAccuracyUs,
                                                   Source::on_time, source.get());
      error < 0) {
    return fail_errno("start a timer", -error);
  }
  once_ = std::move(source);
  return {};
}

Result<void> EventLoop::run() {
  if (const int error = sd_event_loop(event_); error < 0) return fail_errno("run the event loop", -error);
  return {};
}

void EventLoop::stop() { sd_event_exit(event_, 0); }

}  // namespace stackwatch
