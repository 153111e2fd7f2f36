// SPDX-License-Identifier: Apache-2.0
#include "config/problems.h"

#include "config/text.h"

namespace stackwatch {

void Problems::begin_file(std::string name) {
  file_ = printable(name);
  ++file_number_;
}

void Problems::add(Position position, std::string why, std::string hint) {
  ++count_;
  const std::pair place{file_number_, position};
  if (count_ > 1 && place >= first_place_) return;
  first_place_ = place;
  std::string what = this->place(position);
  if (position.line > 0) what += ":" + std::to_string(position.column);
  first_ = Error{ErrorKind::kUsage, std::move(what), std::move(why), std::move(hint)};
}

std::string Problems::place(Position position) const {
  return position.line > 0 ? file_ + ":" + std::to_string(position.line) : file_;
}

Error Problems::error() const {
  Error error = first_;
  if (count_ > 1) {
    if (!error.hint.empty()) error.hint += "; ";
    error.hint += count_ == 2 ? "1 more problem" : std::to_string(count_ - 1) + " more problems";
  }
  return error;
}

}  // namespace stackwatch
