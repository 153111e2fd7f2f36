// SPDX-License-Identifier: Apache-2.0
#include "core/result.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace stackwatch {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return fail(ErrorKind::kUsage, "halve 3", "it is odd", "try 4");
  return value / 2;
}

TEST(Result, CarriesAValueOrAnErrorWithOneLine) {
  EXPECT_EQ(half(4).value(), 2);
  const auto failed = half(3);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message(), "halve 3: it is odd (try 4)");
  EXPECT_EQ(failed.error().exit_code(), 2);
}

TEST(Result, MissingPrivilegeIsExitCodeThree) {
  const Result<void> denied = fail_errno("open it", EPERM);
  EXPECT_EQ(denied.error().exit_code(), 3);
  const Result<void> missing = fail_errno("open it", ENOENT);
  EXPECT_EQ(missing.error().exit_code(), 1);
  EXPECT_EQ(missing.error().message(), "open it: No such file or directory");
}

}  // namespace
}  // namespace stackwatch
