// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <rapidjson/document.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "cli/json_view.h"
#include "core/clock.h"
#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// The answer to one call.
class Reply {
 public:
  /// `message` must have passed Client's checks: it holds an object "parameters".
  explicit Reply(rapidjson::Document message) : message_(std::move(message)) {}
  [[nodiscard]] const JsonValue& parameters() const { return object_of(message_, "parameters"); }

 private:
  rapidjson::Document message_;
};

/// Talks Varlink to the daemon over one connection. Every wait for an answer ends after the timeout.
class Client {
 public:
  /// A daemon that is busy with a tick answers within milliseconds; one that does not in this time hangs.
  static constexpr double kDefaultTimeout_s = 5;
  /// Replies are below 5 MiB each; whoever sends more is no stackwatchd.
  static constexpr size_t kMaxReplyBytes = size_t{64} << 20U;

  /// `clock` outlives the client. Errors: kNoDaemon: nobody listens; kUnsupported: not allowed to connect; kUsage: the
  /// path is too long; kFailed: everything else.
  [[nodiscard]] static Result<Client> connect(const std::string& path, const Clock& clock,
                                              double timeout_s = kDefaultTimeout_s);

  /// `method` is without the interface: "GetStatus"; `parameters` is a JSON object. An error reply becomes an Error of
  /// the kind that the contract's exit codes ask for.
  [[nodiscard]] Result<Reply> call(std::string_view method, std::string_view parameters = "{}");

  /// Calls with `more` and hands over the parameters of every reply, waiting for them without end; ends with the error
  /// that `on_reply` returns, when the daemon ends the stream (an error too: it was to go on), or when nobody reads
  /// `output_fd` any more: without error, for nothing is left to do.
  [[nodiscard]] Result<void> stream(std::string_view method, std::string_view parameters, int output_fd,
                                    const std::function<Result<void>(const JsonValue&)>& on_reply);

 private:
  Client(UniqueFd socket, const Clock& clock, double timeout_s)
      : socket_(std::move(socket)), clock_(&clock), timeout_s_(timeout_s) {}
  [[nodiscard]] Result<void> send(std::string_view method, std::string_view parameters, bool more);
  [[nodiscard]] std::optional<Result<rapidjson::Document>> take_received();
  [[nodiscard]] Result<rapidjson::Document> receive();
  [[nodiscard]] Result<void> receive_some();
  [[nodiscard]] Result<void> wait_for(short events, double deadline_s) const;
  [[nodiscard]] double now_s() const { return static_cast<double>(clock_->monotonic_ns()) * 1e-9; }

  UniqueFd socket_;
  const Clock* clock_;
  double timeout_s_;
  std::string input_;    // received but not yet handed over
  size_t searched_ = 0;  // of input_: there is no end of a message before
};

}  // namespace stackwatch
