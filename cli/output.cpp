// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "cli/text.h"

namespace stackwatch {
namespace {

constexpr const char* kWriteOutput = "write the output";
constexpr const char* kGone = "its reader is gone";

}  // namespace

Result<void> write_output(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(fd, text.data(), text.size());
    if (count >= 0) {
      text.remove_prefix(static_cast<size_t>(count));
    } else if (errno == EPIPE) {
      return fail(kWriteOutput, kGone);
    } else if (errno == EAGAIN) {
      pollfd entry{fd, POLLOUT, 0};  // somebody has made the terminal non-blocking
      poll(&entry, 1, -1);
    } else if (errno != EINTR) {
      return fail_errno(kWriteOutput, errno);
    }
  }
  return {};
}

bool reader_is_gone(const Error& error) { return error.what == kWriteOutput && error.why == kGone; }

int report_error(const Error& error) {
  if (reader_is_gone(error)) return 0;
  // It may quote names of processes.
  static_cast<void>(!write_output(STDERR_FILENO, "stackwatch: " + safe_text(error.message()) + "\n"));
  return error.exit_code();
}

}  // namespace stackwatch
