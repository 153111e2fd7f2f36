// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/varlink.h"

#include <gtest/gtest.h>

namespace stackwatch {
namespace {

using namespace std::string_view_literals;

TEST(MessageBuffer, HasNothingUntilTheEndOfAMessageIsThere) {
  MessageBuffer buffer;
  EXPECT_FALSE(buffer.next());
  buffer.append("ab");
  EXPECT_FALSE(buffer.next());
  buffer.append("c\0d"sv);
  EXPECT_TRUE(buffer.ready());
  EXPECT_EQ(buffer.next(), "abc");
  EXPECT_FALSE(buffer.next());
  buffer.append("\0\0e\0"sv);
  EXPECT_EQ(buffer.next(), "d");
  EXPECT_EQ(buffer.next(), "");
  EXPECT_EQ(buffer.next(), "e");
  EXPECT_FALSE(buffer.next());
  EXPECT_EQ(buffer.size(), 0U);
}

TEST(MessageBuffer, AMessageOneByteTooLongIsNeverGiven) {
  MessageBuffer buffer;
  buffer.append(std::string(kMaxMessageBytes, 'x'));
  EXPECT_FALSE(buffer.overlong());
  buffer.append("\0"sv);
  EXPECT_EQ(buffer.next()->size(), kMaxMessageBytes);

  buffer.append(std::string(kMaxMessageBytes + 1, 'x'));
  EXPECT_TRUE(buffer.overlong());
  buffer.append("\0"sv);
  EXPECT_TRUE(buffer.overlong());
  EXPECT_FALSE(buffer.ready());
  EXPECT_FALSE(buffer.next());
}

TEST(ParseCall, RefusesWhatIsNoRequest) {
  for (const char* text : {"",
                           " ",
                           "x",
                           "[]",
                           "1",
                           "null",
                           "\"a\"",
                           "{",
                           "{}",
                           "{\"method\":1}",
                           "{\"method\":null}",
                           "{\"method\":\"a.B\"",
                           "{\"method\":\"a.B\"}x",
                           "{\"method\":\"a.B\",\"more\":1}",
                           "{\"method\":\"a.B\",\"oneway\":\"yes\"}",
                           "{\"method\":\"a.B\",\"upgrade\":{}}",
                           "{\"method\":\"a.B\",\"parameters\":[]}",
                           "{\"method\":\"a.B\",\"parameters\":\"\"}",
                           "{\"method\":\"a.B\",\"more\":true,\"oneway\":true}",
                           "{\"method\":\"\xFF\"}",
                           "{\"method\":\"a.B\",}",
                           "{'method':'a.B'}",
                           "{\"method\":\"a.B\",\"x\":NaN}"}) {
    EXPECT_FALSE(parse_call(text)) << text;
  }
}

TEST(ParseCall, RefusesDeepNestingHoweverItIsMade) {
  const auto nested = [](int depth, char open, char close) {
    return R"({"method":"a.B","parameters":{"x":)" + std::string(static_cast<size_t>(depth), open) +
           std::string(static_cast<size_t>(depth), close) + "}}";
  };
  EXPECT_TRUE(parse_call(nested(kMaxNesting - 2, '[', ']')));
  EXPECT_FALSE(parse_call(nested(kMaxNesting - 1, '[', ']')));
  EXPECT_FALSE(parse_call(std::string(60000, '[')));
  EXPECT_FALSE(parse_call(std::string(60000, '{')));
  std::string objects;
  for (int i = 0; i < 10000; ++i) objects += "{\"a\":";
  EXPECT_FALSE(parse_call(objects));
  EXPECT_TRUE(parse_call(R"({"method":"[[[[[[[[[[[[[[[[[[[[[[\"[[[[["})"));
}

TEST(ParseCall, ReadsARequest) {
  const auto call = parse_call(R"({"method":"a.B","parameters":{"x":1},"more":true,"later":[1]})");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->method, "a.B");
  EXPECT_TRUE(call->more);
  EXPECT_FALSE(call->oneway);
  EXPECT_EQ(call->parameters["x"].GetInt(), 1);
  EXPECT_TRUE(parse_call(R"({"method":"a.B"})")->parameters.IsObject());
  EXPECT_TRUE(parse_call(R"({"method":"a.B","parameters":null})")->parameters.IsObject());
}

TEST(Parameters, WrongTypesAndRangesAreBad) {
  const auto call =
      parse_call(R"({"method":"a.B","parameters":{"s":1,"i":1.5,"big":10,"huge":99999999999999999999,"n":"1","f":1}})");
  const auto bad = [&](auto take) {
    Parameters parameters(call->parameters);
    EXPECT_FALSE(take(parameters).has_value());
    return parameters.bad().value_or("none");
  };
  EXPECT_EQ(bad([](Parameters& p) { return p.text("s"); }), "s");
  EXPECT_EQ(bad([](Parameters& p) { return p.integer("i", 0, 9); }), "i");
  EXPECT_EQ(bad([](Parameters& p) { return p.integer("big", 0, 9); }), "big");
  EXPECT_EQ(bad([](Parameters& p) { return p.integer("huge", 0, INT64_MAX); }), "huge");
  EXPECT_EQ(bad([](Parameters& p) { return p.number("n", 0, 9); }), "n");
  EXPECT_EQ(bad([](Parameters& p) { return p.flag("f"); }), "f");
}

TEST(Parameters, AListOfTextsHoldsNothingElse) {
  const auto call =
      parse_call(R"({"method":"a.B","parameters":{"good":["a",""],"none":[],"mixed":["a",1],"text":"a"}})");
  Parameters parameters(call->parameters);
  EXPECT_EQ(parameters.texts("good"), (std::vector<std::string>{"a", ""}));
  EXPECT_EQ(parameters.texts("none"), std::vector<std::string>());
  EXPECT_FALSE(parameters.texts("absent"));
  EXPECT_FALSE(parameters.texts("mixed"));
  EXPECT_EQ(parameters.bad(), "mixed");
  Parameters others(call->parameters);
  EXPECT_FALSE(others.texts("text"));
  EXPECT_EQ(others.bad(), "text");
}

TEST(Parameters, OneThatNobodyAskedForIsBadAndNullIsAbsent) {
  const auto call = parse_call(R"({"method":"a.B","parameters":{"limit":null,"limt":1}})");
  Parameters parameters(call->parameters);
  EXPECT_FALSE(parameters.integer("limit", 1, 9));
  EXPECT_EQ(parameters.bad(), "limt");
  EXPECT_EQ(parameters.integer("limt", 1, 9), 1);
  EXPECT_FALSE(parameters.bad());
}

}  // namespace
}  // namespace stackwatch
