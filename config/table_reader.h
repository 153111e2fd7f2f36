// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/problems.h"
#include "config/tree.h"

namespace stackwatch {

/// What a number may be, both ends included.
struct Range {
  double min = 0;
  double max = 0;
  const char* unit = "";  ///< for messages: "Hz"; empty for a plain number
};

/// Takes values out of one table. A key that is absent leaves its output as it is; so does one that is wrong, which
/// goes to `problems`. Keys that nobody asked for are wrong too: finish() tells. Borrows everything for its life.
class TableReader {
 public:
  /// `name` as users write it: "[alerts]", "[[watch]]", "the top level".
  TableReader(const TreeTable& table, Position position, std::string name, Problems& problems)
      : table_(table), position_(position), name_(std::move(name)), problems_(problems) {}

  void flag(std::string_view key, bool& out);
  void number(std::string_view key, double& out, const Range& range);
  void integer(std::string_view key, size_t& out, const Range& range);
  /// Any whole number; nothing is said about its range.
  void whole(std::string_view key, std::optional<int64_t>& out);
  /// A duration in quotes; the range is in seconds.
  void duration(std::string_view key, double& out, const Range& range);
  /// A size in quotes, or a number of bytes; the range is in bytes.
  void bytes(std::string_view key, uint64_t& out, const Range& range);
  void text(std::string_view key, std::optional<std::string>& out);
  void texts(std::string_view key, std::optional<std::vector<std::string>>& out);
  /// nullptr where it is absent or wrong.
  [[nodiscard]] const TreeTable* table(std::string_view key);
  /// An array of tables. Elements that are none go to `problems` and are left out.
  [[nodiscard]] std::vector<const TreeValue*> tables(std::string_view key);

  /// Where the value of a key stands, or the table where the key is absent.
  [[nodiscard]] Position position_of(std::string_view key) const;
  void problem(std::string_view key, const std::string& why, std::string hint = {});
  /// To be called last: what is left in the table is unknown.
  void finish();
  /// Whether nothing was wrong in this table so far.
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  const TreeValue* find(std::string_view key);
  template <class T>
  const T* get(std::string_view key, std::string_view wanted, const std::string& hint);
  void add(Position position, std::string why, std::string hint);
  bool in_range(std::string_view key, double value, const Range& range);

  const TreeTable& table_;
  Position position_;
  std::string name_;
  Problems& problems_;
  bool ok_ = true;
  std::vector<std::string_view> known_;  // keys asked for
};

}  // namespace stackwatch
