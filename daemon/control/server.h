// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "core/alert.h"
#include "core/result.h"
#include "daemon/control/dispatcher.h"
#include "daemon/control/interface.h"
#include "daemon/status.h"

struct sd_event;
struct sd_event_source;

namespace stackwatch {

struct ControlOptions {
  std::string path{kDefaultSocketPath};
  std::string group = "stackwatch";  ///< whose members may connect, besides the daemon's own user and root
  size_t max_clients = 64;           ///< people and their scripts, not a crowd; bounds memory and descriptors
  /// Where all places are taken, who has neither finished a request nor read all of a reply for so long makes room for
  /// a new client, which shall have its answer within 100 ms.
  uint64_t patience_us = 50'000;
};

/// The control socket: a Varlink server in the caller's loop. Never blocks, never throws; everything a client can make
/// it hold is bounded. One thread: all calls on the one that runs the loop.
class ControlServer {
 public:
  /// All clients together may make the daemon hold so many bytes of replies; past it, the one with the most is dropped.
  static constexpr size_t kMaxOutputBytes = size_t{16} << 20U;

  /// Listens and adds its own sources to `loop`, at a lower priority than the default, so that clients cannot starve a
  /// tick. The loop and the backend outlive the server. Errors: as Listener::open(), and what sd-event says.
  [[nodiscard]] static Result<std::unique_ptr<ControlServer>> start(sd_event* loop, ControlBackend& backend,
                                                                    const ControlOptions& options = {});
  /// Disconnects everybody and removes the socket.
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  /// Sends the alert to every client that has subscribed to changes of its kind. To be called at every change of an
  /// alert's state.
  void broadcast(const Alert& alert);

  [[nodiscard]] const ControlCounters& counters() const { return counters_; }

 private:
  struct Client;
  struct Listening;

  explicit ControlServer(ControlBackend& backend);
  static int on_listen(sd_event_source* source, int fd, unsigned events, void* server);
  static int on_client(sd_event_source* source, int fd, unsigned events, void* client);
  static int on_pause_over(sd_event_source* source, uint64_t usec, void* server);
  void accept_some();
  void pause_listening();
  void add_client(int fd);
  void refuse(int fd);
  /// Drops the client that is stuck longest; for root, and the daemon's own user, where none is, one of somebody else.
  /// False where there is neither.
  bool make_room(const Peer& newcomer);
  /// After anything happened to a client: its next events, its end, the bound of all.
  void settle(Client& client, bool alive);
  void drop(Client& client);
  void enforce_output_bound();

  sd_event* loop_ = nullptr;
  size_t max_clients_ = 0;
  uint64_t patience_us_ = 0;
  ControlCounters counters_;
  Dispatcher dispatcher_;
  std::unique_ptr<Listening> listening_;
  std::unordered_map<Client*, std::unique_ptr<Client>> clients_;
};

}  // namespace stackwatch
