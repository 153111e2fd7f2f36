// SPDX-License-Identifier: Apache-2.0
#include "config/toml_reader.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "config/text.h"

// The only place that sees the TOML library: it takes seconds to compile, and its exceptions are off.
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
// Version 3.3 takes letters from U+00A1 on for unreachable where it looks for white space (its issues 190 and 295): a
// misplaced ü is undefined behaviour. The right answer there is "no white space", so unreachable means `false` here.
#include <toml++/impl/preprocessor.h>
#undef TOML_UNREACHABLE
#define TOML_UNREACHABLE \
  return {}
#include <toml++/toml.h>

namespace stackwatch {
namespace {

Position position_of(const toml::source_region& region) { return {region.begin.line, region.begin.column}; }

// Tables and arrays within each other are at most 256 deep (TOML_MAX_NESTED_VALUES), dotted keys kMaxKeyParts each.
TreeValue convert(const toml::node& node);

TreeTable convert_table(const toml::table& table) {
  TreeTable result;
  result.reserve(table.size());
  for (const auto& [key, node] : table) {
    result.push_back({std::string(key.str()), position_of(key.source()), convert(node)});
  }
  return result;
}

TreeValue convert(const toml::node& node) {
  TreeValue value{position_of(node.source()), TreeOther{}};
  if (const auto* table = node.as_table()) {
    value.data = convert_table(*table);
  } else if (const auto* array = node.as_array()) {
    TreeArray elements;
    elements.reserve(array->size());
    for (const toml::node& element : *array) elements.push_back(convert(element));
    value.data = std::move(elements);
  } else if (const auto* boolean = node.as_boolean()) {
    value.data = boolean->get();
  } else if (const auto* integer = node.as_integer()) {
    value.data = integer->get();
  } else if (const auto* number = node.as_floating_point()) {
    value.data = number->get();
  } else if (const auto* string = node.as_string()) {
    value.data = string->get();
  }
  return value;
}

// Walks over a document far enough to tell keys from strings and comments, and finds what the TOML library must not
// see.
class Scanner {
 public:
  struct Finding {
    Position position;
    std::string why;
    std::string hint;
  };

  explicit Scanner(std::string_view text) : text_(text) {}

  std::optional<Finding> find() {
    constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
    if (text_.starts_with(kByteOrderMark)) at_ = kByteOrderMark.size();
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"' || c == '\'') {
        skip_string(c);
        continue;
      }
      if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
        continue;
      }
      // Mostly quotes that a word processor has bent; the library would tell it less plainly.
      if (static_cast<unsigned char>(c) >= 0x80) {
        return Finding{position(), "a character that is not ASCII outside of quotes", "quotes are straight: \"…\""};
      }
      if (c == '.' && ++dots_ >= kMaxKeyParts) {
        return Finding{position(), "a key has more than " + std::to_string(kMaxKeyParts) + " parts", ""};
      }
      if (ends_key(c)) dots_ = 0;
      ++at_;
    }
    return std::nullopt;
  }

 private:
  static bool ends_key(char c) {
    return c == '=' || c == ',' || c == '[' || c == ']' || c == '{' || c == '}' || c == '\n';
  }

  void skip_string(char quote) {
    const std::string triple(3, quote);
    const bool multi_line = text_.substr(at_).starts_with(triple);
    at_ += multi_line ? 3 : 1;
    while (at_ < text_.size()) {
      if (quote == '"' && text_[at_] == '\\') {
        at_ += 2;
      } else if (!multi_line && text_[at_] == '\n') {
        return;  // not closed: an error that the parser tells better
      } else if (multi_line ? text_.substr(at_).starts_with(triple) : text_[at_] == quote) {
        at_ += multi_line ? 3 : 1;
        while (multi_line && at_ < text_.size() && text_[at_] == quote) ++at_;  // quotes that belong to the text
        return;
      } else {
        ++at_;
      }
    }
  }

  [[nodiscard]] Position position() const {
    Position result{1, 1};
    for (const char c : text_.substr(0, at_)) {
      const bool begins_character = (static_cast<unsigned char>(c) & 0xc0U) != 0x80U;
      if (c == '\n') {
        result = {result.line + 1, 1};
      } else if (begins_character) {
        ++result.column;
      }
    }
    return result;
  }

  std::string_view text_;
  size_t at_ = 0;
  size_t dots_ = 0;
};

const char* syntax_hint(std::string_view why) {
  if (why.find("utf-8") != std::string_view::npos) return "save the file as UTF-8";
  if (why.find("redefine") != std::string_view::npos) return "a key or [table] stands once; [[watch]] may repeat";
  return "text and durations stand in quotes: key = \"10s\"";
}

}  // namespace

TreeTable read_toml(std::string_view text, Problems& problems) {
  if (auto found = Scanner(text).find()) {
    problems.add(found->position, std::move(found->why), std::move(found->hint));
    return {};
  }
  const toml::parse_result result = toml::parse(text, std::string_view{});
  if (!result) {
    std::string why = printable(result.error().description());
    if (why.starts_with('E')) why[0] = 'e';
    problems.add(position_of(result.error().source()), why, syntax_hint(why));
    return {};
  }
  return convert_table(result.table());
}

}  // namespace stackwatch
