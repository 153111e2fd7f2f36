// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "core/result.h"

namespace stackwatch {

/// Tells when processes execute programs, within milliseconds. A hint to look, not a record: the census has the rest,
/// and whatever is missed here it sees at the next tick.
class ExecEvents {
 public:
  virtual ~ExecEvents() = default;
  /// Readable when there are events.
  [[nodiscard]] virtual int fd() const = 0;
  /// While off, execs cost nobody anything. Off at first.
  [[nodiscard]] virtual Result<void> switch_on(bool on) = 0;
  [[nodiscard]] virtual bool is_on() const = 0;
  /// Calls `visit` with the new name of each process (at most 15 bytes) since the last call.
  virtual void drain(const std::function<void(std::string_view comm)>& visit) = 0;
};

/// Errors: kUnsupported where BTF or privileges are missing.
[[nodiscard]] Result<std::unique_ptr<ExecEvents>> make_exec_events();

}  // namespace stackwatch
