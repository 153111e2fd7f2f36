// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace stackwatch {

/// Why this machine cannot run a test with real BPF; empty where it can.
[[nodiscard]] std::string why_no_bpf();

}  // namespace stackwatch

/// First line of every test that needs the kernel.
#define STACKWATCH_REQUIRE_BPF()                                                                                   \
  do {                                                                                                             \
    if (const std::string why = ::stackwatch::why_no_bpf(); !why.empty()) GTEST_SKIP() << "REQUIRES BPF: " << why; \
  } while (false)
