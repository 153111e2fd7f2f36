// SPDX-License-Identifier: Apache-2.0
#include "detectors/series.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <random>

namespace stackwatch {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kDay = 96;

/// A daily wave with noise.
std::vector<double> wave(size_t rows, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> noise(0, 0.05);
  std::vector<double> out(rows);
  for (size_t i = 0; i < rows; ++i) {
    out[i] = 10 + std::sin(2 * std::numbers::pi * static_cast<double>(i % kDay) / kDay) + noise(random);
  }
  return out;
}

std::vector<double> scores_of(const std::vector<double>& series, const SeriesSettings& settings = {}) {
  SeriesDetector detector(1, settings);
  std::vector<double> out;
  for (const double value : series) out.push_back(detector.observe(std::span(&value, 1)));
  return out;
}

double largest(const std::vector<double>& scores, size_t from, size_t to) {
  return *std::max_element(scores.begin() + static_cast<std::ptrdiff_t>(from),
                           scores.begin() + static_cast<std::ptrdiff_t>(to));
}

void expect_sane(const std::vector<double>& scores) {
  for (size_t i = 0; i < scores.size(); ++i) ASSERT_TRUE(scores[i] >= 0 && scores[i] <= 1) << i << ": " << scores[i];
}

TEST(SeriesDetector, SurvivesValuesThatMakeNoSense) {
  std::vector<double> series = wave(3000);
  const double odd[] = {kMissing, INFINITY, -INFINITY, 1e308, -1e308, 5e-324, 0};
  for (size_t i = 500; i < 2500; i += 50) series[i] = odd[i / 50 % std::size(odd)];
  expect_sane(scores_of(series));
}

TEST(SeriesDetector, FindsAgainAfterAHugeValue) {
  // Sums of distances lose their digits in 1e30; they must come back.
  std::vector<double> series = wave(4000);
  series[1000] = 1e30;
  for (size_t i = 3000; i < 3010; ++i) series[i] += 5;
  const std::vector<double> scores = scores_of(series);
  EXPECT_GT(largest(scores, 3000, 3010), 2 * largest(scores, 2000, 3000));
}

TEST(SeriesDetector, AMissingRowIsNoEvidence) {
  std::vector<double> series = wave(2000);
  for (size_t i = 1000; i < 1003; ++i) series[i] = kMissing;
  const std::vector<double> scores = scores_of(series);
  for (size_t i = 1000; i < 1003; ++i) EXPECT_EQ(scores[i], 0);
  EXPECT_LT(largest(scores, 1003, 2000), 0.6);
  for (const double score : scores_of(std::vector<double>(500, kMissing))) EXPECT_EQ(score, 0);
}

TEST(SeriesDetector, AFlatLineIsNothing) {
  for (const double score : scores_of(std::vector<double>(2000, 45.0))) EXPECT_EQ(score < 0.4, true) << score;
}

TEST(SeriesDetector, FindsASpikeAShiftAndAMissingPeak) {
  const std::vector<double> quiet_scores = scores_of(wave(3000));
  const double quiet = largest(quiet_scores, 1500, 3000);
  std::vector<double> spike = wave(3000);
  spike[2500] += 3;
  EXPECT_GT(largest(scores_of(spike), 2500, 2504), 1.3 * quiet);
  std::vector<double> shift = wave(3000);
  for (size_t i = 2500; i < 3000; ++i) shift[i] += 3;
  EXPECT_GT(largest(scores_of(shift), 2500, 2510), 1.3 * quiet);
  std::vector<double> no_peak = wave(3000);
  for (size_t i = 26 * kDay; i < 26 * kDay + kDay / 2; ++i) no_peak[i] = 10 + (no_peak[i] - 10) * 0.05;
  EXPECT_GT(largest(scores_of(no_peak), 26 * kDay, 27 * kDay), 1.3 * quiet);
}

TEST(SeriesDetector, IsCausal) {
  std::vector<double> series = wave(3000);
  for (size_t i = 1500; i < 1520; ++i) series[i] += 2;
  series[700] = kMissing;
  const std::vector<double> whole = scores_of(series);
  for (const size_t length : {1U, 50U, 701U, 1510U, 2999U}) {
    const std::vector<double> part = scores_of({series.begin(), series.begin() + static_cast<std::ptrdiff_t>(length)});
    for (size_t i = 0; i < length; ++i) ASSERT_EQ(part[i], whole[i]) << i << " of " << length;
  }
}

TEST(SeriesDetector, UnitsDoNotMatter) {
  std::vector<double> series = wave(2000);
  series[1500] += 3;
  std::vector<double> scaled = series;
  for (double& value : scaled) value = value * 1024 - 4096;
  const std::vector<double> a = scores_of(series);
  const std::vector<double> b = scores_of(scaled);
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-6) << i;
}

TEST(SeriesDetector, AnEpisodeCountsInFullOnce) {
  std::vector<double> series = wave(3000);
  series[2500] += 3;
  SeriesSettings settings;
  settings.repeated = 0;
  const std::vector<double> scores = scores_of(series, settings);
  size_t in_full = 0;
  for (size_t i = 2500; i < 2600; ++i) in_full += scores[i] > 0 ? 1 : 0;
  EXPECT_GE(in_full, 1U);
  EXPECT_LE(in_full, 4U) << "only rows that surprise more than those before";
}

TEST(SeriesDetector, KeepsItsBoundsOnALongSeries) {
  SeriesSettings settings;
  settings.history_rows = 256;
  settings.calibration_rows = 128;
  std::vector<double> series = wave(20000);
  for (size_t i = 19000; i < 19005; ++i) series[i] += 4;
  const std::vector<double> scores = scores_of(series, settings);
  expect_sane(scores);
  EXPECT_GT(largest(scores, 19000, 19005), 0.7);
}

TEST(SeriesDetector, AChangeInOneOfManyColumnsIsSeen) {
  std::vector<std::vector<double>> columns;
  for (size_t i = 0; i < 8; ++i) columns.push_back(wave(2500, i + 1));
  for (size_t i = 2200; i < 2210; ++i) columns[3][i] += 4;
  SeriesDetector detector(8);
  std::vector<double> scores;
  for (size_t i = 0; i < 2500; ++i) {
    std::vector<double> row;
    for (const auto& column : columns) row.push_back(column[i]);
    scores.push_back(detector.observe(row));
  }
  EXPECT_GT(largest(scores, 2200, 2210), largest(scores, 1000, 2200));
}

TEST(SeriesTail, RanksInTheMiddleAndGoesOnBeyondTheEnd) {
  SeriesTail tail(1000, 0.1);
  EXPECT_EQ(tail.surprise(5, 0), 0) << "nothing is known yet";
  for (int i = 1; i <= 1000; ++i) tail.add(i);
  EXPECT_NEAR(tail.surprise(501, 0), -std::log(501.0 / 1001), 1e-9);
  EXPECT_GT(tail.surprise(2000, 0), tail.surprise(1000, 0));
  EXPECT_LE(tail.surprise(1e300, 0), tail.most());
  EXPECT_LE(tail.surprise(1e-9, 1e-3), -std::log(1e-3) + 1);
}

TEST(SeriesTail, ForgetsWhatIsOlderThanItsCapacity) {
  SeriesTail tail(100, 0.1);
  for (int i = 0; i < 100; ++i) tail.add(1000);
  for (int i = 0; i < 100; ++i) tail.add(1);
  EXPECT_GT(tail.surprise(900, 0), 4);
}

}  // namespace
}  // namespace stackwatch
