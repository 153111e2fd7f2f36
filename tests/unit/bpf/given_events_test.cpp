// SPDX-License-Identifier: Apache-2.0
#include "bpf/given_events.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace stackwatch {
namespace {

UniqueFd some_file() { return UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

TEST(GivenEvents, WhatHasAnotherNameIsClosed) {
  for (const char* name : {"", "stored", "cpu_clock", "cpu_clock-", "cpu_clock--1", "cpu_clock-1x",
                           "cpu_clock-99999999999", "Cpu_clock-1", "page_faults-1 ", "x-cpu_clock-1"}) {
    std::vector<NamedDescriptor> passed;
    passed.emplace_back(name, some_file());
    const int fd = passed[0].second.get();
    {
      const GivenEvents given = sort_given_events(std::move(passed));
      EXPECT_TRUE(given.clock.empty()) << name;
      EXPECT_TRUE(given.page_faults.empty()) << name;
    }
    EXPECT_EQ(fcntl(fd, F_GETFD), -1) << name;
  }
}

TEST(GivenEvents, AreSortedByKindAndCpu) {
  std::vector<NamedDescriptor> passed;
  for (const char* name : {"cpu_clock-0", "page_faults-0", "cpu_clock-127", "other", "page_faults-3", "cpu_clock-0"}) {
    passed.emplace_back(name, some_file());
  }
  const int last = passed.back().second.get();
  const GivenEvents given = sort_given_events(std::move(passed));
  ASSERT_EQ(given.clock.size(), 2U);
  EXPECT_EQ(given.clock.at(0).get(), last) << "of two with one name the later one";
  EXPECT_TRUE(given.clock.contains(127));
  ASSERT_EQ(given.page_faults.size(), 2U);
  EXPECT_TRUE(given.page_faults.contains(3));
}

}  // namespace
}  // namespace stackwatch
