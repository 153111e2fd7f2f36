// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "capture/byte_source.h"
#include "capture/records.h"
#include "core/result.h"

namespace stackwatch {

/// Reads a capture line by line in constant memory. What lines say about each other (which process a number means) is
/// the caller's to check. Any bytes may come in: errors, never a crash.
class CaptureReader {
 public:
  /// "-" is standard input. Error: it cannot be read, or it is no capture.
  [[nodiscard]] static Result<CaptureReader> open(const std::string& path);
  /// `name` stands for the file in errors.
  [[nodiscard]] static Result<CaptureReader> create(std::unique_ptr<ByteSource> source, const std::string& name);
  ~CaptureReader();
  CaptureReader(CaptureReader&&) noexcept;
  CaptureReader& operator=(CaptureReader&&) noexcept;

  [[nodiscard]] const CaptureHeader& header() const;
  /// The next line whose type is known; nothing at the end. An error (a broken line, damaged compression) names line
  /// and byte, comes after all that is before it, and stays.
  [[nodiscard]] Result<std::optional<CaptureRecord>> next();
  /// The same for what a line says that was read last.
  [[nodiscard]] Error problem(std::string why) const;

 private:
  struct Impl;
  explicit CaptureReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace stackwatch
