// SPDX-License-Identifier: Apache-2.0
#include "cli/command.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

namespace stackwatch {
namespace {

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

/// Both ends of a socket: writing to one whose other end is gone must not raise SIGPIPE, whoever calls us.
Result<Pipe> make_gate() {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno("start the command", errno);
  }
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno("start the command", errno);
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

/// Until something was read or the other end is closed; how many bytes.
ssize_t read_through_interrupts(int fd, void* data, size_t size) {
  ssize_t got = 0;
  do {
    got = read(fd, data, size);
  } while (got < 0 && errno == EINTR);
  return got;
}

void restore_signals(const InheritedSignals& inherited) {
  std::signal(SIGPIPE, inherited.pipe_ignored ? SIG_IGN : SIG_DFL);
  std::signal(SIGCHLD, inherited.child_ignored ? SIG_IGN : SIG_DFL);
  sigprocmask(SIG_SETMASK, &inherited.mask, nullptr);
}

[[noreturn]] void run_child(Pipe gate, Pipe report, char* const* arguments, const InheritedSignals& inherited) {
  gate.write.reset();  // else it would never see that its parent is gone
  report.read.reset();
  restore_signals(inherited);
  char go = 0;
  if (read_through_interrupts(gate.read.get(), &go, 1) != 1) _exit(126);
  execvp(arguments[0], arguments);
  const int error = errno;
  static_cast<void>(!write(report.write.get(), &error, sizeof(error)));
  _exit(exec_failure_exit_code(error));
}

}  // namespace

Result<HeldCommand> HeldCommand::fork(const std::vector<std::string>& words, const InheritedSignals& inherited) {
  auto gate = make_gate();
  if (!gate) return Failure(gate.error());
  auto report = make_pipe();
  if (!report) return Failure(report.error());
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));  // execvp() writes none
  arguments.push_back(nullptr);

  HeldCommand command;
  command.pid_ = ::fork();
  if (command.pid_ < 0) return fail_errno("start the command", errno);
  if (command.pid_ == 0) run_child(std::move(*gate), std::move(*report), arguments.data(), inherited);
  command.gate_ = std::move(gate->write);
  command.report_ = std::move(report->read);
  return command;
}

HeldCommand::HeldCommand(HeldCommand&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      gate_(std::move(other.gate_)),
      report_(std::move(other.report_)),
      end_(other.end_) {}

// What runs already is not ours to end; what was never released ends by itself when the gate closes.
HeldCommand::~HeldCommand() {
  if (pid_ <= 0 || end_ || !gate_) return;
  gate_.reset();
  static_cast<void>(wait_end());
}

int HeldCommand::release() {
  const char go = 1;
  // It may have been killed meanwhile: its end tells what happened.
  static_cast<void>(send(gate_.get(), &go, 1, MSG_NOSIGNAL));
  gate_.reset();
  int error = 0;
  const ssize_t got = read_through_interrupts(report_.get(), &error, sizeof(error));
  report_.reset();
  return got == sizeof(error) ? error : 0;
}

void HeldCommand::signal(int number) {
  if (!end_) kill(pid_, number);  // a zombie keeps its pid until it is waited for, which only we do
}

void HeldCommand::note_end(int status) { end_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

std::optional<int> HeldCommand::poll_end() {
  int status = 0;
  if (!end_ && waitpid(pid_, &status, WNOHANG) == pid_) note_end(status);
  return end_;
}

int HeldCommand::wait_end() {
  int status = 0;
  while (!end_) {
    const pid_t got = waitpid(pid_, &status, 0);
    if (got == pid_) {
      note_end(status);
    } else if (errno != EINTR) {
      end_ = 1;  // somebody else has waited for it; there is nothing to learn any more
    }
  }
  return *end_;
}

int exec_failure_exit_code(int error_number) { return error_number == ENOENT ? 127 : 126; }

}  // namespace stackwatch
