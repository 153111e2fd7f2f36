// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdio>

/// Prints where an address of this program is: `NAME FILE_OFFSET ADDRESS` in hexadecimal.
inline void tell(const char* name, uint64_t address) {
  FILE* const maps = std::fopen("/proc/self/maps", "r");
  char line[4352];
  while (maps != nullptr && std::fgets(line, sizeof line, maps) != nullptr) {
    unsigned long start = 0;
    unsigned long end = 0;
    unsigned long offset = 0;
    if (std::sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 && address >= start && address < end) {
      std::printf("%s %lx %lx\n", name, offset + (address - start), address);
    }
  }
  if (maps != nullptr) std::fclose(maps);
}
