// SPDX-License-Identifier: Apache-2.0
#include "config/table_reader.h"

#include <algorithm>
#include <utility>

#include "config/text.h"
#include "config/units.h"

namespace stackwatch {
namespace {

std::string describe(const Range& range) {
  const std::string unit = *range.unit == '\0' ? "" : std::string(" ") + range.unit;
  return "from " + format_number(range.min) + " to " + format_number(range.max) + unit;
}

std::string format_bytes(double bytes) {
  constexpr double kKibi = 1024;
  std::string_view units = "KMGT";
  size_t unit = 0;
  double count = bytes / kKibi;
  for (; unit + 1 < units.size() && count >= kKibi; ++unit) count /= kKibi;
  return format_number(count) + units[unit];
}

std::string error_text(const Error& error) { return error.what + ": " + error.why; }

}  // namespace

std::string_view type_name(const TreeValue& value) {
  struct Names {
    std::string_view operator()(TreeOther) const { return "a date or time"; }
    std::string_view operator()(bool) const { return "true or false"; }
    std::string_view operator()(int64_t) const { return "a number"; }
    std::string_view operator()(double) const { return "a number with a fraction"; }
    std::string_view operator()(const std::string&) const { return "text"; }
    std::string_view operator()(const TreeArray&) const { return "an array"; }
    std::string_view operator()(const TreeTable&) const { return "a table"; }
  };
  return std::visit(Names{}, value.data);
}

const TreeValue* TableReader::find(std::string_view key) {
  known_.push_back(key);
  const auto entry = std::find_if(table_.begin(), table_.end(), [&](const TreeEntry& e) { return e.key == key; });
  return entry == table_.end() ? nullptr : &entry->value;
}

template <class T>
const T* TableReader::get(std::string_view key, std::string_view wanted, const std::string& hint) {
  const TreeValue* value = find(key);
  if (value == nullptr) return nullptr;
  const T* data = std::get_if<T>(&value->data);
  if (data == nullptr) {
    problem(key, "must be " + std::string(wanted) + ", but is " + std::string(type_name(*value)), hint);
  }
  return data;
}

bool TableReader::in_range(std::string_view key, double value, const Range& range) {
  if (value >= range.min && value <= range.max) return true;  // not so for NaN
  problem(key, format_number(value) + " is out of range", describe(range));
  return false;
}

void TableReader::flag(std::string_view key, bool& out) {
  if (const bool* value = get<bool>(key, "true or false", "")) out = *value;
}

void TableReader::number(std::string_view key, double& out, const Range& range) {
  const TreeValue* found = find(key);
  if (found == nullptr) return;
  double value = 0;
  if (const auto* integer = std::get_if<int64_t>(&found->data)) {
    value = static_cast<double>(*integer);
  } else if (const auto* number = std::get_if<double>(&found->data)) {
    value = *number;
  } else {
    problem(key, "must be a number, but is " + std::string(type_name(*found)), describe(range));
    return;
  }
  if (in_range(key, value, range)) out = value;
}

void TableReader::integer(std::string_view key, size_t& out, const Range& range) {
  const auto* value = get<int64_t>(key, "a whole number", describe(range));
  if (value != nullptr && in_range(key, static_cast<double>(*value), range)) out = static_cast<size_t>(*value);
}

void TableReader::duration(std::string_view key, double& out, const Range& range) {
  const std::string allowed = "from \"" + format_duration(range.min) + "\" to \"" + format_duration(range.max) + "\"";
  const auto* text = get<std::string>(key, "a duration in quotes", allowed);
  if (text == nullptr) return;
  const Result<double> value = parse_duration(*text);
  if (!value) {
    problem(key, error_text(value.error()), value.error().hint);
  } else if (*value < range.min || *value > range.max) {
    problem(key, in_quotes(*text) + " is out of range", allowed);
  } else {
    out = *value;
  }
}

void TableReader::bytes(std::string_view key, uint64_t& out, const Range& range) {
  const std::string allowed = "from \"" + format_bytes(range.min) + "\" to \"" + format_bytes(range.max) + "\"";
  const TreeValue* found = find(key);
  if (found == nullptr) return;
  double value = 0;
  if (const auto* text = std::get_if<std::string>(&found->data)) {
    const Result<uint64_t> size = parse_bytes(*text);
    if (!size) {
      problem(key, error_text(size.error()), size.error().hint);
      return;
    }
    value = static_cast<double>(*size);
  } else if (const auto* integer = std::get_if<int64_t>(&found->data)) {
    value = static_cast<double>(*integer);
  } else {
    problem(key, "must be a size, but is " + std::string(type_name(*found)), allowed);
    return;
  }
  if (value < range.min || value > range.max) {
    problem(key, format_number(value) + " bytes is out of range", allowed);
  } else {
    out = static_cast<uint64_t>(value);
  }
}

void TableReader::whole(std::string_view key, std::optional<int64_t>& out) {
  if (const auto* value = get<int64_t>(key, "a whole number", "")) out = *value;
}

void TableReader::text(std::string_view key, std::optional<std::string>& out) {
  if (const auto* value = get<std::string>(key, "text in quotes", "")) out = *value;
}

void TableReader::texts(std::string_view key, std::optional<std::vector<std::string>>& out) {
  const std::string hint = std::string(key) + " = [\"…\"]";
  const auto* array = get<TreeArray>(key, "an array of texts", hint);
  if (array == nullptr) return;
  std::vector<std::string> result;
  for (const TreeValue& element : *array) {
    const auto* value = std::get_if<std::string>(&element.data);
    if (value == nullptr) {
      add(element.position, std::string(key) + ": must be text in quotes, but is " + std::string(type_name(element)),
          hint);
      return;
    }
    result.push_back(*value);
  }
  out = std::move(result);
}

const TreeTable* TableReader::table(std::string_view key) {
  return get<TreeTable>(key, "a table", "[" + std::string(key) + "]");
}

std::vector<const TreeValue*> TableReader::tables(std::string_view key) {
  std::vector<const TreeValue*> result;
  const std::string hint = "[[" + std::string(key) + "]]";
  const auto* array = get<TreeArray>(key, "an array of tables", hint);
  if (array == nullptr) return result;
  for (const TreeValue& element : *array) {
    if (std::holds_alternative<TreeTable>(element.data)) {
      result.push_back(&element);
    } else {
      add(element.position, std::string(key) + ": must be a table, but is " + std::string(type_name(element)), hint);
    }
  }
  return result;
}

Position TableReader::position_of(std::string_view key) const {
  const auto entry = std::find_if(table_.begin(), table_.end(), [&](const TreeEntry& e) { return e.key == key; });
  return entry == table_.end() ? position_ : entry->value.position;
}

void TableReader::problem(std::string_view key, const std::string& why, std::string hint) {
  add(position_of(key), std::string(key) + ": " + why, std::move(hint));
}

void TableReader::add(Position position, std::string why, std::string hint) {
  ok_ = false;
  problems_.add(position, std::move(why), std::move(hint));
}

void TableReader::finish() {
  for (const TreeEntry& entry : table_) {
    if (std::find(known_.begin(), known_.end(), entry.key) != known_.end()) continue;
    // TOML gives every key after a [table] to that table.
    std::string hint = entry.key == "tick" ? "it stands above the first [table]" : suggestion(entry.key, known_);
    add(entry.position, "unknown key " + in_quotes(entry.key) + " in " + name_, std::move(hint));
  }
}

}  // namespace stackwatch
