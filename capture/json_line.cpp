// SPDX-License-Identifier: Apache-2.0
#include "capture/json_line.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/utf8.h"

namespace stackwatch {

void JsonLine::begin(std::string_view type) {
  buffer_.Clear();
  writer_.Reset(buffer_);
  writer_.StartObject();
  member("type", type);
}

std::string_view JsonLine::end() {
  writer_.EndObject();
  buffer_.Put('\n');
  return {buffer_.GetString(), buffer_.GetSize()};
}

void JsonLine::value(double number) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), number).ptr;
  writer_.RawValue(text.data(), static_cast<size_t>(end - text.data()), rapidjson::kNumberType);
}

void JsonLine::value(std::string_view text) {
  const bool plain = std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  if (!plain) {
    scratch_.clear();
    for (size_t position = 0; position < text.size();) append_utf8(scratch_, next_character(text, position));
    text = scratch_;
  }
  writer_.String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
}

}  // namespace stackwatch
