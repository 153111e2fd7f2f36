// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include "core/result.h"

namespace stackwatch {

/// Who is at the other end of a connection: as the kernel noted it when the client connected.
struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

[[nodiscard]] Result<Peer> peer_of(int socket_fd);

/// Whether the peer may change what the daemon does: root alone. Who may connect at all, and so read, is decided by
/// the mode of the socket file: its owner, its group and root.
[[nodiscard]] constexpr bool may_change(const Peer& peer) { return peer.uid == 0; }

}  // namespace stackwatch
