// SPDX-License-Identifier: Apache-2.0
#include "capture/line_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace stackwatch {
namespace {

/// Large enough that a read costs less than what is read with it.
constexpr size_t kChunkBytes = size_t{128} << 10U;

}  // namespace

LineReader::LineReader(std::unique_ptr<ByteSource> source, std::string name, size_t max_bytes)
    : source_(std::move(source)), name_(std::move(name)), max_bytes_(max_bytes), buffer_(kChunkBytes) {}

Error LineReader::problem(std::string why, std::string hint) const {
  const uint64_t byte = source_->position() - (source_->decodes() ? 0 : end_ - begin_);
  return Error{ErrorKind::kFailed, "read " + name_,
               "line " + std::to_string(line_) + ", byte " + std::to_string(byte) + ": " + std::move(why),
               std::move(hint)};
}

// False at the end of the stream.
Result<bool> LineReader::fill() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    scanned_ -= begin_;
    begin_ = 0;
  }
  if (end_ == buffer_.size()) buffer_.resize(std::min(2 * buffer_.size(), max_bytes_ + kChunkBytes));
  auto count = source_->read(std::span(buffer_).subspan(end_));
  if (!count) return Failure(count.error());
  end_ += *count;
  return *count > 0;
}

Result<std::optional<std::string_view>> LineReader::next() {
  if (error_) return Failure(*error_);
  const auto give_up = [this](std::string why, std::string hint) {
    ++line_;
    error_ = problem(std::move(why), std::move(hint));
    return Failure(*error_);
  };
  for (;;) {
    const char* const from = buffer_.data() + scanned_;
    if (const void* found = end_ > scanned_ ? std::memchr(from, '\n', end_ - scanned_) : nullptr) {
      const auto at = static_cast<size_t>(static_cast<const char*>(found) - buffer_.data());
      if (at - begin_ > max_bytes_)
        return give_up("the line is longer than " + std::to_string(max_bytes_) + " bytes", "");
      const std::string_view text(buffer_.data() + begin_, at - begin_);
      begin_ = scanned_ = at + 1;
      ++line_;
      return std::optional(text);
    }
    scanned_ = end_;
    if (end_ - begin_ > max_bytes_)
      return give_up("the line is longer than " + std::to_string(max_bytes_) + " bytes", "");
    if (at_end_) {
      if (begin_ == end_) return std::optional<std::string_view>();
      const std::string_view text(buffer_.data() + begin_, end_ - begin_);
      begin_ = end_;
      cut_ = true;
      ++line_;
      return std::optional(text);
    }
    auto more = fill();
    if (!more) return give_up(more.error().what + ": " + more.error().why, more.error().hint);
    at_end_ = !*more;
  }
}

}  // namespace stackwatch
