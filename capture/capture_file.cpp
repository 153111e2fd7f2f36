// SPDX-License-Identifier: Apache-2.0
#include "capture/capture_file.h"

#include <poll.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <utility>

namespace stackwatch {
namespace {

/// What is gathered before it is compressed or written: calls cost little then.
constexpr size_t kPendingBytes = size_t{128} << 10U;

}  // namespace

void CaptureFile::FreeContext::operator()(ZSTD_CCtx_s* context) const { ZSTD_freeCCtx(context); }

CaptureFile::CaptureFile(UniqueFd fd, std::string name, std::optional<int> level)
    : fd_(std::move(fd)), name_(std::move(name)) {
  if (!level) return;
  context_.reset(ZSTD_createCCtx());
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, *level);
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
  output_.resize(ZSTD_CStreamOutSize());
}

Result<void> CaptureFile::keep(Result<void> result) {
  if (!result && !error_) error_ = result.error();
  return result;
}

Result<void> CaptureFile::append(std::string_view text) {
  if (error_) return Failure(*error_);
  pending_ += text;
  if (pending_.size() < kPendingBytes) return {};
  const std::string full = std::exchange(pending_, {});
  return keep(context_ ? compress(full, ZSTD_e_continue) : write(full));
}

Result<void> CaptureFile::flush() {
  if (error_) return Failure(*error_);
  const std::string rest = std::exchange(pending_, {});
  return keep(context_ ? compress(rest, ZSTD_e_flush) : write(rest));
}

Result<void> CaptureFile::finish() {
  if (error_) return Failure(*error_);
  const std::string rest = std::exchange(pending_, {});
  auto done = keep(context_ ? compress(rest, ZSTD_e_end) : write(rest));
  if (!done) return done;
  // A network file system may say only now that there was no room.
  if (close(fd_.release()) != 0 && errno != EINTR) return keep(fail_errno("write " + name_, errno));
  return {};
}

Result<void> CaptureFile::compress(std::string_view text, int directive) {
  ZSTD_inBuffer in{text.data(), text.size(), 0};
  for (;;) {
    ZSTD_outBuffer out{output_.data(), output_.size(), 0};
    const size_t left = ZSTD_compressStream2(context_.get(), &out, &in, static_cast<ZSTD_EndDirective>(directive));
    if (ZSTD_isError(left) != 0) return fail("compress " + name_, ZSTD_getErrorName(left));
    if (auto written = write({output_.data(), out.pos}); !written) return written;
    if (directive == ZSTD_e_continue ? in.pos == in.size : left == 0) return {};
  }
}

Result<void> CaptureFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_.get(), bytes.data(), bytes.size());
    if (count >= 0) {
      bytes_ += static_cast<uint64_t>(count);
      bytes.remove_prefix(static_cast<size_t>(count));
    } else if (errno == EAGAIN) {
      pollfd entry{fd_.get(), POLLOUT, 0};
      poll(&entry, 1, -1);
    } else if (errno != EINTR) {
      return fail_errno("write " + name_, errno, "what was written before can be read");
    }
  }
  return {};
}

}  // namespace stackwatch
