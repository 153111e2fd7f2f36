// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace stackwatch {

/// Bytes read at `offset`: fewer than asked for at the end of the file and on errors.
inline size_t read_at(int file, uint64_t offset, void* to, size_t size) {
  size_t done = 0;
  while (done < size && offset <= static_cast<uint64_t>(std::numeric_limits<off_t>::max()) - size) {
    const ssize_t got = ::pread(file, static_cast<char*>(to) + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

}  // namespace stackwatch
