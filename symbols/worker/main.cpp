// SPDX-License-Identifier: Apache-2.0
// stackwatch-symbols: reads object files of strangers for the daemon, which starts it and talks to it over
// descriptor 3. Not for use by hand.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cstdio>

#include "symbols/protocol.h"
#include "symbols/worker/sandbox.h"
#include "symbols/worker/server.h"

int main() {
  int type = 0;
  socklen_t size = sizeof type;
  if (::getsockopt(stackwatch::protocol::kWorkerSocket, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
      type != SOCK_SEQPACKET) {
    std::fputs("stackwatch-symbols: start: not started by stackwatchd (it starts this program itself)\n", stderr);
    return 2;
  }
  // Before the filter of system calls.
  const timeval idle{.tv_sec = stackwatch::SymbolServer::kIdleS, .tv_usec = 0};
  ::setsockopt(stackwatch::protocol::kWorkerSocket, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
  ::fcntl(stackwatch::protocol::kWorkerSocket, F_SETFD, FD_CLOEXEC);
  if (const auto confined = stackwatch::enter_sandbox(); !confined) {
    std::fprintf(stderr, "stackwatch-symbols: %s\n", confined.error().message().c_str());
    return 3;
  }
  stackwatch::SymbolServer server;
  return server.serve(stackwatch::protocol::kWorkerSocket) ? 0 : 1;
}
