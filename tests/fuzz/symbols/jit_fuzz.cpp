// SPDX-License-Identifier: Apache-2.0
// Perf maps and jitdumps: any bytes, in two parts as if the file had grown; and Rust's mangling.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "symbols/protocol.h"
#include "symbols/worker/demangle.h"
#include "symbols/worker/jit_symbols.h"

using namespace stackwatch;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int file = ::memfd_create("fuzz", MFD_CLOEXEC);
  JitSymbols jit{UniqueFd(file)};
  const size_t half = size / 2;
  if (::write(file, data, half) != static_cast<ssize_t>(half)) return 0;
  jit.refresh();
  if (::write(file, data + half, size - half) != static_cast<ssize_t>(size - half)) return 0;
  jit.refresh();
  for (uint64_t address = 0; address < 0x10000; address += 0x100) {
    const auto found = jit.find(address);
    if (found && (found->start > address || found->name.size() > protocol::kMaxNameBytes)) std::abort();
  }
  const std::string text(reinterpret_cast<const char*>(data), size);
  static_cast<void>(demangle(text));
  static_cast<void>(demangle("_R" + text));
  return 0;
}
