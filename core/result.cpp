// SPDX-License-Identifier: Apache-2.0
#include "core/result.h"

#include <cerrno>
#include <system_error>

namespace stackwatch {

std::string Error::message() const {
  std::string text = what;
  if (!why.empty()) {
    if (!text.empty()) text += ": ";
    text += why;
  }
  if (!hint.empty()) text += " (" + hint + ")";
  return text;
}

Failure fail(std::string what, std::string why, std::string hint) {
  return fail(ErrorKind::kFailed, std::move(what), std::move(why), std::move(hint));
}

Failure fail(ErrorKind kind, std::string what, std::string why, std::string hint) {
  return Failure(Error{kind, std::move(what), std::move(why), std::move(hint)});
}

Failure fail_errno(std::string what, int error_number, std::string hint) {
  const bool denied = error_number == EPERM || error_number == EACCES;
  return fail(denied ? ErrorKind::kUnsupported : ErrorKind::kFailed, std::move(what),
              std::generic_category().message(error_number), std::move(hint));
}

}  // namespace stackwatch
