// SPDX-License-Identifier: Apache-2.0
#include "daemon/alerting/message.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <ctime>

#include "tests/unit/alerting/sample_alert.h"

namespace stackwatch {
namespace {

TEST(Printable, MakesControlCharactersVisible) {
  EXPECT_EQ(printable("a\nb\tc\x1b[31md\x7f", 100), "a\\x0ab\\x09c\\x1b[31md\\x7f");
  EXPECT_EQ(printable(std::string_view("a\0b", 3), 100), "a\\x00b");
}

TEST(Printable, MakesInvalidUtf8Visible) {
  EXPECT_EQ(printable("\xff\xfe", 100), "\\xff\\xfe");
  EXPECT_EQ(printable("\xc3", 100), "\\xc3") << "cut off";
  EXPECT_EQ(printable("\xe2\x82", 100), "\\xe2\\x82");
  EXPECT_EQ(printable("\xc0\xaf", 100), "\\xc0\\xaf") << "overlong";
  EXPECT_EQ(printable("\xe0\x80\xaf", 100), "\\xe0\\x80\\xaf");
  EXPECT_EQ(printable("\xed\xa0\x80", 100), "\\xed\\xa0\\x80") << "surrogate";
  EXPECT_EQ(printable("\xf4\x90\x80\x80", 100), "\\xf4\\x90\\x80\\x80") << "beyond Unicode";
  EXPECT_EQ(printable("\x80", 100), "\\x80");
}

TEST(Printable, MakesC1AndBidirectionalControlsVisible) {
  EXPECT_EQ(printable("\xc2\x9b", 100), "\\x9b");
  EXPECT_EQ(printable("a\xe2\x80\xae"
                      "b",
                      100),
            "a\\u{202E}b");
  EXPECT_EQ(printable("\xef\xbb\xbf", 100), "\\u{FEFF}");
}

TEST(Printable, LeavesPrintableTextAlone) {
  EXPECT_EQ(printable("", 100), "");
  EXPECT_EQ(printable("std::map<int, Größe>::find() const 日本 🙂", 100),
            "std::map<int, Größe>::find() const 日本 🙂");
}

TEST(Printable, CutsInTheMiddleBetweenCharacters) {
  EXPECT_EQ(printable("0123456789abcdefghij", 20), "0123456789abcdefghij");
  EXPECT_EQ(printable("0123456789abcdefghijk", 20), "012345678…defghijk");
  for (size_t max = 16; max < 60; ++max) {
    const std::string out = printable("äöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöü", max);
    EXPECT_LE(out.size(), max);
    EXPECT_EQ(printable(out, 1000), out) << "still UTF-8";
  }
  EXPECT_LE(printable(std::string(1000, 'x'), 0).size(), 16U);
}

class MessageTest : public testing::Test {
 protected:
  MessageTest() { set_zone("UTC"); }
  ~MessageTest() override { unsetenv("TZ"); }
  static void set_zone(const char* zone) {
    setenv("TZ", zone, 1);
    tzset();
  }
};

TEST_F(MessageTest, SaysTheSentenceOfTheContract) {
  EXPECT_EQ(message_of(sample_alert()),
            "redis-server[4711]: dictFind takes 4.3 % of its CPU time, was 1.1 %, since 12:03:20 (composition)");
}

TEST_F(MessageTest, SaysHowMuchTheWholeProcessUses) {
  EXPECT_EQ(message_of(sample_rate_alert()),
            "redis-server[4711]: uses 0.93 cores of CPU time, was 0.31, since 12:03:20 (rate)");
}

TEST_F(MessageTest, SaysNewSinceOfCodeThatNeverRan) {
  Alert alert = sample_alert();
  alert.detector = "novelty";
  alert.before = 0;
  EXPECT_EQ(message_of(alert),
            "redis-server[4711]: dictFind takes 4.3 % of its CPU time, new since 12:03:20 (novelty)");
  alert.frame.clear();
  alert.before = 0.011;
  alert.unit_of_measure = "share of samples in new stacks";
  EXPECT_EQ(message_of(alert),
            "redis-server[4711]: uses 4.3 % of its CPU time in new stacks, was 1.1 %, since 12:03:20 (novelty)");
}

TEST_F(MessageTest, SaysWhyItIsOver) {
  Alert alert = sample_alert();
  alert.state = AlertState::kResolved;
  alert.resolution = kBackToBaseline;
  EXPECT_EQ(
      message_of(alert),
      "redis-server[4711]: dictFind is back to about 1.1 % of its CPU time, was 4.3 % since 12:03:20 (composition)");
  alert.resolution = kProcessExited;
  EXPECT_EQ(message_of(alert),
            "redis-server[4711]: has exited; dictFind took 4.3 % of its CPU time, was 1.1 %, since 12:03:20 "
            "(composition)");
  alert.resolution = kNotWatched;
  EXPECT_EQ(message_of(alert),
            "redis-server[4711]: is no longer watched; dictFind took 4.3 % of its CPU time, was 1.1 %, since 12:03:20 "
            "(composition)");
  alert.resolution = kCountsAsNormal;
  EXPECT_EQ(message_of(alert),
            "redis-server[4711]: dictFind took 4.3 % of its CPU time, was 1.1 %, since 12:03:20, and this counts as "
            "normal now (composition)");
  Alert rate = sample_rate_alert();
  rate.state = AlertState::kResolved;
  rate.resolution = kBackToBaseline;
  EXPECT_EQ(message_of(rate),
            "redis-server[4711]: is back to about 0.31 cores of CPU time, was 0.93 since 12:03:20 (rate)");
}

TEST_F(MessageTest, UsesTheLocalTimeOfTheHost) {
  set_zone("XYZ-5:30");
  EXPECT_NE(message_of(sample_alert()).find("since 17:33:20"), std::string::npos);
}

TEST_F(MessageTest, SaysTheDateWhereItIsAnother) {
  Alert alert = sample_alert();
  alert.updated_ns += 12ULL * 3600 * 1'000'000'000;
  EXPECT_NE(message_of(alert).find("since 2026-11-22 12:03:20"), std::string::npos);
}

TEST_F(MessageTest, HostileNamesStayOnTheirLine) {
  Alert alert = sample_alert();
  alert.process.comm = "evil\n\x1b[2J";
  alert.frame = "f\r\xff" + std::string(5000, 'x');
  alert.detector = "d\n";
  const std::string message = message_of(alert);
  EXPECT_EQ(message.rfind("evil\\x0a\\x1b[2J[4711]: f\\x0d\\xffxxx", 0), 0U) << message;
  EXPECT_EQ(message.find_first_of("\n\r\x1b"), std::string::npos);
  EXPECT_LT(message.size(), 700U);
}

TEST_F(MessageTest, OtherProbesHaveTheirOwnWords) {
  Alert alert = sample_alert();
  alert.probe = ProbeKind::kBlocked;
  EXPECT_NE(message_of(alert).find("takes 4.3 % of its blocked time"), std::string::npos);
}

TEST_F(MessageTest, WholeProcessesHaveWordsForEachProbe) {
  Alert alert = sample_rate_alert();
  alert.unit_of_measure = "threads waiting";
  alert.probe = ProbeKind::kBlocked;
  EXPECT_NE(message_of(alert).find(": has 0.93 threads waiting for something else than a CPU, was 0.31, since"),
            std::string::npos);
  alert.probe = ProbeKind::kRunQueue;
  EXPECT_NE(message_of(alert).find(": has 0.93 threads waiting for a CPU, was 0.31, since"), std::string::npos);
  alert.probe = ProbeKind::kPageFault;
  alert.unit_of_measure = "faults per second";
  alert.after = 1200;
  EXPECT_NE(message_of(alert).find(": has 1200 faults per second, was 0.31, since"), std::string::npos);
}

TEST(ValueText, HasAUsefulNumberOfDigits) {
  EXPECT_EQ(value_text(0, "share of samples"), "0 %");
  EXPECT_EQ(value_text(0.0004, "share of samples"), "0.04 %");
  EXPECT_EQ(value_text(0.3021, "share of samples"), "30.2 %");
  EXPECT_EQ(value_text(1, "share of samples"), "100.0 %");
  EXPECT_EQ(value_text(0, "cores"), "0 cores");
  EXPECT_EQ(value_text(0.0123, "cores"), "0.012 cores");
  EXPECT_EQ(value_text(12.34, "cores"), "12.3 cores");
  EXPECT_EQ(value_text(12345.6, "faults per second"), "12346 faults per second");
  EXPECT_EQ(value_text(2, ""), "2.00");
}

TEST(Iso8601, IsUtcWithMicroseconds) {
  EXPECT_EQ(iso8601(0), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(iso8601(kSampleOnsetNs + 1'234'567), "2026-11-22T12:03:20.001234Z");
}

}  // namespace
}  // namespace stackwatch
