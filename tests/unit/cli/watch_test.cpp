// SPDX-License-Identifier: Apache-2.0
#include "cli/watch.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <limits>

#include "tests/fakes/fake_clock.h"
#include "tests/unit/cli/fake_daemon.h"

namespace stackwatch {
namespace {

std::string stat_line(const std::string& name, const std::string& start) {
  std::string line = "7 (" + name + ") S";
  for (int field = 4; field < 22; ++field) line += " 1";
  return line + " " + start + " 1 1 1\n";
}

TEST(StartTime, OfWhatIsNoStatIsNone) {
  for (const std::string& text : {std::string(), std::string("7"), std::string("7 (x"), std::string("7 (x)"),
                                  std::string("7 (x) S 1 1 1"), stat_line("x", "now"), stat_line("x", "-5")}) {
    EXPECT_FALSE(start_time_of_stat(text, 100)) << text;
  }
  EXPECT_FALSE(start_time_of_stat(stat_line("x", "5"), 0));
  EXPECT_FALSE(start_time_of(std::numeric_limits<int32_t>::max()));
}

TEST(StartTime, IsTheTwentySecondFieldWhateverTheName) {
  EXPECT_EQ(start_time_of_stat(stat_line("x", "123"), 100), 1'230'000'000U);
  EXPECT_EQ(start_time_of_stat(stat_line(") (R 1 2 3) 4", "123"), 100), 1'230'000'000U);
  ASSERT_TRUE(start_time_of(getpid()));
  EXPECT_GE(*start_time_of(getpid()), *start_time_of(1));
}

TEST(AddWatch, AProcessGoesWithItsStartTimeAndOneThatNobodySeesWithout) {
  FakeDaemon daemon;
  daemon.start();
  const SystemClock clock;
  auto client = Client::connect(daemon.path, clock);
  ASSERT_TRUE(client);
  WatchRequest request;
  request.pid = getpid();
  EXPECT_EQ(*add_watch(*client, request), "added-1");
  request.pid = std::numeric_limits<int32_t>::max();
  EXPECT_TRUE(add_watch(*client, request));
  daemon.stop();
  ASSERT_EQ(daemon.backend.start_times_ns.size(), 2U);
  EXPECT_EQ(daemon.backend.start_times_ns[0], start_time_of(getpid()));
  EXPECT_FALSE(daemon.backend.start_times_ns[1]);
}

}  // namespace
}  // namespace stackwatch
