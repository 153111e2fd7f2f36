// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <libelf.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "symbols/worker/elf_segments.h"

namespace stackwatch {

/// The stubs of the procedure linkage table, by which an object calls functions of others: no symbol table has them,
/// the dynamic linker's relocations tell whom each is for. x86-64; of other objects nothing is known. Nothing in the
/// file is believed.
class LinkageStubs {
 public:
  struct Stub {
    uint64_t start = 0;  ///< virtual address
    uint32_t name = 0;   ///< of the function that it leads to: offset in the string table of .dynsym
  };

  void load(Elf* elf);
  /// The stub at an address; nothing where none is, or where it is not known what it leads to.
  [[nodiscard]] std::optional<Stub> find(int file, std::span<const LoadedSegment> segments, uint64_t vaddr) const;
  [[nodiscard]] size_t bytes() const { return slots_.capacity() * sizeof(Slot); }
  void clear();

 private:
  /// Where the dynamic linker puts the address of a function.
  struct Slot {
    uint64_t address = 0;
    uint32_t name = 0;
  };
  struct Section {
    uint64_t start = 0;
    uint64_t end = 0;
    uint64_t stub_bytes = 0;
  };
  /// `left`: bytes of relocations that may still be read.
  void read_slots(Elf* elf, Elf_Scn* section, uint64_t& left);

  std::vector<Slot> slots_;  ///< ascending
  std::vector<Section> sections_;
};

}  // namespace stackwatch
