// SPDX-License-Identifier: Apache-2.0
#include "core/probe_kind.h"

#include <gtest/gtest.h>

namespace stackwatch {
namespace {

TEST(ProbeKind, UnknownNamesAreNothing) {
  for (const char* name : {"", "off_cpu", "ON_CPU", "census "}) EXPECT_FALSE(parse_probe_kind(name)) << name;
}

TEST(ProbeKind, EveryNameIsReadBack) {
  for (const auto kind : {ProbeKind::kOnCpu, ProbeKind::kBlocked, ProbeKind::kRunQueue, ProbeKind::kMemory,
                          ProbeKind::kPageFault, ProbeKind::kCensus}) {
    EXPECT_EQ(parse_probe_kind(to_string(kind)), kind);
    EXPECT_EQ(parse_counted_probe(to_string(kind)).has_value(), kind != ProbeKind::kCensus);
  }
}

}  // namespace
}  // namespace stackwatch
