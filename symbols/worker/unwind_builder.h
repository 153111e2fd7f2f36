// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/result.h"
#include "core/unwind_table.h"
#include "symbols/worker/elf_object.h"

namespace stackwatch {

/// .eh_frame and .debug_frame of the largest browsers have 25 MB; a section beyond this is left out.
inline constexpr uint64_t kMaxFrameSectionBytes = 48U << 20;
/// Instructions of one entry. Hand-written ones reach some hundred.
inline constexpr size_t kMaxFrameInstructions = 65536;
/// Instructions of all entries together: a file could make each byte of it be run once per entry.
inline constexpr uint64_t kMaxFrameWork = 64U << 20;

/// The unwind table of an x86-64 object, from .eh_frame and, for what that leaves open, .debug_frame (DWARF 5, section
/// 6.4; LSB Core, "Exception Frames"). libdw takes the entries apart, their instructions are run here.
///
/// Nothing in the file is believed. A broken entry ends its section (entries tell where the next one is); what came
/// before stands. Errors: not x86-64, no executable segment, more than 4 GB of code, or too large.
[[nodiscard]] Result<UnwindTable> build_unwind_table(const ElfObject& object);

}  // namespace stackwatch
