// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// A listening Unix stream socket in the file system, and the right to it: as long as this lives, no other daemon that
/// asks this way gets the same path. The socket file and its lock file (PATH.lock) are removed at the end.
class Listener {
 public:
  /// Replaces a socket that nobody listens on, creates the last directory of `path` where it is missing, and gives the
  /// socket mode 0660 and, if it exists and we may, the group `group`.
  /// Errors: kUsage: the path is empty or too long; kFailed: another daemon runs on this socket, or something else
  /// than a socket is at the path (it is left alone); kUnsupported: no permission.
  [[nodiscard]] static Result<Listener> open(const std::string& path, const std::string& group);

  Listener(Listener&&) noexcept = default;
  Listener& operator=(Listener&& other) noexcept;
  ~Listener();

  /// Non-blocking.
  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  Listener() = default;
  void remove();

  std::string path_;
  UniqueFd lock_;
  UniqueFd socket_;
  dev_t device_ = 0;  // of the socket file that we made: another one at the same path is not ours to remove
  ino_t inode_ = 0;
};

}  // namespace stackwatch
