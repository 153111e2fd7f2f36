// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "core/unique_fd.h"

struct ZSTD_CCtx_s;

namespace stackwatch {

/// A file that is written from its beginning to its end, compressed or not. After an error nothing more is written.
class CaptureFile {
 public:
  /// `level`: of zstd; nothing leaves the bytes as they are.
  CaptureFile(UniqueFd fd, std::string name, std::optional<int> level);

  [[nodiscard]] Result<void> append(std::string_view text);
  /// What was appended can be read from the file, also if nothing follows.
  [[nodiscard]] Result<void> flush();
  /// Ends the compressed data and closes the file.
  [[nodiscard]] Result<void> finish();
  [[nodiscard]] bool is_open() const { return static_cast<bool>(fd_); }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  struct FreeContext {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  [[nodiscard]] Result<void> compress(std::string_view text, int directive);
  [[nodiscard]] Result<void> write(std::string_view bytes);
  [[nodiscard]] Result<void> keep(Result<void> result);

  UniqueFd fd_;
  std::string name_;
  std::unique_ptr<ZSTD_CCtx_s, FreeContext> context_;
  std::string pending_;       ///< appended and not yet compressed or written
  std::vector<char> output_;  ///< room for compressed data
  uint64_t bytes_ = 0;
  std::optional<Error> error_;
};

}  // namespace stackwatch
