// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace stackwatch {
namespace {

constexpr size_t kReadBytes = size_t{16} << 10U;
/// Reads and requests of one client before the loop looks at the others (and at its tick) again.
constexpr int kReadsPerWake = 4;
constexpr int kRequestsPerWake = 8;
/// A buffer that once held a long reply is given back; one that holds short ones is kept.
constexpr size_t kKeptCapacity = size_t{64} << 10U;

}  // namespace

bool Connection::on_events(uint32_t events) {
  if ((events & EPOLLERR) != 0) return false;
  // After a hang-up nobody reads replies; what was sent before it is still carried out.
  if ((events & EPOLLHUP) != 0 && !open()) return false;
  if (open() && !input_.ready() && (events & (EPOLLIN | EPOLLHUP)) != 0 && !receive()) return false;
  answer();
  if (!flush()) return false;
  return !(closing_ && pending_output() == 0);
}

uint32_t Connection::wanted_events() const {
  if (pending_output() > 0) return EPOLLOUT;
  if (!open()) return 0;
  return input_.ready() ? EPOLLOUT : EPOLLIN;  // a request that waits for its turn: as soon as its reply can be sent
}

bool Connection::receive() {
  std::array<char, kReadBytes> bytes;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by recv
  for (int i = 0; i < kReadsPerWake && !input_.ready() && !input_.overlong(); ++i) {
    const ssize_t count = recv(socket_.get(), bytes.data(), bytes.size(), 0);
    if (count == 0) {
      end_of_input_ = true;
      return true;
    }
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    input_.append({bytes.data(), static_cast<size_t>(count)});
  }
  return true;
}

void Connection::answer() {
  for (int i = 0; i < kRequestsPerWake && open() && pending_output() <= kPauseOutputBytes; ++i) {
    const std::optional<std::string_view> message = input_.next();
    if (!message) break;
    Outcome outcome = dispatcher_.handle(*message, peer_);
    ++progress_;
    output_ += outcome.output;
    invalid_ = closing_ = outcome.invalid;
    subscription_ = outcome.subscription;
  }
  if (open() && input_.overlong()) {
    append_invalid_message(output_, "it is longer than 64 KiB");
    invalid_ = closing_ = true;
  }
  if (open() && end_of_input_ && !input_.ready()) closing_ = true;
}

bool Connection::push(std::string_view message) {
  output_ += message;
  return flush();
}

bool Connection::flush() {
  while (pending_output() > 0) {
    const ssize_t count = send(socket_.get(), output_.data() + sent_, pending_output(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0) {
      // A client that is always behind but never stuck must not keep what it has read already.
      if (sent_ > pending_output()) {
        output_.erase(0, sent_);
        sent_ = 0;
      }
      return errno == EAGAIN || errno == EINTR;
    }
    sent_ += static_cast<size_t>(count);
  }
  if (sent_ > 0) ++progress_;
  output_.clear();
  sent_ = 0;
  if (output_.capacity() > kKeptCapacity) output_.shrink_to_fit();
  return true;
}

}  // namespace stackwatch
