// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <concepts>
#include <string>
#include <string_view>

namespace stackwatch {

/// One line of a capture under construction: an object, and objects and arrays in it. Valid JSON whatever is written:
/// bytes that are no UTF-8 become U+FFFD. Doubles come back bit for bit; they must be finite.
class JsonLine {
 public:
  /// Begins a line anew.
  void begin(std::string_view type);
  /// Ends it. Valid until the next begin().
  [[nodiscard]] std::string_view end();

  void begin_object(std::string_view name) { key(name), writer_.StartObject(); }
  void end_object() { writer_.EndObject(); }
  void begin_array(std::string_view name) { key(name), writer_.StartArray(); }
  void begin_array() { writer_.StartArray(); }
  void end_array() { writer_.EndArray(); }

  void value(std::string_view text);
  void value(double number);
  template <std::unsigned_integral T>
  void value(T number) {
    writer_.Uint64(number);
  }
  template <std::signed_integral T>
  void value(T number) {
    writer_.Int64(number);
  }

  void member(std::string_view name, std::string_view text) { key(name), value(text); }
  void member(std::string_view name, const std::string& text) { key(name), value(std::string_view(text)); }
  template <class T>
  requires std::integral<T> || std::floating_point<T>
  void member(std::string_view name, T number) { key(name), value(number); }
  void flag(std::string_view name) { key(name), writer_.Bool(true); }

 private:
  void key(std::string_view name) { writer_.Key(name.data(), static_cast<rapidjson::SizeType>(name.size())); }

  rapidjson::StringBuffer buffer_;
  rapidjson::Writer<rapidjson::StringBuffer> writer_{buffer_};
  std::string scratch_;  // a text made valid, kept for its memory
};

}  // namespace stackwatch
