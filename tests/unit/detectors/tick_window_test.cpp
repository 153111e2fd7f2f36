// SPDX-License-Identifier: Apache-2.0
// Ticks that are kept: packed, and what comes out is what went in.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "detectors/level_window.h"
#include "detectors/stack_counts.h"

namespace stackwatch {
namespace {

void expect_same(const Tick& kept, Tick given) {
  EXPECT_EQ(kept.end_s, given.end_s);
  EXPECT_NEAR(kept.interval_s, given.interval_s, 1e-7 * given.interval_s + 1e-12);
  EXPECT_NEAR(kept.cpu_s, given.cpu_s, 1e-7 * given.cpu_s);
  EXPECT_NEAR(kept.total, given.total, 1e-7 * given.total);
  std::ranges::sort(given.entries, {}, &Tick::Entry::stack);
  ASSERT_EQ(kept.entries.size(), given.entries.size());
  for (size_t i = 0; i < given.entries.size(); ++i) {
    EXPECT_EQ(kept.entries[i].stack, given.entries[i].stack);
    EXPECT_EQ(kept.entries[i].count, given.entries[i].count);
  }
}

TEST(TickWindow, AnEmptyTickIsOne) {
  TickWindow window;
  window.push({});
  EXPECT_EQ(window.size(), 1U);
  expect_same(window.newest(), {});
}

TEST(TickWindow, KeepsStacksAndCountsOfAnyKind) {
  TickWindow window;
  const Tick tick{7.25,
                  1,
                  0.5,
                  12,
                  {{4095, 1},
                   {0, 1},
                   {3, 2},
                   {0xfffffffe, 3},
                   {64, 16777216},
                   {65, 1e9F},
                   {66, 0.001F},
                   {67, 1e-30F},
                   {5000, 127},
                   {5001, 128}}};
  window.push(tick);
  expect_same(window[0], tick);
}

TEST(TickWindow, GivesBackTheLastTicksWhateverTheyWere) {
  std::mt19937_64 random(1);
  TickWindow window;
  std::vector<Tick> given;
  for (int t = 0; t < 1000; ++t) {
    Tick tick{static_cast<double>(t), 1, 0.1, 1, {}};
    const size_t entries = t % 100 == 0 ? 3000 : random() % 100;
    uint32_t stack = 0;
    for (size_t i = 0; i < entries; ++i) {
      stack += 1 + static_cast<uint32_t>(random() % 200);
      const bool whole = random() % 2 == 0;
      tick.entries.push_back(
          {stack, whole ? static_cast<float>(random() % 300) : std::ldexp(1.5F, static_cast<int>(random() % 60) - 30)});
    }
    std::ranges::shuffle(tick.entries, random);
    window.push(tick);
    given.push_back(std::move(tick));
  }
  ASSERT_EQ(window.size(), TickWindow::kCapacity);
  EXPECT_EQ(window.pushed(), 1000U);
  for (size_t i = 0; i < window.size(); ++i) expect_same(window[i], given[given.size() - window.size() + i]);
  window.clear();
  EXPECT_EQ(window.size(), 0U);
  window.push(given[17]);
  expect_same(window[0], given[17]);
}

TEST(LevelWindow, KeepsSevenDigitsAndNothingThatIsNoNumber) {
  LevelWindow window;
  window.push({100000.123456, 1.0003, 0.1234567, 0.25, 0.5});
  EXPECT_EQ(window[0].end_s, 100000.123456);
  EXPECT_NEAR(window[0].amount, 0.1234567, 1e-8);
  EXPECT_NEAR(window[0].interval_s, 1.0003, 1e-7);
  window.push({100001, 1e-300, 1e300, -1e300, 5});
  EXPECT_TRUE(std::isfinite(window[1].rate()));
  EXPECT_TRUE(std::isfinite(window[1].wanted_rate()));
  EXPECT_TRUE(std::isfinite(window[1].own_rate()));
  EXPECT_GT(window[1].interval_s, 0);
}

TEST(LevelWindow, KeepsTimesGapsAndWhatWasWanted) {
  LevelWindow window;
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> part(0, 1);
  std::vector<LevelTick> given;
  double end_s = 1234.5;
  for (int i = 0; i < 3000; ++i) {
    const double gap_s = i % 50 == 7 ? 3.3 : i % 700 == 9 ? 40 * 86400.0 : 0;  // longer than 31 bits hold
    const double interval_s = i % 31 == 5 ? 100 * part(random) + 1e-4 : 0.9 + 0.2 * part(random);
    end_s += gap_s + interval_s;
    LevelTick tick{end_s, interval_s, part(random)};
    tick.wanted = tick.own = tick.amount;
    if (i > 1000) tick.wanted += part(random);
    if (i > 1000) tick.own -= part(random);
    window.push(tick);
    given.push_back(tick);
    if (i < 2) continue;
    // What is further back than 24 days is only known to be long ago.
    for (size_t k = window.size(); k-- > 0;) {
      const LevelTick& same = given[given.size() - window.size() + k];
      if (end_s - same.end_s > 23 * 86400.0) break;
      ASSERT_NEAR(window[k].end_s, same.end_s, 1.5e-3) << i;
      ASSERT_NEAR(window[k].interval_s, same.interval_s, 2.5e-3) << i << ' ' << k;
      ASSERT_NEAR(window[k].amount, same.amount, 1e-6);
      ASSERT_NEAR(window[k].wanted, same.wanted, 1e-6);
      ASSERT_NEAR(window[k].own, same.own, 1e-6);
    }
    if (i > 600) i += i % 3;  // not every step is compared
  }
  EXPECT_EQ(window.pushed(), given.size());
  EXPECT_EQ(window.size(), LevelWindow::kCapacity);
}

}  // namespace
}  // namespace stackwatch
