// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace stackwatch {

/// A part of the file that is loaded into memory at `vaddr`.
struct LoadedSegment {
  uint64_t offset = 0;
  uint64_t vaddr = 0;
  uint64_t bytes = 0;
  bool executable = false;
};

}  // namespace stackwatch
