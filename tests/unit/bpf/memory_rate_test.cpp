// SPDX-License-Identifier: Apache-2.0
#include "bpf/memory_rate.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace stackwatch {
namespace {

constexpr pid_t kPid = 42;
constexpr uint64_t kSecond = 1'000'000'000;
constexpr double kLimit = 5;

class MemoryRateTest : public ::testing::Test {
 protected:
  MemoryRateTest() { std::filesystem::create_directories(root_ / "42"); }
  ~MemoryRateTest() override { std::filesystem::remove_all(root_); }

  // In the file that is open already: it is written anew, not replaced.
  void write_stat(const std::string& text) const { std::ofstream(root_ / "42" / "stat", std::ios::trunc) << text; }
  void use_cpu(double seconds, const std::string& name = "(x)") const {
    const auto ticks = static_cast<uint64_t>(seconds * static_cast<double>(::sysconf(_SC_CLK_TCK)));
    write_stat("42 " + name + " S 1 1 1 0 -1 0 0 0 0 0 " + std::to_string(ticks / 2) + " " +
               std::to_string(ticks - ticks / 2) + " 0 0 20 0 1 0 100 0 0\n");
  }
  bool is_too_slow(uint64_t calls, double cost_s, double at_s) {
    return rate_.is_too_slow({calls, cost_s * 1e9}, static_cast<uint64_t>(at_s * 1e9) + kSecond, kLimit);
  }
  void begin() { rate_.begin(kPid, kSecond); }

  std::filesystem::path root_ = std::filesystem::temp_directory_path() / ("rate-" + std::to_string(::getpid()));
  MemoryRate rate_{root_.string()};
};

TEST_F(MemoryRateTest, AProcessThatIsGoneIsNeverTooSlow) {
  std::filesystem::remove_all(root_ / "42");
  begin();
  EXPECT_FALSE(is_too_slow(1'000'000, 100, 10));
}

TEST_F(MemoryRateTest, AFileThatMakesNoSenseTellsNothing) {
  for (const char* text : {"", "42", "42 (x", "42 (x)", "42 (x) S 1 1 1 0 -1 0 0 0 0 0",
                           "42 (x) S 1 1 1 0 -1 0 0 0 0 0 7", "42 (x) S 1 1 1 0 -1 0 0 0 0 0 7 y"}) {
    write_stat(text);
    begin();
    EXPECT_FALSE(is_too_slow(1'000'000, 100, 10)) << '"' << text << '"';
  }
}

TEST_F(MemoryRateTest, ANameMayHoldAnything) {
  use_cpu(0, "(a) S 1 1 (b c)");
  begin();
  use_cpu(2, "(a) S 1 1 (b c)");
  EXPECT_TRUE(is_too_slow(1'000'000, 1, 5));
  EXPECT_NEAR(rate_.overhead_percent(), 100, 1);
}

TEST_F(MemoryRateTest, OverheadIsOfTheTimeThatTheProcessTakesItself) {
  use_cpu(10);
  begin();
  use_cpu(11.1);
  EXPECT_TRUE(is_too_slow(100'000, 0.1, 5)) << "0.1 s of 1 s";
  EXPECT_NEAR(rate_.overhead_percent(), 10, 0.01);
  EXPECT_NEAR(rate_.calls_per_s(), 20'000, 1);
  EXPECT_NEAR(rate_.ns_per_call(), 1000, 1);
}

TEST_F(MemoryRateTest, UnderTheLimitIsWell) {
  use_cpu(0);
  begin();
  use_cpu(5);
  EXPECT_FALSE(is_too_slow(100'000, 0.2, 5));
  EXPECT_NEAR(rate_.overhead_percent(), 100 * 0.2 / 4.8, 0.01);
}

TEST_F(MemoryRateTest, ALittleTooMuchIsLookedAtForAWholeWindow) {
  use_cpu(0);
  begin();
  use_cpu(1.1);
  EXPECT_FALSE(is_too_slow(100'000, 0.1, 2));
  use_cpu(2.2);
  EXPECT_TRUE(is_too_slow(200'000, 0.2, 5));
}

TEST_F(MemoryRateTest, FarTooMuchIsActedOnAtOnceButNotInItsFirstMoments) {
  use_cpu(0);
  begin();
  use_cpu(1);
  EXPECT_FALSE(is_too_slow(500'000, 0.5, 0.5));
  EXPECT_TRUE(is_too_slow(500'000, 0.5, 1));
}

TEST_F(MemoryRateTest, WhatCostsNextToNothingIsNeverTooMuch) {
  use_cpu(0);
  begin();
  EXPECT_FALSE(is_too_slow(1000, 0.004, 5)) << "all of the little CPU time of an idle process";
  EXPECT_TRUE(is_too_slow(10'000, 0.04, 5.1 + 5));
}

TEST_F(MemoryRateTest, EachWindowStandsForItself) {
  use_cpu(0);
  begin();
  use_cpu(2);
  EXPECT_TRUE(is_too_slow(1'000'000, 1, 5));
  use_cpu(7);
  EXPECT_FALSE(is_too_slow(1'010'000, 1.01, 10)) << "the earlier one is over";
  EXPECT_NEAR(rate_.calls_per_s(), 2000, 1);
}

}  // namespace
}  // namespace stackwatch
