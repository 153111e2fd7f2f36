// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/result.h"

namespace stackwatch {

/// Text on its way to a descriptor, in pieces of 64 KiB: a report of 65,536 stacks may have 100 MB. After an error,
/// what is written goes nowhere; flush() tells.
class TextStream {
 public:
  using Ch = char;  // with Put() and Flush(): a stream for rapidjson

  explicit TextStream(int fd) : fd_(fd) { buffer_.reserve(kPiece + 4096); }
  TextStream(const TextStream&) = delete;
  TextStream& operator=(const TextStream&) = delete;

  TextStream& operator<<(std::string_view text) {
    buffer_ += text;
    if (buffer_.size() >= kPiece) write_out();
    return *this;
  }
  void Put(char c) {
    buffer_ += c;
    if (buffer_.size() >= kPiece) write_out();
  }
  void Flush() {}

  /// Writes what is left. Error: that of the first write that failed, again and again.
  [[nodiscard]] Result<void> flush();

 private:
  static constexpr size_t kPiece = 64 << 10;
  void write_out();

  int fd_;
  std::string buffer_;
  Result<void> result_;
};

}  // namespace stackwatch
