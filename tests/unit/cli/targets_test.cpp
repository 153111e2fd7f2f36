// SPDX-License-Identifier: Apache-2.0
#include "cli/targets.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <string>
#include <thread>

namespace stackwatch {
namespace {

std::string problem(int32_t pid) {
  const auto checked = check_pids(Procfs(), std::span(&pid, 1));
  return checked ? "" : checked.error().message();
}

TEST(Targets, ALivingProcessIsOne) { EXPECT_EQ(problem(getpid()), ""); }

TEST(Targets, NobodyHasAPidThisLarge) {
  EXPECT_EQ(problem(2147483647), "process 2147483647: there is no such process");
}

TEST(Targets, AThreadIsNoProcess) {
  std::promise<pid_t> tid;
  std::promise<void> done;
  std::thread thread([&] {
    tid.set_value(static_cast<pid_t>(syscall(SYS_gettid)));
    done.get_future().wait();
  });
  const std::string text = problem(tid.get_future().get());
  done.set_value();
  thread.join();
  EXPECT_NE(text.find("it is a thread of process " + std::to_string(getpid())), std::string::npos) << text;
}

TEST(Targets, AZombieHasEnded) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  siginfo_t info{};
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_NE(problem(child).find("it has ended already"), std::string::npos) << problem(child);
  waitpid(child, nullptr, 0);
}

TEST(Targets, KernelThreadsAreRefused) {
  if (getuid() != 0 || access("/proc/2/stat", R_OK) != 0) GTEST_SKIP() << "REQUIRES kernel threads in /proc";
  EXPECT_NE(problem(2).find("it is a thread of the kernel"), std::string::npos) << problem(2);
}

}  // namespace
}  // namespace stackwatch
