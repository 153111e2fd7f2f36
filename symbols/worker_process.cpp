// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "symbols/protocol.h"

namespace stackwatch {
namespace {

bool may_pass(std::string_view variable) {
  static constexpr std::array<std::string_view, 4> kPassed{
      "LD_LIBRARY_PATH=", "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "TSAN_OPTIONS="};
  return std::any_of(kPassed.begin(), kPassed.end(), [&](std::string_view name) { return variable.starts_with(name); });
}

struct SpawnSettings {
  SpawnSettings() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
};

class ProgramSpawner final : public WorkerSpawner {
 public:
  explicit ProgramSpawner(std::string program) : program_(std::move(program)) {}

  Result<WorkerProcess> spawn() override {
    int pair[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return failed(errno);
    WorkerProcess worker;
    worker.socket = UniqueFd(pair[0]);
    const UniqueFd theirs(pair[1]);
    if (::fcntl(pair[0], F_SETFL, O_NONBLOCK) != 0) return failed(errno);  // ours alone: theirs is another description

    SpawnSettings settings;
    ::posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&settings.actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_adddup2(&settings.actions, theirs.get(), protocol::kWorkerSocket);
    // The loop blocks signals to read them from a descriptor, and ignores SIGPIPE; the worker must inherit neither.
    sigset_t none;
    sigset_t all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&settings.attributes, &none);
    ::posix_spawnattr_setsigdefault(&settings.attributes, &all);
    // A group of its own: Ctrl-C is for who has the terminal, who may need names for what it counted until then.
    ::posix_spawnattr_setpgroup(&settings.attributes, 0);
    ::posix_spawnattr_setflags(&settings.attributes,
                               POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

    std::vector<char*> environment;
    for (char** variable = ::environ; variable != nullptr && *variable != nullptr; ++variable) {
      if (may_pass(*variable)) environment.push_back(*variable);
    }
    environment.push_back(nullptr);
    char* const arguments[] = {program_.data(), nullptr};
    const int error = ::posix_spawn(&worker.pid, program_.c_str(), &settings.actions, &settings.attributes, arguments,
                                    environment.data());
    if (error != 0) return failed(error);
    worker.pidfd = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, worker.pid, 0)));  // close-on-exec by itself
    return worker;
  }

 private:
  Failure failed(int error) {
    return fail_errno("start the symbol worker " + program_, error, "until it runs, functions have no names");
  }

  std::string program_;
};

}  // namespace

std::unique_ptr<WorkerSpawner> make_program_spawner(std::string program) {
  return std::make_unique<ProgramSpawner>(std::move(program));
}

}  // namespace stackwatch
