// SPDX-License-Identifier: Apache-2.0
// The worker's reader of object files: any bytes as a file, then questions about places all over it.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

#include "symbols/worker/allocator_search.h"
#include "symbols/worker/demangle.h"
#include "symbols/worker/elf_object.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  stackwatch::UniqueFd file(::memfd_create("fuzz", MFD_CLOEXEC));
  if (::write(file.get(), data, size) != static_cast<ssize_t>(size)) return 0;
  auto object = stackwatch::ElfObject::open(std::move(file));
  if (!object) return 0;
  static constexpr size_t kPlaces = 64;
  for (size_t i = 0; i < kPlaces; ++i) {
    if (const auto found = (*object)->find(size * i / kPlaces)) static_cast<void>(stackwatch::demangle(found->name));
  }
  static_cast<void>(stackwatch::find_allocator(**object));
  return 0;
}
