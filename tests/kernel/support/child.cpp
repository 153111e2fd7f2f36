// SPDX-License-Identifier: Apache-2.0
#include "tests/kernel/support/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "daemon/proc_census.h"

namespace stackwatch {

std::string test_program(const std::string& name) { return std::string(STACKWATCH_PROGRAMS) + "/" + name; }
std::string our_program(const std::string& name) { return std::string(STACKWATCH_BIN) + "/" + name; }

Child::Child(const std::vector<std::string>& command, Options options) {
  std::array<int, 2> gate{};
  std::array<int, 2> output{};
  if (pipe2(gate.data(), O_CLOEXEC) != 0 || pipe2(output.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  pid_ = fork();
  if (pid_ < 0) throw std::runtime_error("fork");
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    dup2(output[1], STDOUT_FILENO);
    dup2(output[1], STDERR_FILENO);
    close(gate[1]);
    char go = 0;
    if (options.stopped && read(gate[0], &go, 1) != 1) _exit(126);
    for (const std::string& variable : options.environment) putenv(strdup(variable.c_str()));
    std::vector<char*> arguments;
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(gate[0]);
  close(output[1]);
  gate_.reset(gate[1]);
  output_fd_.reset(output[0]);
  fcntl(output_fd_.get(), F_SETFL, O_NONBLOCK);
}

Child::~Child() {
  if (!status_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

void Child::go() {
  const char go = 1;
  if (write(gate_.get(), &go, 1) != 1) throw std::runtime_error("start the child");
}

ProcessKey Child::key() const { return key_of(pid_); }

void Child::signal(int number) const { kill(pid_, number); }

int Child::wait() {
  while (!status_) {
    read_available(50);
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
  }
  read_available(0);
  return *status_;
}

bool Child::running() {
  int status = 0;
  if (!status_ && waitpid(pid_, &status, WNOHANG) == pid_) {
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return !status_;
}

void Child::read_available(int timeout_ms) {
  pollfd waiting{output_fd_.get(), POLLIN, 0};
  if (poll(&waiting, 1, timeout_ms) <= 0) return;
  std::array<char, 65536> buffer{};
  for (;;) {
    const ssize_t got = read(output_fd_.get(), buffer.data(), buffer.size());
    if (got <= 0) break;
    output_.append(buffer.data(), static_cast<size_t>(got));
  }
  if ((waiting.revents & POLLHUP) != 0 && timeout_ms > 0) usleep(1000);
}

std::string Child::output() {
  read_available(0);
  return output_;
}

bool Child::wait_for(const std::string& text, double seconds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (output_.find(text) == std::string::npos) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    read_available(50);
    if (!running()) {
      read_available(0);
      return output_.find(text) != std::string::npos;
    }
  }
  return true;
}

ProcessKey key_of(pid_t pid) {
  const auto text = Procfs().read(pid, "stat");
  const auto stat = text ? parse_proc_stat(*text) : std::nullopt;
  if (!stat) throw std::runtime_error("no process " + std::to_string(pid));
  const auto ticks_per_s = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  return {pid, stat->start_ticks * (1'000'000'000 / ticks_per_s) / kStartTimeGranularityNs * kStartTimeGranularityNs};
}

uint64_t cpu_time_ns(pid_t pid) {
  const Procfs procfs;
  uint64_t total = 0;
  for (const int32_t tid : procfs.threads(pid)) {
    const auto text =
        read_small_file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(tid) + "/schedstat", 128);
    if (text) total += std::strtoull(text->c_str(), nullptr, 10);
  }
  return total;
}

}  // namespace stackwatch
