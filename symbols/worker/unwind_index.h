// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "symbols/worker/elf_segments.h"

namespace stackwatch {

/// The code that one call-frame entry (FDE) covers: a function, or a part of one that was laid out apart.
struct UnwindRange {
  uint64_t start = 0;
  uint64_t end = 0;
};

/// Where functions start according to .eh_frame_hdr (LSB, "Exception Frames"), which stripped programs have too: its
/// binary search table is kept, entries of .eh_frame are read from the file as they are asked for.
class UnwindIndex {
 public:
  /// Reads the search table. An absent or unusual one (anything but what ld, gold and lld write) leaves the index
  /// empty.
  void load(int file, const LoadedSegment& header, bool wide_addresses);
  /// The entry that covers an address. `segments` says where in the file .eh_frame is.
  [[nodiscard]] std::optional<UnwindRange> find(int file, std::span<const LoadedSegment> segments, uint64_t vaddr);
  [[nodiscard]] size_t bytes() const { return entries_.capacity() * sizeof(Entry); }
  void clear();

 private:
  struct Entry {  // as in the file, relative to the header
    int32_t start = 0;
    int32_t fde = 0;
  };

  [[nodiscard]] std::optional<UnwindRange> read_entry(int file, std::span<const LoadedSegment> segments, uint64_t start,
                                                      uint64_t fde);
  [[nodiscard]] std::optional<uint8_t> pointer_encoding(int file, std::span<const LoadedSegment> segments,
                                                        uint64_t cie);

  uint64_t base_ = 0;  ///< address of the header
  bool wide_ = true;
  std::vector<Entry> entries_;
  std::unordered_map<uint64_t, uint8_t> encodings_;  ///< by address of the CIE
};

}  // namespace stackwatch
