// SPDX-License-Identifier: Apache-2.0
// The worker's reader of debug information: any bytes as a program with DWARF, links and MiniDebugInfo, and the same
// bytes as its debug file and dwz's.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "symbols/worker/named_object.h"

using namespace stackwatch;

namespace {

UniqueFd file_of(const uint8_t* data, size_t size) {
  UniqueFd file(::memfd_create("fuzz", MFD_CLOEXEC));
  return ::write(file.get(), data, size) == static_cast<ssize_t>(size) ? std::move(file) : UniqueFd();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto object = NamedObject::open(file_of(data, size));
  if (!object) return 0;
  for (const auto kind :
       {protocol::FileKind::kDebugFile, protocol::FileKind::kLinkedFile, protocol::FileKind::kSupplementary}) {
    static_cast<void>((*object)->use(kind, file_of(data, size)));
  }
  protocol::ObjectInfo info;
  (*object)->describe(info);
  static constexpr size_t kPlaces = 128;
  for (const LoadedSegment& segment : (*object)->elf().segments()) {
    if (!segment.executable) continue;
    for (size_t i = 0; i < kPlaces; ++i) {
      const protocol::Name name = (*object)->find(segment.offset + segment.bytes * i / kPlaces);
      if (name.inlined.size() > protocol::kMaxInlined) std::abort();
    }
    break;
  }
  return 0;
}
