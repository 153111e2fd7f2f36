// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <rapidjson/document.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/result.h"

namespace stackwatch {

using JsonValue = rapidjson::Value;

/// How deep a document of the daemon may be nested; its own are below 8.
inline constexpr int kMaxReplyNesting = 64;

/// Members of an object that may lack them or have them with another type: a newer or older daemon must not crash the
/// client. Text is as sent, not made safe for a terminal.
[[nodiscard]] std::string_view text_of(const JsonValue& object, const char* name);
/// Nothing where it is missing or null (a number that is not finite).
[[nodiscard]] std::optional<double> number_of(const JsonValue& object, const char* name);
[[nodiscard]] int64_t integer_of(const JsonValue& object, const char* name);
[[nodiscard]] bool flag_of(const JsonValue& object, const char* name);
/// An empty object or array where it is missing.
[[nodiscard]] const JsonValue& object_of(const JsonValue& object, const char* name);
[[nodiscard]] const JsonValue& array_of(const JsonValue& object, const char* name);

/// The document on one line, written anew: nothing in it can act on a terminal. Error: nested too deep.
[[nodiscard]] Result<std::string> to_json_line(const JsonValue& value);

}  // namespace stackwatch
