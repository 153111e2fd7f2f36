// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/listener.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

namespace stackwatch {
namespace {

constexpr mode_t kSocketMode = 0660;  // who may read is who may connect: owner, group, root
constexpr mode_t kDirectoryMode = 0755;
constexpr int kBacklog = 64;  // as many as the server takes
/// A lock file can be removed by its last owner between our open() and our flock(); each time it is, somebody ended.
constexpr int kLockAttempts = 100;

std::string what_for(const std::string& path) { return "listen on " + path; }

Failure already_running(const std::string& path) {
  return fail(what_for(path), "another daemon runs on this socket", "stop it, or give this one its own --socket");
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty()) return fail(ErrorKind::kUsage, "listen on the control socket", "its path is empty");
  if (path.size() >= sizeof(address.sun_path)) {
    return fail(ErrorKind::kUsage, what_for(path),
                "the path has " + std::to_string(path.size()) + " bytes, a socket's may have " +
                    std::to_string(sizeof(address.sun_path) - 1));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Result<void> make_parent(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos || slash == 0) return {};
  const std::string parent = path.substr(0, slash);
  if (mkdir(parent.c_str(), kDirectoryMode) < 0 && errno != EEXIST) return fail_errno("create " + parent, errno);
  return {};
}

bool is_same_file(int fd, const std::string& path) {
  struct stat opened {};
  struct stat named {};
  return fstat(fd, &opened) == 0 && lstat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

/// The lock decides between daemons that start at the same moment; probing the socket alone could not.
Result<UniqueFd> take_lock(const std::string& path) {
  const std::string lock_path = path + ".lock";
  for (int attempt = 0; attempt < kLockAttempts; ++attempt) {
    UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
    if (!lock) return fail_errno("open " + lock_path, errno);
    if (flock(lock.get(), LOCK_EX | LOCK_NB) < 0) {
      if (errno == EWOULDBLOCK) return already_running(path);
      return fail_errno("lock " + lock_path, errno);
    }
    if (is_same_file(lock.get(), lock_path)) return lock;
  }
  return fail("lock " + lock_path, "it is removed again and again");
}

Result<UniqueFd> make_socket(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(what_for(path), errno);
  return fd;
}

/// Only with the lock held: removes the socket of a daemon that was killed.
Result<void> clear_path(const std::string& path, const sockaddr_un& address) {
  struct stat info {};
  if (lstat(path.c_str(), &info) < 0) {
    if (errno == ENOENT) return {};
    return fail_errno(what_for(path), errno);
  }
  if (!S_ISSOCK(info.st_mode)) return fail(what_for(path), "something that is no socket is there", "remove it");

  const Result<UniqueFd> probe = make_socket(path);
  if (!probe) return Failure(probe.error());
  if (connect(probe->get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 || errno == EAGAIN) {
    return already_running(path);  // EAGAIN: it listens, but its queue is full
  }
  if (errno == EPROTOTYPE) return fail(what_for(path), "another program's socket is there", "remove it");
  if (errno != ECONNREFUSED) return fail_errno(what_for(path), errno);
  if (unlink(path.c_str()) < 0 && errno != ENOENT) return fail_errno("replace the stale socket " + path, errno);
  return {};
}

std::optional<gid_t> group_id(const std::string& name) {
  std::vector<char> buffer(16384);
  group entry{};
  group* found = nullptr;
  if (getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) {
    return std::nullopt;
  }
  return found->gr_gid;
}

Result<void> bind_to(int fd, const std::string& path, const sockaddr_un& address, const std::string& group) {
  // Before bind(): the file is born with this mode less the umask, so it is at no moment open to others.
  if (fchmod(fd, kSocketMode) < 0) return fail_errno(what_for(path), errno);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) < 0) {
    if (errno == EADDRINUSE) return already_running(path);
    return fail_errno(what_for(path), errno);
  }
  if (const std::optional<gid_t> gid = group_id(group)) {
    // Not allowed to members of other groups: then the socket stays with its owner's own group.
    if (lchown(path.c_str(), static_cast<uid_t>(-1), *gid) < 0 && errno != EPERM) {
      return fail_errno("give " + path + " to group " + group, errno);
    }
  }
  if (chmod(path.c_str(), kSocketMode) < 0) return fail_errno(what_for(path), errno);
  if (listen(fd, kBacklog) < 0) return fail_errno(what_for(path), errno);
  return {};
}

}  // namespace

Result<Listener> Listener::open(const std::string& path, const std::string& group) {
  const Result<sockaddr_un> address = address_of(path);
  if (!address) return Failure(address.error());
  if (const auto made = make_parent(path); !made) return Failure(made.error());
  Result<UniqueFd> lock = take_lock(path);
  if (!lock) return Failure(lock.error());

  Listener listener;  // from here on its end removes the lock file
  listener.path_ = path;
  listener.lock_ = std::move(*lock);
  if (const auto clear = clear_path(path, *address); !clear) return Failure(clear.error());
  Result<UniqueFd> socket = make_socket(path);
  if (!socket) return Failure(socket.error());
  if (const auto bound = bind_to(socket->get(), path, *address, group); !bound) return Failure(bound.error());
  struct stat info {};
  if (lstat(path.c_str(), &info) < 0) return fail_errno(what_for(path), errno);
  listener.socket_ = std::move(*socket);
  listener.device_ = info.st_dev;
  listener.inode_ = info.st_ino;
  return listener;
}

Listener& Listener::operator=(Listener&& other) noexcept {
  if (this == &other) return *this;
  remove();
  path_ = std::move(other.path_);
  lock_ = std::move(other.lock_);
  socket_ = std::move(other.socket_);
  device_ = other.device_;
  inode_ = other.inode_;
  return *this;
}

Listener::~Listener() { remove(); }

void Listener::remove() {
  struct stat info {};
  if (socket_ && lstat(path_.c_str(), &info) == 0 && info.st_dev == device_ && info.st_ino == inode_) {
    unlink(path_.c_str());
  }
  // With the lock still held: whoever waits for this very file sees that it is gone and makes a new one.
  if (lock_) unlink((path_ + ".lock").c_str());
  socket_.reset();
  lock_.reset();
}

}  // namespace stackwatch
