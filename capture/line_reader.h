// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "capture/byte_source.h"
#include "core/result.h"

namespace stackwatch {

/// Lines of a stream, in constant memory.
class LineReader {
 public:
  /// `name` stands for the stream in errors. A line longer than `max_bytes` is an error.
  LineReader(std::unique_ptr<ByteSource> source, std::string name, size_t max_bytes);

  /// The next line without its end; nothing at the end. Valid until the next call. All whole lines before damage come
  /// before the error, which stays.
  [[nodiscard]] Result<std::optional<std::string_view>> next();
  /// Number of the line that next() gave last, from 1.
  [[nodiscard]] uint64_t line() const { return line_; }
  /// True where the last line had no end: the stream may have been cut in it.
  [[nodiscard]] bool is_cut() const { return cut_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  /// "read NAME: line 17, byte 5120: WHY" for a problem of the line that next() gave last. The byte is the end of what
  /// was used of the file, so of the compressed data where it is compressed.
  [[nodiscard]] Error problem(std::string why, std::string hint = {}) const;

 private:
  [[nodiscard]] Result<bool> fill();

  std::unique_ptr<ByteSource> source_;
  std::string name_;
  size_t max_bytes_;
  std::vector<char> buffer_;
  size_t begin_ = 0;    ///< of what is not given yet
  size_t end_ = 0;      ///< of what is filled
  size_t scanned_ = 0;  ///< up to here there is no line end
  uint64_t line_ = 0;
  bool at_end_ = false;
  bool cut_ = false;
  std::optional<Error> error_;
};

}  // namespace stackwatch
