// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "core/allocator.h"
#include "symbols/worker/elf_object.h"

namespace stackwatch {

struct FoundAllocator {
  std::vector<AllocatorPlace> places;  ///< in order of their offsets, each offset once
  bool uncounted_new = false;          ///< as in AllocatorObject
};

/// The allocator functions of an object by their names in .dynsym and .symtab (static programs have only that one), C
/// and C++. Names with versions and several names of one place are one function. A function that is chosen at run time
/// (IFUNC) has no place of its own and is left out.
///
/// operator new may throw, so it must have no return probe. Where it goes through malloc, malloc is what counts and it
/// is left out; otherwise (tcmalloc, jemalloc, mimalloc) the places of its `ret` instructions come with it.
/// Objects of 32-bit programs have none: they pass arguments in another way.
[[nodiscard]] FoundAllocator find_allocator(ElfObject& object);

}  // namespace stackwatch
