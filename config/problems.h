// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "config/tree.h"
#include "core/result.h"

namespace stackwatch {

/// Collects what is wrong with a configuration: the first problem in order of files and lines, and the number of all.
/// One line is all that a user gets to see.
class Problems {
 public:
  /// What is added from now on belongs to this file.
  void begin_file(std::string name);
  void add(Position position, std::string why, std::string hint = {});

  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] const std::string& file() const { return file_; }
  /// "file:line" of a place in the current file.
  [[nodiscard]] std::string place(Position position) const;
  /// The first problem; must not be called without one.
  [[nodiscard]] Error error() const;

 private:
  std::string file_;
  size_t file_number_ = 0;
  size_t count_ = 0;
  std::pair<size_t, Position> first_place_;  // number of the file, place in it
  Error first_;
};

}  // namespace stackwatch
