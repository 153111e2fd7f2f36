// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/server.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <utility>
#include <vector>

#include "daemon/control/connection.h"
#include "daemon/control/listener.h"

namespace stackwatch {
namespace {

/// Behind the tick and the signals, which have the default: a flood of requests must not delay a tick.
constexpr int64_t kPriority = SD_EVENT_PRIORITY_NORMAL + 10;
constexpr int kAcceptsPerWake = 16;
/// How long nobody is accepted after descriptors ran out: without a pause the loop would spin on the waiting client.
constexpr uint64_t kAcceptPause_usec = 100'000;

struct SourceRelease {
  void operator()(sd_event_source* source) const { sd_event_source_disable_unref(source); }
};
using Source = std::unique_ptr<sd_event_source, SourceRelease>;

Result<Source> add_source(sd_event* loop, int fd, uint32_t events, sd_event_io_handler_t handler, void* context) {
  sd_event_source* source = nullptr;
  int error = sd_event_add_io(loop, &source, fd, events, handler, context);
  if (error < 0) return fail_errno("watch the control socket", -error);
  Source owned(source);
  error = sd_event_source_set_priority(source, kPriority);
  if (error < 0) return fail_errno("watch the control socket", -error);
  return owned;
}

}  // namespace

struct ControlServer::Listening {
  Listener listener;
  Source source;
  Source retry;  // made at the start: a timer needs a descriptor, and it is for when there are none left
};

struct ControlServer::Client {
  ControlServer* server;
  Connection connection;
  Source source;
  uid_t uid;
  uint64_t active_us = 0;  // when it last made progress, on the loop's clock
  /// A subscriber who has read everything waits for what comes: that is no being stuck.
  [[nodiscard]] bool may_wait() const { return connection.subscription() && connection.pending_output() == 0; }
};

Result<std::unique_ptr<ControlServer>> ControlServer::start(sd_event* loop, ControlBackend& backend,
                                                            const ControlOptions& options) {
  Result<Listener> listener = Listener::open(options.path, options.group);
  if (!listener) return Failure(listener.error());
  std::unique_ptr<ControlServer> server(new ControlServer(backend));
  server->loop_ = loop;
  server->max_clients_ = options.max_clients;
  server->patience_us_ = options.patience_us;
  server->listening_ = std::make_unique<Listening>(Listening{std::move(*listener), nullptr, nullptr});
  Result<Source> source =
      add_source(loop, server->listening_->listener.fd(), EPOLLIN, &ControlServer::on_listen, server.get());
  if (!source) return Failure(source.error());
  server->listening_->source = std::move(*source);
  sd_event_source* retry = nullptr;
  const int error =
      sd_event_add_time_relative(loop, &retry, CLOCK_MONOTONIC, 0, 0, &ControlServer::on_pause_over, server.get());
  if (error < 0) return fail_errno("watch the control socket", -error);
  server->listening_->retry.reset(retry);
  sd_event_source_set_enabled(retry, SD_EVENT_OFF);
  return server;
}

ControlServer::ControlServer(ControlBackend& backend) : dispatcher_(backend, counters_) {}
ControlServer::~ControlServer() = default;

int ControlServer::on_listen(sd_event_source* /*source*/, int /*fd*/, uint32_t /*events*/, void* server) {
  static_cast<ControlServer*>(server)->accept_some();
  return 0;  // an error would switch the source off for good
}

int ControlServer::on_client(sd_event_source* /*source*/, int /*fd*/, uint32_t events, void* client) {
  auto& self = *static_cast<Client*>(client);
  const uint64_t progress = self.connection.progress();
  const bool alive = self.connection.on_events(events);
  if (self.connection.progress() != progress) sd_event_now(self.server->loop_, CLOCK_MONOTONIC, &self.active_us);
  self.server->settle(self, alive);
  return 0;
}

int ControlServer::on_pause_over(sd_event_source* /*source*/, uint64_t /*usec*/, void* server) {
  const Listening& listening = *static_cast<ControlServer*>(server)->listening_;
  sd_event_source_set_enabled(listening.source.get(), SD_EVENT_ON);
  return 0;
}

void ControlServer::accept_some() {
  for (int i = 0; i < kAcceptsPerWake; ++i) {
    const int fd = accept4(listening_->listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      add_client(fd);
    } else if (errno == EMFILE || errno == ENFILE) {
      pause_listening();
      return;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return;
    }
  }
}

void ControlServer::pause_listening() {
  sd_event_source* retry = listening_->retry.get();
  if (sd_event_source_set_time_relative(retry, kAcceptPause_usec) < 0) return;
  if (sd_event_source_set_enabled(retry, SD_EVENT_ONESHOT) < 0) return;
  sd_event_source_set_enabled(listening_->source.get(), SD_EVENT_OFF);
}

void ControlServer::refuse(int fd) {
  ++counters_.refused;
  std::string message;
  append_error(message, control_error::kTooManyClients, [this](JsonWriter& json) {
    json.begin_object();
    json.member("limit", max_clients_);
    json.end_object();
  });
  // A courtesy to a socket that is empty; whether it arrives changes nothing.
  static_cast<void>(send(fd, message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
}

void ControlServer::add_client(int fd) {
  UniqueFd socket(fd);
  const Result<Peer> peer = peer_of(fd);
  if (!peer || (clients_.size() >= max_clients_ && !make_room(*peer))) {
    refuse(fd);
    return;
  }
  auto client =
      std::make_unique<Client>(Client{this, Connection(std::move(socket), *peer, dispatcher_), nullptr, peer->uid});
  sd_event_now(loop_, CLOCK_MONOTONIC, &client->active_us);
  Result<Source> source = add_source(loop_, fd, EPOLLIN, &ControlServer::on_client, client.get());
  if (!source) {
    refuse(fd);
    return;
  }
  client->source = std::move(*source);
  ++counters_.accepted;
  clients_.emplace(client.get(), std::move(client));
  counters_.clients = clients_.size();
}

// Somebody whose scripts hang must not keep everybody else from asking what goes on; and whoever may read alone must
// not keep away who may do something about it, even with clients that are all busy, or that all subscribe.
bool ControlServer::make_room(const Peer& newcomer) {
  uint64_t now_us = 0;
  if (sd_event_now(loop_, CLOCK_MONOTONIC, &now_us) < 0) return false;
  const bool goes_before = newcomer.uid == 0 || newcomer.uid == geteuid();
  Client* stuck = nullptr;
  Client* of_others = nullptr;
  for (const auto& [client, owned] : clients_) {
    const auto is_older_than = [client = client](const Client* other) {
      return other == nullptr || client->active_us < other->active_us;
    };
    if (!client->may_wait() && now_us - client->active_us >= patience_us_ && is_older_than(stuck)) stuck = client;
    if (goes_before && client->uid != newcomer.uid && is_older_than(of_others)) of_others = client;
  }
  Client* goes = stuck != nullptr ? stuck : of_others;
  if (goes == nullptr) return false;
  ++counters_.dropped;
  drop(*goes);
  return true;
}

void ControlServer::settle(Client& client, bool alive) {
  if (alive && sd_event_source_set_io_events(client.source.get(), client.connection.wanted_events()) < 0) alive = false;
  if (!alive) {
    drop(client);
    return;
  }
  counters_.subscribers = static_cast<uint64_t>(std::ranges::count_if(
      clients_, [](const auto& entry) { return entry.second->connection.subscription().has_value(); }));
  enforce_output_bound();
}

void ControlServer::drop(Client& client) {
  if (client.connection.sent_garbage()) ++counters_.invalid;
  if (client.connection.subscription()) --counters_.subscribers;
  clients_.erase(&client);
  counters_.clients = clients_.size();
}

void ControlServer::enforce_output_bound() {
  size_t total = 0;
  Client* largest = nullptr;
  for (const auto& [client, owned] : clients_) {
    total += client->connection.pending_output();
    if (largest == nullptr || client->connection.pending_output() > largest->connection.pending_output()) {
      largest = client;
    }
  }
  if (total <= kMaxOutputBytes || largest == nullptr) return;
  ++counters_.dropped;
  drop(*largest);
}

void ControlServer::broadcast(const Alert& alert) {
  std::vector<Client*> listeners;
  for (const auto& [client, owned] : clients_) {
    const auto& subscription = client->connection.subscription();
    if (subscription && subscription->wants(alert)) listeners.push_back(client);
  }
  if (listeners.empty()) return;
  std::string message;
  append_alert_change(message, alert);
  for (Client* client : listeners) {
    if (!clients_.contains(client)) continue;  // dropped for the bound of all while another one was served
    const bool keeps_up = client->connection.has_room_for(message.size());
    if (!keeps_up) ++counters_.dropped;
    settle(*client, keeps_up && client->connection.push(message));
  }
}

}  // namespace stackwatch
