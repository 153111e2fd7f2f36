// SPDX-License-Identifier: Apache-2.0
#include "cli/signals.h"

#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

namespace stackwatch {
namespace {

// SIGTTIN and SIGTTOU stay with the kernel: they are about who may use the terminal, which is each process's own
// matter.
constexpr std::array kTaken = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGTSTP, SIGCONT};

bool is_ignored(int signal) {
  struct sigaction action {};
  return sigaction(signal, nullptr, &action) == 0 && (action.sa_flags & SA_SIGINFO) == 0 &&
         action.sa_handler == SIG_IGN;
}

}  // namespace

Result<SignalInbox> SignalInbox::open() {
  SignalInbox inbox;
  sigset_t taken;
  sigemptyset(&taken);
  for (const int signal : kTaken) {
    if (!is_ignored(signal)) sigaddset(&taken, signal);
  }
  if (const int error = pthread_sigmask(SIG_BLOCK, &taken, &inbox.inherited_.mask); error != 0) {
    return fail_errno("take signals", error);
  }
  // With SIGCHLD ignored the kernel would throw the command's exit code away.
  inbox.inherited_.child_ignored = std::signal(SIGCHLD, SIG_DFL) == SIG_IGN;
  inbox.fd_.reset(signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!inbox.fd_) return fail_errno("take signals", errno);
  return inbox;
}

std::optional<SignalInbox::Signal> SignalInbox::next() {
  signalfd_siginfo info{};
  if (read(fd_.get(), &info, sizeof(info)) != sizeof(info)) return std::nullopt;
  return Signal{static_cast<int>(info.ssi_signo), info.ssi_code == SI_KERNEL};
}

bool asks_to_end(int signal) { return signal == SIGINT || signal == SIGQUIT || signal == SIGTERM || signal == SIGHUP; }

void pass_on(const SignalInbox::Signal& signal, HeldCommand& command) {
  if (!signal.from_terminal) command.signal(signal.number);
  if (signal.number == SIGTSTP) raise(SIGSTOP);
}

}  // namespace stackwatch
