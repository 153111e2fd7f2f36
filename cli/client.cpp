// SPDX-License-Identifier: Apache-2.0
#include "cli/client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "core/exact_json.h"
#include "daemon/control/interface.h"

namespace stackwatch {
namespace {

constexpr const char* kWhat = "ask the daemon";
constexpr const char* kStartHint = "start it: systemctl start stackwatch, or stackwatchd --foreground as root";
/// While the daemon's queue of connections is full there is nothing to poll for: it is tried again after this time.
constexpr int kConnectRetry_ms = 20;

Failure hangs(double timeout_s) {
  return fail(kWhat, "it did not answer within " + std::to_string(std::lround(timeout_s)) + " s",
              "it is stopped or overloaded; see systemctl status stackwatchd");
}

Failure connect_error(const std::string& path, int error) {
  const std::string what = "connect to " + path;
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ECONNREFUSED:
      return fail(ErrorKind::kNoDaemon, what, "no daemon runs there", kStartHint);
    case ENOTSOCK:
    case EPROTOTYPE:
      return fail(ErrorKind::kNoDaemon, what, "it is no daemon's socket", "give the right one with --socket");
    case EACCES:
    case EPERM:
      return fail_errno(what, error, "be root or a member of group stackwatch");
    default:
      return fail_errno(what, error);
  }
}

/// The reply's own error as one of ours.
Failure reply_error(std::string_view name, const JsonValue& parameters) {
  const auto text = [&](const char* member) { return std::string(text_of(parameters, member)); };
  if (name == control_error::kNoSuchProcess || name == control_error::kNotAttached || name == control_error::kFailed) {
    return fail(text("message"), "");
  }
  if (name == control_error::kInvalidWatch) return fail(ErrorKind::kUsage, text("message"), "");
  if (name == control_error::kNoSuchWatch) return fail(text("message"), "");
  if (name == control_error::kNoSuchAlert) {
    return fail("show alert " + text("id"), "there is none with this id", "stackwatch alerts lists them");
  }
  if (name == control_error::kInvalidParameter) {
    return fail(kWhat, "it does not accept this " + text("parameter"), "the daemon may be of another version");
  }
  if (name == control_error::kPermissionDenied) {
    return fail(ErrorKind::kUnsupported, kWhat, "only root may do this", "use sudo");
  }
  if (name == control_error::kMethodNotFound || name == control_error::kMethodNotImplemented) {
    return fail(kWhat, "it has no " + text("method"), "the daemon is older than this program");
  }
  if (name == control_error::kInterfaceNotFound) {
    return fail(kWhat, "it is no stackwatchd", "give the right socket with --socket");
  }
  if (name == control_error::kTooManyClients) {
    return fail(kWhat, "it serves as many clients as it can", "end some of them");
  }
  return fail(kWhat, "it answered " + std::string(name));
}

Result<rapidjson::Document> parse_reply(std::string_view message) {
  rapidjson::Document reply;
  if (parse_exact(message, reply).IsError() || !reply.IsObject()) return fail(kWhat, "its answer is no Varlink reply");
  if (const std::string_view error = text_of(reply, "error"); !error.empty()) {
    return reply_error(error, object_of(reply, "parameters"));
  }
  return reply;
}

}  // namespace

Result<Client> Client::connect(const std::string& path, const Clock& clock, double timeout_s) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return fail(ErrorKind::kUsage, "connect to " + path,
                "a socket's path has 1 to " + std::to_string(sizeof(address.sun_path) - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno("make a socket", errno);
  Client client(std::move(fd), clock, timeout_s);
  const double deadline_s = client.now_s() + timeout_s;
  while (::connect(client.socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) < 0) {
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return connect_error(path, errno);
    if (client.now_s() > deadline_s) return hangs(timeout_s);
    poll(nullptr, 0, kConnectRetry_ms);
  }
  return client;
}

Result<void> Client::wait_for(short events, double deadline_s) const {
  for (;;) {
    const double left_s = deadline_s - now_s();
    if (left_s <= 0) return hangs(timeout_s_);
    pollfd entry{socket_.get(), events, 0};
    const int ready = poll(&entry, 1, static_cast<int>(std::ceil(left_s * 1000)));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail_errno(kWhat, errno);
  }
}

Result<void> Client::send(std::string_view method, std::string_view parameters, bool more) {
  std::string message = "{\"method\":\"";
  message.append(kStackwatchName).append(".").append(method).append("\",\"parameters\":").append(parameters);
  if (more) message += ",\"more\":true";
  message += '}';
  message.push_back('\0');
  const double deadline_s = now_s() + timeout_s_;
  for (size_t sent = 0; sent < message.size();) {
    const ssize_t count = ::send(socket_.get(), message.data() + sent, message.size() - sent, MSG_NOSIGNAL);
    if (count >= 0) {
      sent += static_cast<size_t>(count);
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return {};  // a daemon that refuses has said why: it is still to be read
    } else if (errno == EAGAIN) {
      if (auto ready = wait_for(POLLOUT, deadline_s); !ready) return ready;
    } else if (errno != EINTR) {
      return fail_errno(kWhat, errno);
    }
  }
  return {};
}

std::optional<Result<rapidjson::Document>> Client::take_received() {
  const size_t end = input_.find('\0', searched_);
  if (end == std::string::npos) {
    searched_ = input_.size();
    return std::nullopt;
  }
  Result<rapidjson::Document> reply = parse_reply(std::string_view(input_).substr(0, end));
  input_.erase(0, end + 1);
  searched_ = 0;
  return reply;
}

Result<void> Client::receive_some() {
  std::array<char, 65536> chunk;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by recv
  if (input_.size() > kMaxReplyBytes) return fail(kWhat, "its answer does not end");
  const ssize_t count = recv(socket_.get(), chunk.data(), chunk.size(), 0);
  if (count == 0) return fail(kWhat, "it closed the connection");
  if (count < 0 && errno != EAGAIN && errno != EINTR) return fail_errno(kWhat, errno);
  if (count > 0) input_.append(chunk.data(), static_cast<size_t>(count));
  return {};
}

Result<rapidjson::Document> Client::receive() {
  const double deadline_s = now_s() + timeout_s_;
  for (;;) {
    if (auto reply = take_received()) return std::move(*reply);
    if (const auto ready = wait_for(POLLIN, deadline_s); !ready) return Failure(ready.error());
    if (const auto received = receive_some(); !received) return Failure(received.error());
  }
}

Result<Reply> Client::call(std::string_view method, std::string_view parameters) {
  if (const auto sent = send(method, parameters, false); !sent) return Failure(sent.error());
  Result<rapidjson::Document> reply = receive();
  if (!reply) return Failure(reply.error());
  return Reply(std::move(*reply));
}

Result<void> Client::stream(std::string_view method, std::string_view parameters, int output_fd,
                            const std::function<Result<void>(const JsonValue&)>& on_reply) {
  if (auto sent = send(method, parameters, true); !sent) return sent;
  for (;;) {
    while (auto reply = take_received()) {
      if (!*reply) return Failure(reply->error());
      if (auto taken = on_reply(object_of(**reply, "parameters")); !taken) return taken;
      if (!flag_of(**reply, "continues")) return fail(kWhat, "it ended the stream");
    }
    std::array<pollfd, 2> entries{{{socket_.get(), POLLIN, 0}, {output_fd, 0, 0}}};
    if (poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR) return fail_errno(kWhat, errno);
    if ((entries[1].revents & (POLLERR | POLLHUP)) != 0) return {};
    if (auto received = receive_some(); !received) return received;
  }
}

}  // namespace stackwatch
