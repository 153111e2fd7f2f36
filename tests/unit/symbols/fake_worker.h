// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "symbols/protocol.h"
#include "symbols/worker_process.h"

namespace stackwatch {

/// The other end of a SymbolWorker, played by the test. The last one that was spawned is `socket`.
struct FakeWorkers {
  int spawned = 0;
  bool refuse = false;  ///< fail to spawn
  bool hello = true;    ///< greet at once
  UniqueFd socket;

  /// The next request, with its file; nothing where none came.
  std::optional<std::pair<protocol::Request, UniqueFd>> next() {
    protocol::Received received = protocol::receive_packet(socket.get(), true);
    if (received.status != protocol::IoStatus::kDone) return std::nullopt;
    auto request = protocol::parse_request(received.packet);
    if (!request) return std::nullopt;
    return std::pair(std::move(*request), std::move(received.file));
  }
  void say(const protocol::Bytes& packet) { static_cast<void>(protocol::send_packet(socket.get(), packet)); }
};

class FakeSpawner final : public WorkerSpawner {
 public:
  explicit FakeSpawner(FakeWorkers& workers) : workers_(workers) {}

  Result<WorkerProcess> spawn() override {
    ++workers_.spawned;
    if (workers_.refuse) return fail("start the symbol worker", "the test does not want it");
    int fds[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) return fail("pair", "no");
    WorkerProcess worker;
    worker.socket = UniqueFd(fds[0]);
    workers_.socket = UniqueFd(fds[1]);
    if (workers_.hello) workers_.say(protocol::encode(protocol::Hello{}));
    return worker;
  }

 private:
  FakeWorkers& workers_;
};

}  // namespace stackwatch
