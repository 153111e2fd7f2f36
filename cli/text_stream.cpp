// SPDX-License-Identifier: Apache-2.0
#include "cli/text_stream.h"

#include "cli/output.h"

namespace stackwatch {

void TextStream::write_out() {
  if (result_ && !buffer_.empty()) result_ = write_output(fd_, buffer_);
  buffer_.clear();
}

Result<void> TextStream::flush() {
  write_out();
  return result_;
}

}  // namespace stackwatch
