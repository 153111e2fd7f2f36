// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/unwind_table.h"

namespace stackwatch {

/// Reads numbers as DWARF writes them. After a read past the end everything is 0 and failed() is true.
class DwarfReader {
 public:
  explicit DwarfReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool done() const { return bytes_.empty() || failed_; }
  [[nodiscard]] bool failed() const { return failed_; }
  uint64_t fixed(size_t bytes);
  uint64_t uleb();
  int64_t sleb();
  std::span<const uint8_t> block(uint64_t bytes);
  [[nodiscard]] std::span<const uint8_t> rest() const { return bytes_; }

 private:
  std::span<const uint8_t> bytes_;
  bool failed_ = false;
};

/// One entry of call-frame information, taken apart.
struct FrameEntry {
  uint64_t start = 0;  ///< address of its code
  uint64_t end = 0;
  uint64_t code_alignment = 1;
  int64_t data_alignment = 1;
  bool signal = false;
  size_t address_bytes = 8;
  std::span<const uint8_t> initial;       ///< instructions of its CIE
  std::span<const uint8_t> instructions;  ///< its own
};

struct FrameRow {
  uint64_t address = 0;
  UnwindRule rule;
};

/// Runs an entry's instructions and appends its rows, the first of which is at its start. `work` is taken down by each
/// instruction. False where the instructions are broken or go on for too long: `rows` then is as it was.
[[nodiscard]] bool run_frame_program(const FrameEntry& entry, uint64_t& work, std::vector<FrameRow>& rows);

}  // namespace stackwatch
