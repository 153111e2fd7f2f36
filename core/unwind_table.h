// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace stackwatch {

/// How the caller's registers are found from a place in the code on: the stack pointer that the caller had (the CFA),
/// and its frame pointer. The return address lies just below the CFA. In 32 bits, as the kernel side reads it:
/// kind (4), frame pointer's kind (2), its place below the CFA in words (10), CFA offset in words (16, signed).
enum class UnwindKind : uint8_t {
  kNone,            ///< no call-frame information: frame pointers, where they look like ones
  kEnd,             ///< the thread starts here
  kStack,           ///< CFA = stack pointer + offset
  kFrame,           ///< CFA = frame pointer + offset
  kStackDeref,      ///< CFA = value at (stack pointer + offset)
  kFrameDeref,      ///< CFA = value at (frame pointer + offset)
  kPlt,             ///< CFA = stack pointer + 8, and 8 more from byte `offset` of each 16 bytes of code on
  kSignal,          ///< a signal handler's return: the registers of the interrupted code are on the stack, at `offset`
  kStackDerefNext,  ///< CFA = value at (stack pointer + offset) + 8, as OpenSSL's assembler aligns its stack
  kUnknown,         ///< there is information that this format cannot express: the stack is cut here, counted
};
enum class FrameKind : uint8_t {
  kSame,   ///< still the caller's
  kSaved,  ///< at CFA minus its place
  kLost,   ///< not to be had
  kAt,     ///< where the frame pointer points to
};

struct UnwindRule {
  UnwindKind kind = UnwindKind::kNone;
  FrameKind frame = FrameKind::kSame;
  uint16_t frame_words = 0;  ///< below the CFA
  int16_t cfa_words = 0;     ///< kPlt: bytes

  bool operator==(const UnwindRule&) const = default;
  [[nodiscard]] constexpr uint32_t packed() const {
    return static_cast<uint32_t>(kind) | static_cast<uint32_t>(frame) << 4U |
           static_cast<uint32_t>(frame_words & 0x3ffU) << 6U |
           static_cast<uint32_t>(static_cast<uint16_t>(cfa_words)) << 16U;
  }
  [[nodiscard]] static constexpr UnwindRule unpack(uint32_t bits) {
    return {static_cast<UnwindKind>(bits & 0xfU), static_cast<FrameKind>((bits >> 4U) & 3U),
            static_cast<uint16_t>((bits >> 6U) & 0x3ffU), static_cast<int16_t>(static_cast<uint16_t>(bits >> 16U))};
  }
};

/// From this place on, up to the next row's.
struct UnwindRow {
  uint32_t address = 0;  ///< in the object, from its lowest address on
  uint32_t rule = 0;     ///< UnwindRule::packed()
  bool operator==(const UnwindRow&) const = default;
};
static_assert(sizeof(UnwindRow) == 8);

/// The code of the largest browsers comes to 2 million rows; this many take 32 MB.
inline constexpr size_t kMaxUnwindRows = 4U << 20;

/// A part of the file that is mapped at `vaddr` in the object.
struct UnwindSegment {
  uint64_t offset = 0;
  uint64_t vaddr = 0;
  uint64_t bytes = 0;
  bool operator==(const UnwindSegment&) const = default;
};
/// Objects have one to three executable segments.
inline constexpr size_t kMaxUnwindSegments = 8;

/// One object's table: rows in ascending order of their addresses, none twice.
struct UnwindTable {
  std::vector<UnwindRow> rows;
  std::vector<UnwindSegment> segments;  ///< executable ones
  uint64_t inexpressible = 0;           ///< rows of the object that became kUnknown
};

}  // namespace stackwatch
