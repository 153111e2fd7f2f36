// SPDX-License-Identifier: Apache-2.0
#include "cli/launch.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "cli/output.h"
#include "cli/targets.h"
#include "cli/text.h"

namespace stackwatch {
namespace {

Result<UniqueFd> open_pidfd(int32_t pid) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));  // close-on-exec by itself
  const std::string what = "process " + std::to_string(pid);
  if (!fd && errno == ESRCH) return fail(what, "it has ended");
  if (!fd) return fail_errno(what, errno);
  return fd;
}

}  // namespace

Result<Launch> Launch::start(const TargetOptions& target, bool pipe_ignored) {
  Launch launch;
  launch.endless_ = target.all;
  if (auto checked = check_pids(Procfs(), target.pids); !checked) return Failure(checked.error());
  auto inbox = SignalInbox::open();
  if (!inbox) return Failure(inbox.error());
  launch.inbox_ = std::move(*inbox);
  launch.pids_ = target.pids;
  if (!target.command.empty()) {
    InheritedSignals inherited = launch.inbox_->inherited();
    inherited.pipe_ignored = pipe_ignored;
    auto command = HeldCommand::fork(target.command, inherited);
    if (!command) return Failure(command.error());
    launch.command_.emplace(std::move(*command));
    launch.command_name_ = target.command.front();
    launch.pids_ = {launch.command_->pid()};
  }
  for (const int32_t pid : launch.pids_) {
    auto fd = open_pidfd(pid);
    if (!fd) return Failure(fd.error());
    launch.alive_.push_back(std::move(*fd));
  }
  return launch;
}

bool Launch::release() {
  begun_ = true;
  if (!command_) return true;
  const int error = command_->release();
  if (error == 0) return true;
  exec_failed_ = exec_failure_exit_code(error);
  const Error told = fail_errno("run " + command_name_, error).value();
  static_cast<void>(!write_output(STDERR_FILENO, "stackwatch: " + safe_text(told.message()) + "\n"));
  static_cast<void>(command_->wait_end());
  return false;
}

void Launch::add_to(std::vector<pollfd>& entries) const {
  entries.push_back({inbox_->fd(), POLLIN, 0});
  for (const UniqueFd& process : alive_) entries.push_back({process.get(), POLLIN, 0});
}

void Launch::handle(std::span<const pollfd> entries) {
  take_signals();
  for (const pollfd& entry : entries.subspan(1)) {
    if (entry.revents == 0) continue;
    std::erase_if(alive_, [&entry](const UniqueFd& process) { return process.get() == entry.fd; });
  }
}

void Launch::take_signals() {
  while (const auto signal = inbox_->next()) {
    if (command_) {
      pass_on(*signal, *command_);
    } else if (signal->number == SIGTSTP) {
      raise(SIGSTOP);
    } else if (asks_to_end(signal->number)) {
      asked_to_stop_ = true;
    }
  }
}

int Launch::end_code() {
  if (!command_) return 0;
  while (!exec_failed_ && !alive_.empty()) {
    std::vector<pollfd> waiting;
    add_to(waiting);
    if (poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR) break;
    handle(waiting);
  }
  return exec_failed_ ? *exec_failed_ : command_->wait_end();
}

bool poll_until(std::vector<pollfd>& entries, uint64_t until_ns, const Clock& clock) {
  constexpr uint64_t kNsPerS = 1'000'000'000;
  const uint64_t now = clock.monotonic_ns();
  const uint64_t wait_ns = until_ns > now ? until_ns - now : 0;
  const timespec timeout{static_cast<time_t>(wait_ns / kNsPerS), static_cast<long>(wait_ns % kNsPerS)};
  return ppoll(entries.data(), entries.size(), &timeout, nullptr) > 0;
}

}  // namespace stackwatch
