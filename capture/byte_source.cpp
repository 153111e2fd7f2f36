// SPDX-License-Identifier: Apache-2.0
#include "capture/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

namespace stackwatch {
namespace {

/// The window that a compressed stream may ask for: zstd's own limit for streams, 128 MB. Ours have 2 MB.
constexpr int kMaxWindowLog = 27;

class FileSource final : public ByteSource {
 public:
  explicit FileSource(UniqueFd fd) : fd_(std::move(fd)) {}
  explicit FileSource(int borrowed) : borrowed_(borrowed) {}

  Result<size_t> read(std::span<char> room) override {
    for (;;) {
      const ssize_t count = ::read(fd_ ? fd_.get() : borrowed_, room.data(), room.size());
      if (count >= 0) {
        position_ += static_cast<uint64_t>(count);
        return static_cast<size_t>(count);
      }
      if (errno != EINTR) return fail_errno("read", errno);
    }
  }
  [[nodiscard]] uint64_t position() const override { return position_; }

 private:
  UniqueFd fd_;
  int borrowed_ = -1;
  uint64_t position_ = 0;
};

class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::string_view text) : text_(text) {}

  Result<size_t> read(std::span<char> room) override {
    const size_t count = std::min(room.size(), text_.size() - position_);
    std::copy_n(text_.data() + position_, count, room.data());
    position_ += count;
    return count;
  }
  [[nodiscard]] uint64_t position() const override { return position_; }

 private:
  std::string_view text_;
  size_t position_ = 0;
};

/// Gives back first what was read to look at it.
class PeekedSource final : public ByteSource {
 public:
  PeekedSource(std::string front, std::unique_ptr<ByteSource> rest)
      : front_(std::move(front)), rest_(std::move(rest)) {}

  Result<size_t> read(std::span<char> room) override {
    if (given_ == front_.size()) return rest_->read(room);
    const size_t count = std::min(room.size(), front_.size() - given_);
    std::copy_n(front_.data() + given_, count, room.data());
    given_ += count;
    return count;
  }
  [[nodiscard]] uint64_t position() const override {
    return rest_->decodes() ? rest_->position() : rest_->position() - (front_.size() - given_);
  }
  [[nodiscard]] bool decodes() const override { return rest_->decodes(); }

 private:
  std::string front_;
  std::unique_ptr<ByteSource> rest_;
  size_t given_ = 0;
};

struct FreeStream {
  void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
};

class ZstdSource final : public ByteSource {
 public:
  explicit ZstdSource(std::unique_ptr<ByteSource> source)
      : source_(std::move(source)), stream_(ZSTD_createDStream()), buffer_(ZSTD_DStreamInSize()) {
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  }

  Result<size_t> read(std::span<char> room) override {
    ZSTD_outBuffer out{room.data(), room.size(), 0};
    while (out.pos == 0) {
      if (in_.pos == in_.size && !drained_) {
        auto count = source_->read(buffer_);
        if (!count) return count;
        in_ = {buffer_.data(), *count, 0};
        drained_ = *count == 0;
      }
      if (drained_ && !in_frame_) return size_t{0};
      const size_t before = in_.pos;
      const size_t left = ZSTD_decompressStream(stream_.get(), &out, &in_);
      if (ZSTD_isError(left) != 0) return fail("decompress", ZSTD_getErrorName(left), "what comes before it was read");
      in_frame_ = left != 0;
      if (drained_ && out.pos == 0 && in_frame_ && in_.pos == before) {
        return fail("decompress", "the compressed data ends in the middle", "what comes before it was read");
      }
    }
    return out.pos;
  }
  [[nodiscard]] uint64_t position() const override { return source_->position() - (in_.size - in_.pos); }
  [[nodiscard]] bool decodes() const override { return true; }

 private:
  std::unique_ptr<ByteSource> source_;
  std::unique_ptr<ZSTD_DStream, FreeStream> stream_;
  std::vector<char> buffer_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool drained_ = false;
  bool in_frame_ = true;
};

bool is_zstd(std::string_view front) {
  if (front.size() < 4) return false;
  uint32_t magic = 0;
  std::memcpy(&magic, front.data(), sizeof magic);
  return magic == ZSTD_MAGICNUMBER || (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

}  // namespace

Result<std::unique_ptr<ByteSource>> open_file(const std::string& path) {
  if (path == "-") return std::unique_ptr<ByteSource>(std::make_unique<FileSource>(STDIN_FILENO));
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno("open " + path, errno);
  struct stat about {};
  if (fstat(fd.get(), &about) == 0 && S_ISDIR(about.st_mode)) return fail_errno("open " + path, EISDIR);
  return std::unique_ptr<ByteSource>(std::make_unique<FileSource>(std::move(fd)));
}

std::unique_ptr<ByteSource> bytes_of(std::string_view text) { return std::make_unique<MemorySource>(text); }

std::unique_ptr<ByteSource> joined(std::string front, std::unique_ptr<ByteSource> rest) {
  return std::make_unique<PeekedSource>(std::move(front), std::move(rest));
}

Result<std::unique_ptr<ByteSource>> decompressed(std::unique_ptr<ByteSource> source) {
  std::string front;
  std::array<char, 4> room{};
  while (front.size() < room.size()) {  // a pipe may give less at a time
    auto count = source->read(std::span(room).first(room.size() - front.size()));
    if (!count) return Failure(count.error());
    if (*count == 0) break;
    front.append(room.data(), *count);
  }
  const bool compressed = is_zstd(front);
  std::unique_ptr<ByteSource> whole = joined(std::move(front), std::move(source));
  if (!compressed) return whole;
  return std::unique_ptr<ByteSource>(std::make_unique<ZstdSource>(std::move(whole)));
}

}  // namespace stackwatch
