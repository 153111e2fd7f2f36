// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <type_traits>
#include <utility>

namespace stackwatch {

/// Why something did not work, in the order of the exit codes that a program returns for it.
enum class ErrorKind : int {
  kFailed = 1,       ///< it was tried and did not work
  kUsage = 2,        ///< the caller asked for something that makes no sense
  kUnsupported = 3,  ///< the kernel or the privileges don't allow it
  kNoDaemon = 4,     ///< nobody answers on the control socket
};

/// What failed, why, and what the reader can do about it. One line when printed.
struct Error {
  ErrorKind kind = ErrorKind::kFailed;
  std::string what;
  std::string why;
  std::string hint;

  /// `WHAT: WHY (HINT)`; empty parts are left out.
  [[nodiscard]] std::string message() const;
  [[nodiscard]] int exit_code() const { return static_cast<int>(kind); }
};

/// A value or an Error. Like tl::expected, but must be looked at.
template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

using Failure = tl::unexpected<Error>;

/// `return fail("open the journal", "no such file");`
[[nodiscard]] Failure fail(std::string what, std::string why, std::string hint = {});
[[nodiscard]] Failure fail(ErrorKind kind, std::string what, std::string why, std::string hint = {});
/// The same with the text of an errno value as the reason.
[[nodiscard]] Failure fail_errno(std::string what, int error_number, std::string hint = {});

}  // namespace stackwatch
