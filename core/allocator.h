// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/process.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// What a function of an allocator does, as far as counting needs to know: where it takes the size from, and what it
/// gives back.
enum class AllocatorRole : uint8_t {
  kMalloc,         ///< (size): malloc, valloc, pvalloc
  kCalloc,         ///< (count, size)
  kAligned,        ///< (alignment, size): memalign, aligned_alloc
  kPosixMemalign,  ///< (address of the result, alignment, size), returns 0 or an errno
  kRealloc,        ///< (address, size)
  kReallocarray,   ///< (address, count, size)
  kFree,           ///< (address, …): free, cfree, free_sized, operator delete
  kNew,            ///< (size, …), may throw: operator new that has its own memory and does not call malloc
  kNewReturn,      ///< a `ret` instruction at which a kNew function ends
  kCount
};

/// A place in an object file.
struct AllocatorPlace {
  AllocatorRole role{};
  /// The instruction there is one that the kernel cannot emulate and steps through: a probe there costs twice to
  /// twenty times as much.
  bool stepped = false;
  /// In the file. Not always of the function's first instruction, but of one before which nothing has happened to its
  /// arguments and its stack pointer.
  uint64_t offset = 0;
  bool operator==(const AllocatorPlace&) const = default;
};

/// An object file of a process that has allocator functions. Shared by all processes that map the file.
struct AllocatorObject {
  UniqueFd file;     ///< open for reading: probes are attached through it, whatever has become of its path
  std::string path;  ///< as the process sees it, for people
  std::vector<AllocatorPlace> places;
  /// `operator new` of this object has its own memory, and not all the places where it ends could be found: what is
  /// allocated through it is not counted, and its frees are unknown ones.
  bool uncounted_new = false;
};

/// The allocator functions of a process at one time.
struct AllocatorFunctions {
  ProcessKey process;
  int32_t pid_in_ns = 0;
  bool alive = true;  ///< false: it was gone before its mappings could be read
  std::vector<std::shared_ptr<const AllocatorObject>> objects;
};

}  // namespace stackwatch
