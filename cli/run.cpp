// SPDX-License-Identifier: Apache-2.0
#include "cli/run.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "cli/client.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "cli/watch.h"
#include "core/unique_fd.h"

namespace stackwatch {
namespace {

// The connection is not kept meanwhile: a command may run for days, and the daemon serves a bounded number of clients.
Result<std::string> watch(const Options& options, pid_t pid, const Clock& clock) {
  Result<Client> client = Client::connect(options.socket, clock);
  if (!client) return Failure(client.error());
  WatchRequest request = options.watch;
  request.pid = pid;
  request.children = true;
  Result<std::string> id = add_watch(*client, request);
  if (!id) return id;
  if (auto loaded = wait_until_loaded(*client, pid, clock); !loaded) return Failure(loaded.error());
  return id;
}

// The rule may be gone already, with the command: the daemon drops it then. A daemon that is gone has it no more.
void unwatch(const Options& options, const std::string& id, const Clock& clock) {
  Result<Client> client = Client::connect(options.socket, clock);
  if (client) static_cast<void>(remove_watch(*client, id));
  if (!client) static_cast<void>(report_error(client.error()));
}

int wait_and_pass_signals(HeldCommand& command, SignalInbox& inbox) {
  const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, command.pid(), 0)));  // close-on-exec by itself
  while (!command.poll_end()) {
    std::array<pollfd, 2> waiting{{{inbox.fd(), POLLIN, 0}, {process.get(), POLLIN, 0}}};
    constexpr int kWithoutPidfdMs = 100;  // a sandbox may forbid the call
    if (poll(waiting.data(), waiting.size(), process ? -1 : kWithoutPidfdMs) < 0 && errno != EINTR) break;
    while (const auto signal = inbox.next()) pass_on(*signal, command);
  }
  return command.wait_end();
}

}  // namespace

Result<int> run_watched(const Options& options, bool pipe_ignored, const Clock& clock) {
  // Who has no daemon is told before anything is started.
  if (const auto client = Client::connect(options.socket, clock); !client) return Failure(client.error());
  auto inbox = SignalInbox::open();
  if (!inbox) return Failure(inbox.error());
  InheritedSignals inherited = inbox->inherited();
  inherited.pipe_ignored = pipe_ignored;
  auto command = HeldCommand::fork(options.command, inherited);
  if (!command) return Failure(command.error());
  const Result<std::string> id = watch(options, command->pid(), clock);
  if (!id) return Failure(id.error());

  int code = 0;
  if (const int error = command->release(); error != 0) {
    static_cast<void>(report_error(fail_errno("run " + options.command.front(), error).value()));
    static_cast<void>(command->wait_end());
    code = exec_failure_exit_code(error);
  } else {
    code = wait_and_pass_signals(*command, *inbox);
  }
  unwatch(options, *id, clock);
  return code;
}

}  // namespace stackwatch
