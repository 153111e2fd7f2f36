// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/alert.h"
#include "daemon/control/peer.h"
#include "daemon/control/varlink.h"
#include "daemon/status.h"

namespace stackwatch {

/// What the server counts about its clients.
struct ControlCounters {
  uint64_t clients = 0;      ///< connected now
  uint64_t subscribers = 0;  ///< of these, how many wait for alerts
  uint64_t accepted = 0;     ///< since the start, the refused ones not among them
  uint64_t refused = 0;      ///< over the limit of clients
  uint64_t dropped = 0;      ///< did not read what they asked for
  uint64_t invalid = 0;      ///< messages that were no request
};

/// Which changes of alerts a client wants to hear of.
struct Subscription {
  std::optional<AlertState> state;
  [[nodiscard]] bool wants(const Alert& alert) const { return !state || *state == alert.state; }
};

/// What a request leads to.
struct Outcome {
  std::string output;                        ///< replies, each with its NUL; empty for oneway calls
  bool invalid = false;                      ///< it was no request: close when the output is sent
  std::optional<Subscription> subscription;  ///< the call goes on: nothing else is answered on this connection
};

/// Answers requests of the interfaces io.stackwatch and org.varlink.service. No I/O and no state of its own: what
/// changes is the backend.
class Dispatcher {
 public:
  /// Of the places for clients: subscribers may stay for days, and somebody must be able to ask all the same.
  static constexpr size_t kMaxSubscribers = 48;
  /// Both outlive the dispatcher.
  Dispatcher(ControlBackend& backend, const ControlCounters& counters) : backend_(backend), counters_(counters) {}

  [[nodiscard]] Outcome handle(std::string_view message, const Peer& peer) const;

 private:
  struct Method;
  static const Method kMethods[];
  [[nodiscard]] const Method* find(std::string_view name) const;

  void get_info(const VarlinkCall& call, Outcome& outcome) const;
  void get_interface_description(const VarlinkCall& call, Outcome& outcome) const;
  void get_status(const VarlinkCall& call, Outcome& outcome) const;
  void get_ranking(const VarlinkCall& call, Outcome& outcome) const;
  void list_attachments(const VarlinkCall& call, Outcome& outcome) const;
  void get_stacks(const VarlinkCall& call, Outcome& outcome) const;
  void list_alerts(const VarlinkCall& call, Outcome& outcome) const;
  void get_alert(const VarlinkCall& call, Outcome& outcome) const;
  void add_watch(const VarlinkCall& call, Outcome& outcome) const;
  void remove_watch(const VarlinkCall& call, Outcome& outcome) const;
  void list_watches(const VarlinkCall& call, Outcome& outcome) const;
  void subscribe(const VarlinkCall& call, Outcome& outcome) const;

  ControlBackend& backend_;
  const ControlCounters& counters_;
};

/// Appends what a subscriber is sent when an alert changes.
void append_alert_change(std::string& output, const Alert& alert);
/// Appends the error that a message gets which is no request.
void append_invalid_message(std::string& output, std::string_view reason);

}  // namespace stackwatch
