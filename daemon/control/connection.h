// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/unique_fd.h"
#include "daemon/control/dispatcher.h"
#include "daemon/control/peer.h"
#include "daemon/control/varlink.h"

namespace stackwatch {

/// One client: requests in, replies out, in order, never waiting for it. What it may cost is bounded: kMaxMessageBytes
/// and one read of input; of output one reply more than kPauseOutputBytes, for a subscriber kMaxSubscriberBytes.
class Connection {
 public:
  /// No further request is answered while so much output waits to be read.
  static constexpr size_t kPauseOutputBytes = size_t{64} << 10U;
  /// Twice the most that a subscription begins with; beyond it the client does not read.
  static constexpr size_t kMaxSubscriberBytes = 2 * kMaxListBytes;

  /// `socket` is non-blocking; the dispatcher outlives the connection.
  Connection(UniqueFd socket, const Peer& peer, const Dispatcher& dispatcher)
      : socket_(std::move(socket)), peer_(peer), dispatcher_(dispatcher) {}

  /// Does what the poll events (EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR) allow. False where the connection has ended.
  [[nodiscard]] bool on_events(uint32_t events);
  /// The events to wait for now; EPOLLHUP and EPOLLERR always come.
  [[nodiscard]] uint32_t wanted_events() const;

  /// Sends a message to a client that has subscribed and has room for it. False where it is gone.
  [[nodiscard]] bool push(std::string_view message);
  [[nodiscard]] bool has_room_for(size_t bytes) const { return pending_output() + bytes <= kMaxSubscriberBytes; }
  [[nodiscard]] const std::optional<Subscription>& subscription() const { return subscription_; }

  /// Grows with each request that was answered and each time when all output was read. Half a message and half a reply
  /// are no progress, however often a byte of them moves.
  [[nodiscard]] uint64_t progress() const { return progress_; }
  [[nodiscard]] size_t pending_output() const { return output_.size() - sent_; }
  [[nodiscard]] bool sent_garbage() const { return invalid_; }

 private:
  [[nodiscard]] bool open() const { return !closing_ && !subscription_; }
  [[nodiscard]] bool receive();
  void answer();
  [[nodiscard]] bool flush();

  UniqueFd socket_;
  Peer peer_;
  const Dispatcher& dispatcher_;
  MessageBuffer input_;
  std::string output_;
  size_t sent_ = 0;  // of output_
  uint64_t progress_ = 0;
  std::optional<Subscription> subscription_;
  bool end_of_input_ = false;
  bool invalid_ = false;
  bool closing_ = false;  // nothing more is answered; ends when the output is sent
};

}  // namespace stackwatch
