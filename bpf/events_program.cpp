// SPDX-License-Identifier: Apache-2.0
// stackwatch-events: opens one clock event and one page-fault event per CPU, stopped, and gives them away: to the
// service manager, which keeps them for the service (as its ExecStartPre), or to the command that it becomes. It reads
// nothing but the list of CPUs. Names: see given_events.h.
#include <fcntl.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "bpf/given_events.h"

namespace {

using namespace stackwatch;

int failed(const char* what, int error_number) {
  std::fprintf(stderr, "stackwatch-events: %s: %s\n", what, std::strerror(error_number));
  return 1;
}

// FDPOLL=0: an event without a buffer always looks hung up, and would be thrown out again. Those of an earlier start
// are.
int store(const std::vector<NamedDescriptor>& events) {
  // (What is left of CPUs that are offline now, the daemon leaves alone.)
  for (const auto& [name, event] : events) {
    if (const int sent = sd_notify(0, ("FDSTOREREMOVE=1\nFDNAME=" + name).c_str()); sent <= 0) {
      return failed("no service manager listens ($NOTIFY_SOCKET)", sent == 0 ? ENOENT : -sent);
    }
    const int fd = event.get();
    const int sent = sd_pid_notify_with_fds(0, 0, ("FDSTORE=1\nFDPOLL=0\nFDNAME=" + name).c_str(), &fd, 1);
    if (sent <= 0) return failed("give an event to the service manager", -sent);
  }
  constexpr uint64_t kPatience_us = 5'000'000;
  // Before we end it has taken them.
  if (const int heard = sd_notify_barrier(0, kPatience_us); heard < 0)
    return failed("wait for the service manager", -heard);
  return 0;
}

int become(const std::vector<NamedDescriptor>& events, char** command) {
  const int count = static_cast<int>(events.size());
  std::string names;
  // First out of the way of the places where they are expected.
  std::vector<UniqueFd> copies;
  for (const auto& [name, event] : events) {
    copies.emplace_back(fcntl(event.get(), F_DUPFD_CLOEXEC, SD_LISTEN_FDS_START + count));
    if (!copies.back()) return failed("move an event", errno);
    names += (names.empty() ? "" : ":") + name;
  }
  for (int i = 0; i < count; ++i) {
    if (dup2(copies[static_cast<size_t>(i)].get(), SD_LISTEN_FDS_START + i) < 0) return failed("move an event", errno);
  }
  setenv("LISTEN_FDS", std::to_string(count).c_str(), 1);
  setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
  setenv("LISTEN_FDNAMES", names.c_str(), 1);
  execvp(command[0], command);
  return failed(command[0], errno);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && argv[1][0] == '-') {
    std::puts(
        "usage: stackwatch-events [COMMAND [ARGUMENT...]]\n"
        "Opens events of all CPUs and gives them to the service manager, or to COMMAND as $LISTEN_FDS.");
    return std::string_view(argv[1]) == "--help" ? 0 : 2;
  }
  const auto events = open_events_to_give();
  if (!events) {
    std::fprintf(stderr, "stackwatch-events: %s\n", events.error().message().c_str());
    return 1;
  }
  return argc > 1 ? become(*events, argv + 1) : store(*events);
}
