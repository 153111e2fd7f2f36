// SPDX-License-Identifier: Apache-2.0
#include "daemon/alerting/console_sink.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <ctime>

#include "daemon/alerting/message.h"

namespace stackwatch {
namespace {

constexpr size_t kFrameColumns = 100;     // a name that fills a line of a wide terminal
constexpr size_t kRootFrames = 4;         // say which thread or loop it is
constexpr size_t kLeafFrames = 8;         // say where in it
constexpr size_t kContributorsShown = 3;  // the rest is in `stackwatch show`

constexpr std::string_view kReset = "\x1b[0m";
constexpr std::string_view kDim = "\x1b[2m";
constexpr std::string_view kYellow = "\x1b[1;33m";
constexpr std::string_view kGreen = "\x1b[1;32m";

/// A write to a pipe without reader is an error here and not a signal to the process.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigset_t pending;
    sigemptyset(&pending);
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    sigemptyset(&sigpipe_);
    sigaddset(&sigpipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &sigpipe_, &before_);
  }
  ~NoSigpipe() {
    const timespec now{};
    while (!was_pending_ && sigtimedwait(&sigpipe_, nullptr, &now) < 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;

 private:
  sigset_t sigpipe_{};
  sigset_t before_{};
  bool was_pending_ = false;
};

/// Pipes and terminals are opened again: O_NONBLOCK on the caller's own descriptor would hold for everybody who shares
/// standard error, and a terminal waits in write() even where poll() calls it writable. -1 where it cannot be had (no
/// /proc, another user's terminal) or is not needed.
int open_again(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0 || !(S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode))) return -1;
  return open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/// One write that does not wait, to a descriptor that might: bytes written or a negative errno. A pipe that polls
/// writable takes PIPE_BUF bytes at once; a terminal's room is not known, so it gets single bytes.
ssize_t write_if_ready(int fd, std::string_view text) {
  const ssize_t sent = send(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0) return sent;
  if (errno != ENOTSOCK) return -errno;
  pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
  if (poll(&ready, 1, 0) < 0) return -errno;
  if ((ready.revents & POLLOUT) == 0) return (ready.revents & POLLNVAL) != 0 ? -EBADF : -EAGAIN;
  const size_t size = isatty(fd) == 1 ? 1 : std::min<size_t>(text.size(), PIPE_BUF);
  const ssize_t written = write(fd, text.data(), size);
  return written < 0 ? -errno : written;
}

ssize_t write_nonblocking(int fd, std::string_view text) {
  const ssize_t written = write(fd, text.data(), text.size());
  return written < 0 ? -errno : written;
}

std::string stack_line(const std::vector<std::string>& stack) {
  // One frame left out would take as much room as the words that say so.
  const size_t left_out = stack.size() > kRootFrames + kLeafFrames + 1 ? stack.size() - kRootFrames - kLeafFrames : 0;
  std::vector<std::string> parts;
  for (size_t i = 0; i < stack.size(); ++i) {
    if (left_out > 0 && i == kRootFrames) {
      parts.push_back(fmt::format("… {} more …", left_out));
      i += left_out;
    }
    parts.push_back(printable(stack[i], kFrameColumns));
  }
  return fmt::format("{}", fmt::join(parts, " → "));
}

std::string value_line(const Alert& alert) {
  std::string out = fmt::format("before {}, after {}", value_text(alert.before, alert.unit_of_measure),
                                value_text(alert.after, alert.unit_of_measure));
  if (alert.change_cores != 0) out += fmt::format(" ({:+.2f} cores)", alert.change_cores);
  out += fmt::format(", since {}, score {:.1f}", local_time(alert.onset_ns, alert.updated_ns), alert.score);
  if (alert.lost.uncounted() > 0) out += fmt::format(", {} samples lost", alert.lost.uncounted());
  return out;
}

std::string contributors_line(const Alert& alert) {
  std::string out;
  const size_t shown = std::min(alert.contributors.size(), kContributorsShown);
  for (size_t i = 0; i < shown; ++i) {
    const Alert::Contributor& c = alert.contributors[i];
    const bool process = c.frame.starts_with("[process, ");
    const std::string unit = process ? c.frame.substr(10, c.frame.size() - 11) : alert.unit_of_measure;
    out += fmt::format("{}{} {} → {}", i > 0 ? ", " : "", process ? "the process" : printable(c.frame, kFrameColumns),
                       value_text(c.before, unit), value_text(c.after, unit));
  }
  if (alert.contributors.size() > shown) out += fmt::format(", and {} more", alert.contributors.size() - shown);
  return out;
}

std::string parts_line(const Alert& alert) {
  std::string out;
  for (const Alert::Part& part : alert.parts) {
    out += fmt::format("{}{} {} → {} ({} on {})", out.empty() ? "" : ", ",
                       part.frame.empty() ? "the process" : printable(part.frame, kFrameColumns),
                       value_text(part.before, part.unit_of_measure), value_text(part.after, part.unit_of_measure),
                       printable(part.detector, kFrameColumns), to_string(part.probe));
  }
  return out;
}

}  // namespace

std::string console_text(const Alert& alert, bool colour) {
  const bool resolved = alert.state == AlertState::kResolved;
  const std::string_view paint = !colour ? "" : resolved ? kGreen : kYellow;
  const std::string_view dim = colour ? kDim : "";
  const std::string_view plain = colour ? kReset : "";
  std::string out = fmt::format("{} {}{:<8}{} {}\n", local_time(alert.updated_ns, alert.updated_ns), paint,
                                alert.is_named_later() ? "named" : to_string(alert.state), plain, message_of(alert));
  const auto detail = [&](std::string_view name, const std::string& text) {
    if (!text.empty()) out += fmt::format("  {}{:<7}{} {}\n", dim, name, plain, text);
  };
  if (!resolved) {
    detail("stack", stack_line(alert.stack));
    detail("change", value_line(alert));
    detail("also", contributors_line(alert));
    detail("and", parts_line(alert));
  }
  detail("alert", printable(alert.id, 64));
  return out;
}

bool wants_colour(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  if (no_color != nullptr && *no_color != '\0') return false;
  if (term != nullptr && std::string_view(term) == "dumb") return false;
  return isatty(fd) == 1;
}

ConsoleSink::ConsoleSink(int fd, bool colour) : fd_(fd), own_(open_again(fd)), colour_(colour) {}

Result<void> ConsoleSink::publish(const Alert& alert) {
  const std::string text = console_text(alert, colour_);
  const NoSigpipe guard;
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t written = own_ ? write_nonblocking(own_.get(), rest) : write_if_ready(fd_, rest);
    if (written == -EINTR) continue;
    if (written <= 0) {
      ++lost_;
      return fail_errno("write alert " + alert.id + " to the console", static_cast<int>(-written));
    }
    rest.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

}  // namespace stackwatch
