// SPDX-License-Identifier: Apache-2.0
#include "detectors/day_profile.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "detectors/level_change.h"

namespace stackwatch {
namespace {

constexpr int64_t kDay = 86400;
constexpr int64_t kFirst = 20'000;  // of the days that are simulated

using Pattern = std::function<double(int64_t day, double hour)>;
double office(int64_t, double hour) { return hour >= 9 && hour < 17 ? 4 : 1; }

void pass_day(DayProfile& profile, int64_t day, const Pattern& pattern) {
  for (int64_t s = 60; s <= kDay; s += 60) {
    const double rate = pattern(day, static_cast<double>(s - 60) / 3600);
    profile.observe(day * kDay + s - 1, 60 * rate, 60);
  }
}

int64_t at(int64_t day, double hour) { return day * kDay + static_cast<int64_t>(hour * 3600); }
int64_t bin_at(int64_t day, double hour) { return at(day, hour) / DayProfile::kBinS; }

TEST(DayProfileBadInput, WhatIsNoTimeOrNoTickIsNotKnown) {
  DayProfile profile;
  for (const int64_t never : {int64_t{-1}, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()}) {
    for (int i = 0; i < 100; ++i) profile.observe(never, 60, 60);
    EXPECT_FALSE(profile.around(never));
  }
  for (int64_t day = 0; day < 5; ++day) profile.observe(at(kFirst + day, 12), 1e5, 86400);  // asleep for a day
  EXPECT_TRUE(profile.empty());
  EXPECT_FALSE(profile.usual(bin_at(kFirst + 5, 12)));
}

TEST(DayProfileBadInput, ClocksThatJumpCostADayAtMost) {
  DayProfile profile;
  for (int64_t day = 0; day < 6; ++day) {
    for (int64_t s = 60; s <= kDay; s += 60) {
      const double hour = static_cast<double>(s - 60) / 3600;
      profile.observe(at(kFirst + day, 0) + s - 1, 60 * office(day, hour), 60);
      // An hour back and forth, a day, ten years, 1970.
      for (const int64_t jump : {-3600L, 3600L, kDay, 3650 * kDay, -kFirst * kDay}) {
        if (s % 7200 == 0) profile.observe(at(kFirst + day, 0) + s + jump, 60 * 1000, 60);
      }
    }
  }
  for (const double hour : {3.0, 12.0}) {
    const auto usual = profile.usual(bin_at(kFirst + 6, hour));
    ASSERT_TRUE(usual) << hour;
    EXPECT_NEAR(usual->high, office(0, hour), 0.1) << hour;
  }
}

TEST(DayProfile, KnowsNothingBeforeThreeDays) {
  DayProfile profile;
  for (int64_t day = 0; day < 2; ++day) pass_day(profile, kFirst + day, office);
  EXPECT_FALSE(profile.usual(bin_at(kFirst + 2, 12)));
  pass_day(profile, kFirst + 2, office);
  const auto noon = profile.usual(bin_at(kFirst + 3, 12));
  ASSERT_TRUE(noon);
  EXPECT_NEAR(noon->high, 4, 0.02);
  EXPECT_NEAR(noon->low, 4, 0.02);
  const auto morning = profile.around(at(kFirst + 3, 9.1));
  ASSERT_TRUE(morning);
  EXPECT_NEAR(morning->now.high, 4, 0.02);
  EXPECT_NEAR(morning->before.high, 1, 0.02) << "it rises at this time";
  const auto noon_around = profile.around(at(kFirst + 3, 12));
  ASSERT_TRUE(noon_around);
  EXPECT_NEAR(noon_around->before.high, 4, 0.02) << "and not at this";
}

TEST(DayProfile, WhatThreeOfSevenDaysDoIsUsualAndWhatTwoDoIsNot) {
  for (const int64_t busy : {2, 3}) {
    DayProfile profile;
    for (int64_t day = 0; day < 7; ++day)
      pass_day(profile, kFirst + day,
               [&](int64_t d, double hour) { return d - kFirst < busy ? office(d, hour) : 1.0; });
    const auto noon = profile.usual(bin_at(kFirst + 7, 12));
    ASSERT_TRUE(noon);
    EXPECT_NEAR(noon->high, busy == 3 ? 4 : 1, 0.02);
    EXPECT_NEAR(noon->low, 1, 0.02);
  }
}

TEST(DayProfile, DaysLongAgoAreForgotten) {
  DayProfile profile;
  for (int64_t day = 0; day < 7; ++day) pass_day(profile, kFirst + day, office);
  EXPECT_TRUE(profile.usual(bin_at(kFirst + 9, 12)));
  EXPECT_FALSE(profile.usual(bin_at(kFirst + 13, 12))) << "two of these are among the last seven";
}

TEST(DayProfile, IsTheSameAfterSavingAndGarbageChangesNothing) {
  DayProfile profile;
  for (int64_t day = 0; day < 5; ++day) pass_day(profile, kFirst + day, office);
  const auto save = [](const DayProfile& each) {
    SavedWriter out;
    each.save(out);
    return out.take();
  };
  const std::string saved = save(profile);
  EXPECT_LE(saved.size(), 1000U) << "a series may cost 1 kB";
  DayProfile again;
  SavedReader whole(saved);
  again.restore(whole);
  ASSERT_TRUE(whole.ok() && whole.at_end());
  EXPECT_EQ(save(again), saved);
  for (size_t length = 0; length < saved.size(); ++length) {
    SavedReader cut(std::string_view(saved).substr(0, length));
    again.restore(cut);
    ASSERT_FALSE(cut.ok()) << length;
  }
  for (size_t i = 0; i < saved.size(); ++i) {
    std::string damaged = saved;
    damaged[i] = static_cast<char>(damaged[i] ^ 0xff);
    SavedReader in(damaged);
    again.restore(in);
    const auto noon = again.usual(bin_at(kFirst + 5, 12));
    if (noon) {
      ASSERT_TRUE(std::isfinite(noon->high) && noon->high >= 0 && noon->low >= 0) << i;
    }
  }
}

// ---- what it does to the judgement of a level

/// A service whose CPU time follows the clock, in ticks of ten seconds.
class Days {
 public:
  static constexpr double kTickS = 10;

