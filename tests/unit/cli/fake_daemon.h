// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "core/unique_fd.h"
#include "daemon/control/server.h"
#include "tests/unit/control/fake_backend.h"
#include "tests/unit/control/temp_dir.h"

namespace stackwatch {

/// The real control server over a FakeBackend, in a thread. The backend is set up before start().
class FakeDaemon {
 public:
  ~FakeDaemon() { stop(); }

  void start(size_t max_clients = 64, const std::string& group = "no-such-group-stackwatch-test") {
    ASSERT_GE(sd_event_new(&loop_), 0);
    auto server = ControlServer::start(loop_, backend, {path, group, max_clients});
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
    wake_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    ASSERT_GE(sd_event_add_io(loop_, nullptr, wake_.get(), EPOLLIN, &FakeDaemon::on_wake, this), 0);
    thread_ = std::thread([this] { sd_event_loop(loop_); });
  }
  void stop() {
    if (!thread_.joinable()) return;
    stopping_ = true;
    wake();
    thread_.join();
    server_.reset();
    loop_ = sd_event_unref(loop_);
  }
  /// From now on each new subscriber hears of this alert once, as soon as it has subscribed.
  void announce(const Alert& alert) {
    announced_ = alert;
    announcing_ = true;
    wake();
  }

  FakeBackend backend;
  TempDir dir;
  std::string path = dir / "io.stackwatch";

 private:
  static int on_wake(sd_event_source* source, int fd, uint32_t /*events*/, void* context) {
    auto& self = *static_cast<FakeDaemon*>(context);
    uint64_t count = 0;
    static_cast<void>(!read(fd, &count, sizeof(count)));
    if (self.stopping_) return sd_event_exit(sd_event_source_get_event(source), 0);
    if (self.announcing_) {
      sd_event_add_post(self.loop_, nullptr, &FakeDaemon::after_each_event, context);
    }
    return 0;
  }
  static int after_each_event(sd_event_source* /*source*/, void* context) {
    auto& self = *static_cast<FakeDaemon*>(context);
    const uint64_t subscribers = self.server_->counters().subscribers;
    if (subscribers > self.told_) self.server_->broadcast(self.announced_);
    self.told_ = subscribers;
    return 0;
  }
  void wake() const {
    const uint64_t one = 1;
    static_cast<void>(!write(wake_.get(), &one, sizeof(one)));
  }

  sd_event* loop_ = nullptr;
  std::unique_ptr<ControlServer> server_;
  UniqueFd wake_;
  std::thread thread_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> announcing_ = false;
  Alert announced_;
  uint64_t told_ = 0;
};

}  // namespace stackwatch
