// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/alert.h"
#include "daemon/status.h"

namespace stackwatch {

/// Writes one JSON document on one line. Whatever is written, the document is valid: bytes that are no UTF-8 become
/// U+FFFD, characters that act on a terminal are escaped (comm and cmdline can be any bytes), and a number that is not
/// finite is null. Arrays and objects must be closed in order.
class JsonWriter {
 public:
  JsonWriter() : writer_(buffer_) {}
  JsonWriter(const JsonWriter&) = delete;
  JsonWriter& operator=(const JsonWriter&) = delete;

  void begin_object() { writer_.StartObject(); }
  void end_object() { writer_.EndObject(); }
  void begin_array() { writer_.StartArray(); }
  void end_array() { writer_.EndArray(); }
  void key(std::string_view name) { quoted(name); }

  void value(std::string_view text) { quoted(text); }
  void value(const char* text) { quoted(text); }
  void value(const std::string& text) { quoted(text); }
  void value(bool flag) { writer_.Bool(flag); }
  void value(double number);
  template <std::unsigned_integral T>
  void value(T number) {
    writer_.Uint64(number);
  }
  template <std::signed_integral T>
  void value(T number) {
    writer_.Int64(number);
  }
  void null() { writer_.Null(); }

  template <class T>
  void member(std::string_view name, const T& item) {
    key(name);
    value(item);
  }

  /// What is written so far; the document once everything is closed. Valid until the next write.
  [[nodiscard]] std::string_view text() const { return {buffer_.GetString(), buffer_.GetSize()}; }
  [[nodiscard]] size_t size() const { return buffer_.GetSize(); }

 private:
  void quoted(std::string_view text);

  rapidjson::StringBuffer buffer_;
  rapidjson::Writer<rapidjson::StringBuffer> writer_;
  std::string scratch_;  // one quoted string, kept for its memory
};

/// A list stops at the row that begins past this size, and says how many are left out: 4 MiB are 4,096 stacks of 1 KiB
/// and are written in about 40 ms (measured), which a tick of one second can spare.
inline constexpr size_t kMaxListBytes = size_t{4} << 20U;

/// Each writes one value (an object, or the array that its name says). Times are ISO 8601 in UTC with microseconds.
/// The lists return how many rows they left out (0 almost always; see kMaxListBytes).
void write_process(JsonWriter& json, const ProcessIdentity& process);
void write_losses(JsonWriter& json, const Losses& lost);
/// The alert exactly as it looks everywhere: --json, store, control.
void write_alert(JsonWriter& json, const Alert& alert);
void write_status(JsonWriter& json, const Status& status);
[[nodiscard]] size_t write_alert_list(JsonWriter& json, const std::vector<Alert>& alerts);
[[nodiscard]] size_t write_ranking_list(JsonWriter& json, const std::vector<RankingRow>& rows);
[[nodiscard]] size_t write_attachment_list(JsonWriter& json, const std::vector<AttachmentRow>& rows);
[[nodiscard]] size_t write_unusual_stack_list(JsonWriter& json, const std::vector<UnusualStack>& stacks);
[[nodiscard]] size_t write_watch_list(JsonWriter& json, const std::vector<WatchRow>& rows);
/// An object that holds the list as "stacks" and, where some are left out, "omitted".
void write_stacks(JsonWriter& json, const StacksReport& report);

/// write_alert() as a text without a line end.
[[nodiscard]] std::string alert_to_json(const Alert& alert);

}  // namespace stackwatch
