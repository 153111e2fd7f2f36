// SPDX-License-Identifier: Apache-2.0
#include "core/exact_json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

using namespace stackwatch;

namespace {

TEST(ExactJson, NumbersAreWhatWasWritten) {
  rapidjson::Document document;
  ASSERT_FALSE(parse_exact(R"({"a": 0.1, "b": [18446744073709551615, -9223372036854775808, 18446744073709551616],
                              "c": 7.038531e-26, "d": 9007199254740993.0, "e": -3, "f": true, "g": null, "h": "1.5"})",
                           document)
                   .IsError());
  EXPECT_EQ(document["a"].GetDouble(), 0.1);
  EXPECT_EQ(document["b"][0].GetUint64(), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(document["b"][1].GetInt64(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(document["b"][2].GetDouble(), 18446744073709551616.0);
  EXPECT_EQ(document["c"].GetDouble(), 7.038531e-26);
  EXPECT_EQ(document["d"].GetDouble(), 9007199254740992.0);
  EXPECT_EQ(document["e"].GetInt(), -3);
  EXPECT_TRUE(document["f"].IsTrue());
  EXPECT_TRUE(document["g"].IsNull());
  EXPECT_STREQ(document["h"].GetString(), "1.5");
}

TEST(ExactJson, ZerosWithAnExponent) {
  for (const char* text : {"[0e97]", "[0.000e-97]", "[0.0E+300]", "[-0e97]", "[-0]"}) {
    rapidjson::Document document;
    ASSERT_FALSE(parse_exact(text, document).IsError()) << text;
    EXPECT_EQ(document[0].GetDouble(), 0) << text;
  }
}

TEST(ExactJson, WhatIsNoJsonIsAnError) {
  for (const char* text : {"", "{", "[1,]", "[1e999]", "[01]", "[1.]", "[+1]", "[nan]", "{}x", "[\"\xff\"]", "0e97e"}) {
    rapidjson::Document document;
    EXPECT_TRUE(parse_exact(text, document).IsError()) << text;
  }
}

TEST(ExactJson, DeepNestingCostsNoStack) {
  rapidjson::Document document;
  EXPECT_TRUE(parse_exact(std::string(1'000'000, '['), document).IsError());
}

}  // namespace
