// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/peer.h"

#include <sys/socket.h>

#include <cerrno>

namespace stackwatch {

Result<Peer> peer_of(int socket_fd) {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) {
    return fail_errno("ask who connected", errno);
  }
  return Peer{credentials.pid, credentials.uid, credentials.gid};
}

}  // namespace stackwatch
