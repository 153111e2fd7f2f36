// SPDX-License-Identifier: Apache-2.0
#include "daemon/state/baseline_blob.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace stackwatch {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const std::string kBytes("\0\xff\n", 3);
const std::vector<LearnedPart> kParts = {{ProbeKind::kOnCpu, "composition", kBytes},
                                         {ProbeKind::kPageFault, "composition", ""},
                                         {ProbeKind::kCensus, "rate", "x"}};

TEST(BaselineBlob, BytesThatAreCutOffAnywhereGiveTheWholePartsOrAnError) {
  const auto whole = encode_learned(kParts);
  size_t errors = 0;
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto cut = decode_learned(std::span(whole).first(size));
    if (!cut) {
      ++errors;
      EXPECT_THAT(cut.error().message(), HasSubstr("cut off"));
    } else {
      EXPECT_LT(cut->size(), kParts.size());
      for (size_t i = 0; i < cut->size(); ++i) EXPECT_EQ((*cut)[i], kParts[i]);
    }
  }
  EXPECT_EQ(errors, whole.size() - kParts.size()) << "between two parts, and nowhere else, the bytes make sense";
}

TEST(BaselineBlob, AnyByteMayBeWrongWithoutHarm) {
  const auto whole = encode_learned(kParts);
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const auto wrong : {std::byte{0}, std::byte{1}, std::byte{0x7f}, std::byte{0xff}}) {
      auto damaged = whole;
      damaged[at] = wrong;
      const auto parts = decode_learned(damaged);
      if (parts) {
        EXPECT_THAT(*parts, SizeIs(kParts.size())) << at;
      }
    }
  }
}

TEST(BaselineBlob, AProbeThatNobodyKnowsAndTooManyPartsAreErrors) {
  auto blob = encode_learned(kParts);
  blob[4] = std::byte{'x'};  // of "on_cpu"
  ASSERT_FALSE(decode_learned(blob));
  EXPECT_THAT(decode_learned(blob).error().message(), HasSubstr("probe"));
  const std::vector<LearnedPart> many(kMaxLearnedParts + 1, kParts[0]);
  ASSERT_FALSE(decode_learned(encode_learned(many)));
  EXPECT_THAT(decode_learned(encode_learned(many)).error().message(), HasSubstr("too many"));
  EXPECT_TRUE(decode_learned(encode_learned(std::span(many).first(kMaxLearnedParts))));
}

TEST(BaselineBlob, WhatIsEncodedIsDecoded) {
  const auto blob = encode_learned(kParts);
  const auto parts = decode_learned(blob);
  ASSERT_TRUE(parts);
  EXPECT_THAT(*parts, ElementsAreArray(kParts));
  EXPECT_THAT(*decode_learned({}), IsEmpty());
}

}  // namespace
}  // namespace stackwatch
