// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "core/unique_fd.h"

namespace stackwatch {

/// A file that is nowhere: give away writer(), and read what was written.
class MemoryFile {
 public:
  [[nodiscard]] UniqueFd writer() const { return UniqueFd(fcntl(fd_.get(), F_DUPFD_CLOEXEC, 3)); }
  [[nodiscard]] std::string text() const {
    std::string text(static_cast<size_t>(lseek(fd_.get(), 0, SEEK_END)), '\0');
    if (pread(fd_.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) text.clear();
    return text;
  }

 private:
  UniqueFd fd_{memfd_create("stackwatch-test", MFD_CLOEXEC)};
};

}  // namespace stackwatch
