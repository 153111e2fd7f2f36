// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "core/process.h"

namespace stackwatch {

/// The key of a process as the census would give it.
inline ProcessKey key_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string stat((std::istreambuf_iterator<char>(file)), {});
  std::istringstream fields(stat.substr(stat.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 19; ++i) fields >> skipped;
  uint64_t ticks = 0;
  fields >> ticks;
  return {pid, ticks * (1'000'000'000ULL / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK)))};
}

/// A running target program (targets/target.cpp), killed at the end.
class TargetProcess {
 public:
  struct Where {
    uint64_t file_offset = 0;
    uint64_t address = 0;
  };

  explicit TargetProcess(const std::string& path) {
    int input[2];
    int output[2];
    if (::pipe2(input, O_CLOEXEC) != 0 || ::pipe2(output, O_CLOEXEC) != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(input[0], STDIN_FILENO);
      ::dup2(output[1], STDOUT_FILENO);
      ::execl(path.c_str(), path.c_str(), static_cast<char*>(nullptr));
      ::_exit(127);
    }
    ::close(input[0]);
    ::close(output[1]);
    input_ = input[1];
    output_ = ::fdopen(output[0], "r");
    read_places();
  }
  ~TargetProcess() {
    end();
    ::close(input_);
    std::fclose(output_);
  }
  TargetProcess(const TargetProcess&) = delete;
  TargetProcess& operator=(const TargetProcess&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] Where where(const std::string& function) const { return places_.at(function); }
  void exec(const std::string& path) {
    const std::string order = "exec " + path + "\n";
    if (::write(input_, order.data(), order.size()) > 0) read_places();
  }
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  void read_places() {
    places_.clear();
    char name[64];
    unsigned long offset = 0;
    unsigned long address = 0;
    while (std::fscanf(output_, "%63s", name) == 1 && std::string(name) != "end") {
      if (std::fscanf(output_, "%lx %lx", &offset, &address) == 2) places_[name] = {offset, address};
    }
  }

  pid_t pid_ = -1;
  int input_ = -1;
  std::FILE* output_ = nullptr;
  std::map<std::string, Where> places_;
};

}  // namespace stackwatch
