// SPDX-License-Identifier: Apache-2.0
// Any bytes as a name: the JSON is valid, holds no control character, and is read back as the same characters.
#include <rapidjson/document.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/time_text.h"
#include "core/utf8.h"
#include "daemon/control/json.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stackwatch;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  JsonWriter json;
  json.value(text);
  require(std::ranges::none_of(json.text(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }));
  rapidjson::Document document;
  document.Parse<rapidjson::kParseValidateEncodingFlag>(json.text().data(), json.text().size());
  require(!document.HasParseError() && document.IsString());

  std::string replaced;
  for (size_t position = 0; position < text.size();) append_utf8(replaced, next_character(text, position));
  require(replaced == std::string_view(document.GetString(), document.GetStringLength()));

  if (const auto time_ns = parse_time(text, ZonelessTime::kRefused)) {
    require(parse_time(format_utc(*time_ns), ZonelessTime::kRefused) == *time_ns / 1000 * 1000);
  }
  return 0;
}
