// SPDX-License-Identifier: Apache-2.0
// Where stacks did not fit into their table: a function is blamed only for what cannot lie in [other].
#include "detectors/attribution.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/kernel_entry.h"

namespace stackwatch {
namespace {

constexpr double kSamples = 4000;

class Mix {
 public:
  Mix& stack(const std::vector<std::string>& frames, double before, double after) {
    std::vector<FunctionId> ids;
    for (const std::string& frame : frames) ids.push_back(function(frame));
    return add(stacks_.intern(ids), before, after);
  }
  Mix& other(double before, double after) { return add(StackTable::kOther, before, after); }

  /// "" where nobody is blamed.
  std::string blamed() {
    StackIndex index;
    index.follow(&stacks_);
    before_.total = after_.total = kSamples;
    before_.interval_s = after_.interval_s = 20;
    StackCounts before;
    StackCounts after;
    before.add(before_, index);
    after.add(after_, index);
    const auto cause = find_cause(index, before, after, {.names = &functions_});
    if (!cause) return "";
    return cause->function ? functions_[index.function(*cause->function)].name : "a stack";
  }

 private:
  // "libc/name", "vdso/name", or the program's own.
  FunctionId function(const std::string& frame) {
    for (const auto& [beginning, object] : {std::pair{"libc/", "libc"}, {"vdso/", "[vdso]"}}) {
      if (frame.starts_with(beginning)) return functions_.intern(object, frame.substr(5));
    }
    return functions_.intern(is_in_kernel(frame) ? "kernel" : "program", frame);
  }

  Mix& add(StackId id, double before, double after) {
    before_.entries.push_back({id.value, static_cast<float>(before * kSamples)});
    after_.entries.push_back({id.value, static_cast<float>(after * kSamples)});
    return *this;
  }

  FunctionTable functions_;
  StackTable stacks_;
  Tick before_;
  Tick after_;
};

TEST(Attribution, WhatAFunctionLostToOtherIsNotBlamedOnIt) {
  EXPECT_EQ(Mix().stack({"main", "call"}, 0.5, 0.42).stack({"main", "rest"}, 0.5, 0.5).other(0, 0.08).blamed(), "");
}

TEST(Attribution, WhatCameBackFromOtherIsNotBlamedOnWhoHasIt) {
  EXPECT_EQ(Mix().stack({"main", "call"}, 0.42, 0.5).stack({"main", "rest"}, 0.5, 0.5).other(0.08, 0).blamed(), "");
}

TEST(Attribution, AStackIsNotBlamedForWhatMayBeInOther) {
  Mix mix;
  mix.stack({"main", "a", "b"}, 0.3, 0.26).stack({"main", "b", "a"}, 0.7, 0.7);
  EXPECT_EQ(mix.other(0, 0.04).blamed(), "");
}

TEST(Attribution, MoreThanOtherCanHideIsBlamed) {
  EXPECT_EQ(Mix().stack({"main", "call"}, 0.5, 0.3).stack({"main", "rest"}, 0.5, 0.64).other(0, 0.06).blamed(), "rest");
  EXPECT_EQ(Mix().stack({"main", "call"}, 0.5, 0.3).stack({"main", "rest"}, 0.5, 0.65).other(0.05, 0.05).blamed(),
            "rest");
}

TEST(Attribution, WhoGrewWhileOtherGrewTooIsBlamed) {
  EXPECT_EQ(Mix().stack({"main", "hot"}, 0.1, 0.3).stack({"main", "rest"}, 0.9, 0.64).other(0, 0.06).blamed(), "hot");
}

// A lock that is held longer: as many system calls more as its caller has waits more, and some elsewhere.
TEST(Attribution, WhoCallsTheKernelIsNamedAndNotItsEntry) {
  const std::vector<std::string> lock{"main",
                                      "update_row",
                                      "libc/pthread_mutex_lock",
                                      "libc/__lll_lock_wait",
                                      "libc/futex_wait",
                                      "entry_SYSCALL_64_after_hwframe_[k]",
                                      "do_syscall_64_[k]"};
  const std::vector<std::string> read{"main", "load", "libc/__libc_pread64", "entry_SYSCALL_64_after_hwframe_[k]",
                                      "do_syscall_64_[k]"};
  Mix mix;
  mix.stack(lock, 0.08, 0.16).stack(read, 0.1, 0.11).stack({"main", "rest"}, 0.82, 0.73);
  EXPECT_EQ(mix.blamed(), "update_row");
}

TEST(Attribution, AFunctionBehindTheKernelsEntryIsNamed) {
  Mix mix;
  mix.stack({"main", "load", "libc/read", "do_syscall_64_[k]", "__x64_sys_read_[k]", "copy_to_user_[k]"}, 0.08, 0.16)
      .stack({"main", "rest"}, 0.92, 0.84);
  EXPECT_EQ(mix.blamed(), "copy_to_user_[k]");
}

TEST(Attribution, NoLoopAboveSeveralCallersIsNamedInsteadOfTheEntry) {
  Mix mix;
  for (const char* caller : {"a", "b", "c", "d"}) {
    mix.stack({"main", "worker_loop", caller, "libc/write", "do_syscall_64_[k]"}, 0.025, 0.05);
    mix.stack({"main", "worker_loop", caller}, 0.1, 0.1);
  }
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.5, 0.4).blamed(), "do_syscall_64_[k]");
}