  Days(uint64_t seed, bool knows_time, double relative = 0.5) : random_(seed), knows_time_(knows_time) {
    policy_.tick_s = kTickS;
    options_.min_relative_change = relative;
    core_.emplace(policy_, options_);
  }
  /// Claims that began on this day.
  int pass(int64_t day, const Pattern& pattern) {
    int claims = 0;
    for (double s = 0; s < kDay; s += kTickS) claims += tick(day, s, pattern(day, s / 3600)) ? 1 : 0;
    return claims;
  }
  /// Whether a claim begins.
  bool tick(int64_t day, double s, double cores) {
    time_s_ += kTickS;
    state_ = 0.9 * state_ + std::sqrt(1 - 0.81) * normal_(random_);
    LevelTick tick{time_s_, kTickS, kTickS * cores * std::exp(0.1 * state_)};
    tick.wanted = tick.amount;
    if (knows_time_) tick.local_s = (kFirst + day) * kDay + static_cast<int64_t>(s);
    const bool claims = core_->observe(tick).has_value();
    return claims && !std::exchange(claimed_, claims) ? true : (claimed_ = claims, false);
  }
  void restart() {
    const auto heritage = core_->heritage();
    core_.emplace(policy_, options_);
    if (heritage) core_->inherit(*heritage);
    claimed_ = false;
  }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  bool knows_time_;
  DetectionPolicy policy_;
  LevelChange::Options options_;
  std::optional<LevelChange> core_;
  double state_ = 0;
  double time_s_ = 0;
  bool claimed_ = false;
};

TEST(TimeOfDay, ALoadThatComesEachDayIsToldOnThreeDays) {
  const Pattern doubles = [](int64_t, double hour) { return hour >= 9 && hour < 17 ? 0.8 : 0.4; };
  for (const bool knows : {false, true}) {
    Days service(1, knows);
    for (int64_t day = 0; day < 12; ++day) {
      const int claims = service.pass(day, doubles);
      if (day < 3 || !knows) {
        EXPECT_GE(claims, 1) << day;
      }
      if (day >= 3 && knows) {
        EXPECT_EQ(claims, 0) << day;
      }
    }
  }
}

TEST(TimeOfDay, WorkingDaysAreUsualAndSoIsAWeekend) {
  Days service(2, true);
  const Pattern week = [](int64_t day, double hour) { return day % 7 < 5 && hour >= 9 && hour < 17 ? 1.6 : 0.4; };
  for (int64_t day = 0; day < 21; ++day) {
    const int claims = service.pass(day, week);
    if (day >= 3) {
      EXPECT_EQ(claims, 0) << day;
    }
  }
}

TEST(TimeOfDay, ItMayComeEarlyOrLate) {
  Days service(3, true);
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> jitter(-0.4, 0.4);
  double begin = 9;
  for (int64_t day = 0; day < 14; ++day) {
    begin = 9 + jitter(random);
    const int claims = service.pass(day, [&](int64_t, double hour) { return hour >= begin && hour < 17 ? 1.6 : 0.4; });
    if (day >= 4) {
      EXPECT_EQ(claims, 0) << day;
    }
  }
}

TEST(TimeOfDay, AChangeAtAnotherHourOrAboveTheUsualIsFoundAsFast) {
  for (const double hour : {3.0, 12.0, 9.01}) {
    const double factor = 3;  // at nine: three times what comes at nine
    std::array<int, 2> delay{};
    for (const bool knows : {false, true}) {
      Days service(4, knows);
      for (int64_t day = 0; day < 10; ++day) (void)service.pass(day, office);
      int ticks = 0;
      for (double s = 0; s < kDay && delay[knows] == 0; s += Days::kTickS) {
        const bool changed = s >= hour * 3600;
        const bool found = service.tick(10, s, office(10, s / 3600) * (changed ? factor : 1));
        if (!changed) continue;
        ++ticks;
        if (found) delay[knows] = ticks;
      }
    }
    EXPECT_GT(delay[1], 0) << hour;
    EXPECT_LE(delay[1], delay[0] + 6) << hour << ": no more than a minute later";
  }
}

TEST(TimeOfDay, WhatDoesNotRepeatIsToldAsOften) {
  std::array<int, 2> claims{};
  for (const bool knows : {false, true}) {
    Days service(5, knows);
    std::mt19937_64 random(5);
    std::uniform_real_distribution<double> begins(0, 22);
    for (int64_t day = 0; day < 28; ++day) {
      const double begin = begins(random);
      claims[knows] +=
          service.pass(day, [&](int64_t, double hour) { return hour >= begin && hour < begin + 1 ? 2.0 : 0.4; });
    }
  }
  EXPECT_GE(claims[0], 28);
  EXPECT_GE(claims[1], claims[0] - 3);
}

TEST(TimeOfDay, ARegressionThatWasFixedIsToldWhenItComesBack) {
  Days service(6, true);
  const auto all_day = [&](int64_t day, double cores) {
    return service.pass(day, [=](int64_t, double) { return cores; });
  };
  for (int64_t day = 0; day < 4; ++day) EXPECT_EQ(all_day(day, 0.4), 0);
  EXPECT_EQ(all_day(4, 2), 1);
  for (int64_t day = 5; day < 8; ++day) EXPECT_EQ(all_day(day, 2), 0);
  EXPECT_EQ(all_day(8, 0.4), 1);
  EXPECT_EQ(all_day(9, 2), 1) << "four of the last seven days were like this, but at all hours";
}

TEST(TimeOfDay, IsHandedOn) {
  Days service(7, true);
  for (int64_t day = 0; day < 5; ++day) (void)service.pass(day, office);
  service.restart();
  EXPECT_EQ(service.pass(5, office), 0);
}

}  // namespace
}  // namespace stackwatch
