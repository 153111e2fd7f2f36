// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace stackwatch {

/// Where something stands in a file; counted from 1. Line 0: nowhere in particular.
struct Position {
  uint32_t line = 0;
  uint32_t column = 0;  ///< in characters
  auto operator<=>(const Position&) const = default;
};

struct TreeValue;
struct TreeEntry;

using TreeArray = std::vector<TreeValue>;
using TreeTable = std::vector<TreeEntry>;  ///< keys are unique

/// A value of a type that no key has: a date or a time.
struct TreeOther {};

/// A TOML value without the parser's types, so that only one source file needs them.
struct TreeValue {
  Position position;
  std::variant<TreeOther, bool, int64_t, double, std::string, TreeArray, TreeTable> data;
};

struct TreeEntry {
  std::string key;
  Position position;  ///< of the key
  TreeValue value;
};

/// "a number", "a table", … for error messages.
[[nodiscard]] std::string_view type_name(const TreeValue& value);

}  // namespace stackwatch