TEST(Attribution, WhoHasNoNameIsNotNamedInsteadOfTheEntry) {
  Mix mix;
  mix.stack({"main", "[app]", "libc/write", "do_syscall_64_[k]"}, 0.1, 0.2);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.9, 0.8).blamed(), "do_syscall_64_[k]");
}

// A stripped C library names what it exports; what starts its threads and what its files work with is not among that.
TEST(Attribution, ACLibraryWithoutItsSymbolsIsNoCauseEither) {
  const std::vector<std::string> write{"log_line",
                                       "libc/fprintf",
                                       "libc/_IO_file_write",
                                       "libc/[libc.so.6]+0x86100",
                                       "libc/write",
                                       "entry_SYSCALL_64_after_hwframe_[k]",
                                       "do_syscall_64_[k]"};
  for (const std::vector<std::string>& root : {std::vector<std::string>{"libc/__libc_start_main", "main"},
                                               {"libc/[libc.so.6]+0x1098e1", "libc/[libc.so.6]+0x88ef0"},
                                               {"_start", "libc/[libc-2.31.so]+0x26d0a", "main"}}) {
    std::vector<std::string> stack = root;
    stack.insert(stack.end(), write.begin(), write.end());
    EXPECT_EQ(Mix().stack(stack, 0.1, 0.2).stack({"main", "rest"}, 0.9, 0.8).blamed(), "log_line") << root.front();
  }
}

TEST(Attribution, NorIsTheCLibraryWhereItsCallerHasNoName) {
  Mix mix;
  mix.stack({"libc/__libc_start_main", "[app]", "libc/fprintf", "libc/_IO_file_write", "libc/write",
             "entry_SYSCALL_64_after_hwframe_[k]", "do_syscall_64_[k]"},
            0.1, 0.2);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.9, 0.8).blamed(), "do_syscall_64_[k]");
}

TEST(Attribution, WhoReadsTheClockIsNamedAndNotTheVdso) {
  const std::vector<std::string> clock{"libc/__libc_start_main", "main", "stamp", "libc/clock_gettime",
                                       "vdso/__vdso_clock_gettime"};
  std::vector<std::string> by_call = clock;  // the clock of some virtual machines
  by_call.insert(by_call.end(), {"entry_SYSCALL_64_after_hwframe_[k]", "do_syscall_64_[k]"});
  for (const auto& stack : {clock, by_call}) {
    EXPECT_EQ(Mix().stack(stack, 0.1, 0.2).stack({"main", "rest"}, 0.9, 0.8).blamed(), "stamp") << stack.back();
  }
}

TEST(Attribution, NamesThatBeginLikeALocksAreAProgramsOwn) {
  for (const char* name : {"sem_postorder_visit", "futex_wait_table_scan", "lll_parser_run"}) {
    Mix mix;
    mix.stack({"libc/__libc_start_main", "main", "check", name, "libc/write", "do_syscall_64_[k]"}, 0.1, 0.2);
    EXPECT_EQ(mix.stack({"main", "rest"}, 0.9, 0.8).blamed(), name);
  }
}

TEST(Attribution, WhatTheCLibraryDoesOnTheWayIsNoCause) {
  Mix mix;
  mix.stack({"libc/__libc_start_main@@GLIBC_2.34", "main", "log_line", "libc/fprintf", "libc/_IO_file_write",
             "libc/write", "entry_SYSCALL_64_after_hwframe_[k]", "do_syscall_64_[k]"},
            0.1, 0.2);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.9, 0.8).blamed(), "log_line");
}

