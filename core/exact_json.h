// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <rapidjson/document.h>
#include <rapidjson/encodedstream.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <charconv>
#include <cstdint>
#include <string_view>
#include <system_error>

namespace stackwatch {

/// Parses one JSON text into an empty document; a number becomes the double that was written. rapidjson's own way to
/// that (kParseFullPrecisionFlag) is undefined for a zero with an exponent, so numbers are std::from_chars's. Nesting
/// costs heap in proportion to the text and no stack. A number beyond a double's range is an error
/// (kParseErrorTermination).
inline rapidjson::ParseResult parse_exact(std::string_view text, rapidjson::Document& document) {
  struct Numbers {
    rapidjson::Document& to;

    bool Null() { return to.Null(); }
    bool Bool(bool value) { return to.Bool(value); }
    bool Int(int value) { return to.Int(value); }
    bool Uint(unsigned value) { return to.Uint(value); }
    bool Int64(int64_t value) { return to.Int64(value); }
    bool Uint64(uint64_t value) { return to.Uint64(value); }
    bool Double(double value) { return to.Double(value); }
    bool String(const char* bytes, rapidjson::SizeType length, bool copy) { return to.String(bytes, length, copy); }
    bool StartObject() { return to.StartObject(); }
    bool Key(const char* bytes, rapidjson::SizeType length, bool copy) { return to.Key(bytes, length, copy); }
    bool EndObject(rapidjson::SizeType members) { return to.EndObject(members); }
    bool StartArray() { return to.StartArray(); }
    bool EndArray(rapidjson::SizeType elements) { return to.EndArray(elements); }

    // The grammar was checked by the reader.
    bool RawNumber(const char* bytes, rapidjson::SizeType length, bool /*copy*/) {
      const char* const end = bytes + length;
      const auto reads_as = [&](auto& number) {
        const auto [read_to, error] = std::from_chars(bytes, end, number);
        return read_to == end && error == std::errc();
      };
      if (uint64_t natural = 0; reads_as(natural)) return to.Uint64(natural);
      if (int64_t integer = 0; reads_as(integer)) return to.Int64(integer);
      double real = 0;
      return reads_as(real) && to.Double(real);
    }
  };
  static constexpr unsigned kFlags =
      rapidjson::kParseIterativeFlag | rapidjson::kParseNumbersAsStringsFlag | rapidjson::kParseValidateEncodingFlag;
  rapidjson::ParseResult result;
  const auto generate = [&](rapidjson::Document& handler) {
    rapidjson::MemoryStream bytes(text.data(), text.size());
    rapidjson::EncodedInputStream<rapidjson::UTF8<>, rapidjson::MemoryStream> stream(bytes);
    rapidjson::Reader reader;
    Numbers numbers{handler};
    result = reader.Parse<kFlags>(stream, numbers);
    return !result.IsError();
  };
  document.Populate(generate);
  return result;
}

}  // namespace stackwatch
