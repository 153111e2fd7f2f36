// SPDX-License-Identifier: Apache-2.0
// /proc/PID/maps: file names in it are the target's choice.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "symbols/maps.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint64_t end = 0;
  for (const auto& entry : stackwatch::parse_maps({reinterpret_cast<const char*>(data), size})) {
    if (entry.start < end || entry.end <= entry.start) std::abort();
    if (stackwatch::object_basename(entry.path).find('/') != std::string_view::npos) std::abort();
    end = entry.end;
  }
  return 0;
}
