// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stackwatch {

/// One executable line of /proc/PID/maps.
struct MapsEntry {
  uint64_t start = 0;
  uint64_t end = 0;          ///< past the last byte
  uint64_t file_offset = 0;  ///< of `start`
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  uint64_t inode = 0;  ///< 0 where there is no file
  bool writable = false;
  std::string path;  ///< as written, `(deleted)` included; `[vdso]` and the like; empty for anonymous memory

  /// Memory without a file, or with one that is nowhere: where JIT compilers put their code.
  [[nodiscard]] bool may_be_jit() const;
};

/// A JIT may map code in tens of thousands of pieces, at about 150 bytes each here; past this the rest is [unknown].
inline constexpr size_t kMaxMapsEntries = 8192;

/// The executable mappings in the text of a maps file, in order of their addresses. Lines that are not what the
/// kernel writes, or that overlap an earlier one, are left out.
[[nodiscard]] std::vector<MapsEntry> parse_maps(std::string_view text);

/// `/usr/bin/redis-server (deleted)` → `redis-server`.
[[nodiscard]] std::string_view object_basename(std::string_view path);

}  // namespace stackwatch
