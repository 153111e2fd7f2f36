// SPDX-License-Identifier: Apache-2.0
#include "config/text.h"

#include <gtest/gtest.h>

#include <array>

namespace stackwatch {
namespace {

TEST(InQuotes, StaysOnOneShortLine) {
  EXPECT_EQ(in_quotes("a\nb\x1b[31m\x7f"), "\"a\\x0ab\\x1b[31m\\x7f\"");
  EXPECT_EQ(in_quotes(std::string(80, 'a')), '"' + std::string(80, 'a') + '"');
  EXPECT_EQ(in_quotes(std::string(81, 'a')), '"' + std::string(80, 'a') + "…\"");
  const std::string cut = in_quotes(std::string(79, 'a') + "üü");
  EXPECT_EQ(cut, '"' + std::string(79, 'a') + "…\"");  // no half character
}

TEST(Suggestion, NamesTheNearestOrAll) {
  constexpr std::array<std::string_view, 3> kKnown = {"frequency", "probes", "children"};
  EXPECT_EQ(suggestion("frequnecy", kKnown), "did you mean \"frequency\"?");
  EXPECT_EQ(suggestion("Frequency", kKnown), "did you mean \"frequency\"?");
  EXPECT_EQ(suggestion("probe", kKnown), "did you mean \"probes\"?");
  EXPECT_EQ(suggestion("colour", kKnown), "known: frequency, probes, children");
  EXPECT_EQ(suggestion("", kKnown), "known: frequency, probes, children");
  EXPECT_EQ(suggestion(std::string(100000, 'x'), kKnown), "known: frequency, probes, children");
  EXPECT_EQ(suggestion("x", {}), "");
}

TEST(FormatNumber, IsShortAndExact) {
  EXPECT_EQ(format_number(0), "0");
  EXPECT_EQ(format_number(-5), "-5");
  EXPECT_EQ(format_number(0.1), "0.1");
  EXPECT_EQ(format_number(1000000), "1000000");
  EXPECT_EQ(format_number(1e300), "1e+300");
  EXPECT_EQ(format_number(-0.0001234567890123456), "-0.0001234567890123456");
}

}  // namespace
}  // namespace stackwatch
