// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

namespace stackwatch {
namespace {

/// The wait status of a child that confines itself and then does something.
int status_of(const std::function<int()>& act) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(filter_system_calls() ? act() : 99);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

class SystemCallFilter : public ::testing::Test {
 protected:
  void SetUp() override {
#ifdef STACKWATCH_SANITIZED
    GTEST_SKIP() << "REQUIRES a build without sanitizers, which need more system calls than the worker has";
#endif
  }
};

TEST_F(SystemCallFilter, OpeningAFileIsRefused) {
  const int status = status_of([] { return ::open("/etc/passwd", O_RDONLY) < 0 && errno == EPERM ? 7 : 1; });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
}

TEST_F(SystemCallFilter, ReadingWhatIsOpenWorks) {
  const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  const int status = status_of([file] {
    char byte = 0;
    void* const memory = ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return ::pread(file, &byte, 1, 0) == 1 && memory != MAP_FAILED && ::memfd_create("own", MFD_CLOEXEC) >= 0 ? 7 : 1;
  });
  ::close(file);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
}

TEST_F(SystemCallFilter, EverythingElseEndsTheProcess) {
  const std::function<int()> forbidden[] = {
      [] { return ::socket(AF_UNIX, SOCK_STREAM, 0); },
      [] { return ::socket(AF_INET, SOCK_STREAM, 0); },
      [] { return ::execl("/bin/true", "true", static_cast<char*>(nullptr)); },
      [] { return static_cast<int>(::syscall(SYS_fork)); },
      [] { return ::kill(::getppid(), 0); },
      [] { return static_cast<int>(::syscall(SYS_ptrace, 0, 0, 0, 0)); },
      [] { return static_cast<int>(::syscall(SYS_bpf, 0, nullptr, 0)); },
      [] { return ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED; },
  };
  for (size_t i = 0; i < std::size(forbidden); ++i) {
    const int status = status_of(forbidden[i]);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << "number " << i << ": " << status;
  }
}

}  // namespace
}  // namespace stackwatch
