// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/unique_fd.h"

namespace stackwatch {

/// A separate debug file by name (`.gnu_debuglink`).
struct DebugLink {
  std::string name;
  uint32_t crc = 0;  ///< of the whole file, CRC-32 of IEEE 802.3
};

/// What dwz moved out into a file that several share (`.gnu_debugaltlink`).
struct SupplementaryLink {
  std::string path;
  std::vector<std::byte> build_id;
};

/// MiniDebugInfo as it is in the file and when it was unpacked: 30 times what the largest programs of Fedora have.
inline constexpr uint64_t kMaxPackedBytes = 16ULL << 20;
inline constexpr uint64_t kMaxUnpackedBytes = 64ULL << 20;
/// A debug file whose CRC is looked at: reading takes a second per GB, and the worker has ten for an answer.
inline constexpr uint64_t kMaxChecksummedBytes = 2ULL << 30;

[[nodiscard]] std::optional<DebugLink> read_debug_link(int file);
[[nodiscard]] std::optional<SupplementaryLink> read_supplementary_link(int file);
/// `.gnu_debugdata` (an ELF file packed with xz, with the symbols that were stripped), unpacked, as a file in memory.
/// None where there is none, or it is broken or too large.
[[nodiscard]] UniqueFd unpack_mini_debug_info(int file);
/// None where the file cannot be read to its end, or is too large to be read.
[[nodiscard]] std::optional<uint32_t> checksum(int file);

}  // namespace stackwatch