TEST(Attribution, WhatTheCLibraryComputesIsNamed) {
  Mix mix;
  mix.stack({"libc/__libc_start_main", "main", "render", "libc/__GI___qsort_r"}, 0.1, 0.3);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.9, 0.7).blamed(), "__GI___qsort_r") << "that is work, and nobody's way";
}

// Of one lock some wait and some wake: what both have in common lies behind the entry and says as little.
TEST(Attribution, TheStubOfASystemCallIsNoCause) {
  std::vector<std::string> wait{
      "main", "update_row", "libc/pthread_mutex_lock", "do_syscall_64_[k]", "__x64_sys_futex_[k]", "do_futex_[k]"};
  std::vector<std::string> wake = wait;
  wait.emplace_back("futex_wait_[k]");
  wake.emplace_back("futex_wake_[k]");
  Mix mix;
  mix.stack(wait, 0.05, 0.1).stack(wake, 0.05, 0.1);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.9, 0.8).blamed(), "update_row");
}

TEST(Attribution, WhoMakesGosRuntimeWaitIsNamed) {
  Mix lock;
  lock.stack({"runtime.goexit", "main.serve", "sync.(*Mutex).lockSlow", "runtime.semrelease1", "runtime.futexwakeup",
              "runtime.futex", "entry_SYSCALL_64_after_hwframe_[k]", "do_syscall_64_[k]"},
             0.1, 0.2);
  EXPECT_EQ(lock.stack({"main.rest"}, 0.9, 0.8).blamed(), "main.serve");
  Mix write;
  write.stack({"runtime.goexit", "main.logLine", "internal/poll.(*FD).Write", "syscall.write", "syscall.Syscall",
               "internal/runtime/syscall.Syscall6", "entry_SYSCALL_64_after_hwframe_[k]", "do_syscall_64_[k]"},
              0.1, 0.2);
  EXPECT_EQ(write.stack({"main.rest"}, 0.9, 0.8).blamed(), "main.logLine");
}

TEST(Attribution, AFunctionWithoutANameOfItsOwnIsStillOne) {
  Mix mix;
  mix.stack({"main", "[app]+0x1230", "libc/write", "do_syscall_64_[k]"}, 0.1, 0.2);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.9, 0.8).blamed(), "[app]+0x1230");
}

TEST(Attribution, AProgramsOwnFunctionThatCallsTheKernelIsNamedWhateverItsName) {
  Mix mix;
  mix.stack({"libc/__libc_start_main", "main", "query", "select", "libc/read", "entry_SYSCALL_64_after_hwframe_[k]",
             "do_syscall_64_[k]"},
            0.1, 0.2);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.9, 0.8).blamed(), "select");
}

TEST(Attribution, ACallOfAStaticallyLinkedLibraryIsNoCause) {
  Mix mix;
  mix.stack({"__libc_start_main", "main", "log_line", "__write_nocancel", "entry_SYSCALL_64_after_hwframe_[k]",
             "do_syscall_64_[k]"},
            0.1, 0.2);
  EXPECT_EQ(mix.stack({"__libc_start_main", "main", "rest"}, 0.9, 0.8).blamed(), "log_line");
}

TEST(Attribution, TheLocksOfAStaticallyLinkedLibraryAreNoCauseEither) {
  Mix mix;
  mix.stack({"main", "update_row", "pthread_mutex_unlock", "__lll_lock_wake", "do_syscall_64_[k]"}, 0.1, 0.2);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.9, 0.8).blamed(), "update_row");
}

TEST(Attribution, AnInterruptHasNoCallerToBlame) {
  Mix mix;
  mix.stack({"main", "work", "asm_sysvec_apic_timer_interrupt_[k]"}, 0.1, 0.2);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.9, 0.8).blamed(), "asm_sysvec_apic_timer_interrupt_[k]");
}

TEST(Attribution, AProgramsOwnFunctionMayBeCalledLikeACallOfTheSystem) {
  Mix mix;
  mix.stack({"main", "query", "select", "compare"}, 0.02, 0.03).stack({"main", "query", "select"}, 0.05, 0.15);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.93, 0.82).blamed(), "select");
}

TEST(Attribution, TheEntryIsNamedWhereNoCallerExplainsTheChange) {
  Mix mix;
  for (const char* caller : {"a", "b", "c", "d"}) mix.stack({"main", caller, "do_syscall_64_[k]"}, 0.05, 0.09);
  EXPECT_EQ(mix.stack({"main", "rest"}, 0.8, 0.64).blamed(), "do_syscall_64_[k]");
}

}  // namespace
}  // namespace stackwatch
