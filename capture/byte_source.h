// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// A stream of bytes that is read once, from its beginning.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// The next bytes, at most `room`; 0 at the end. Blocks.
  [[nodiscard]] virtual Result<size_t> read(std::span<char> room) = 0;
  /// How many bytes of the file (not of what they mean) have been used.
  [[nodiscard]] virtual uint64_t position() const = 0;
  /// The bytes of the file are others than those that read() gives: what is read ahead cannot be taken off position().
  [[nodiscard]] virtual bool decodes() const { return false; }
};

/// A file as it is; "-" is standard input. Error: it cannot be opened, or is a directory.
[[nodiscard]] Result<std::unique_ptr<ByteSource>> open_file(const std::string& path);
/// Bytes of the caller, which outlive the source.
[[nodiscard]] std::unique_ptr<ByteSource> bytes_of(std::string_view text);
/// `front`, then what is left of `rest` behind it.
[[nodiscard]] std::unique_ptr<ByteSource> joined(std::string front, std::unique_ptr<ByteSource> rest);
/// What `source` holds, decompressed where its first bytes say that it is zstd (also of several frames).
[[nodiscard]] Result<std::unique_ptr<ByteSource>> decompressed(std::unique_ptr<ByteSource> source);

}  // namespace stackwatch
