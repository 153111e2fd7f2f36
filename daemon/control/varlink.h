// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <rapidjson/document.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/result.h"
#include "daemon/control/json.h"

namespace stackwatch {

/// The longest request: ours are below 200 bytes; room for later ones with lists in them.
inline constexpr size_t kMaxMessageBytes = size_t{64} << 10U;
/// How deep objects and arrays of a request may be nested: ours need 2.
inline constexpr int kMaxNesting = 16;

/// Cuts a stream of bytes into messages at their NUL. Holds at most kMaxMessageBytes and one read.
class MessageBuffer {
 public:
  void append(std::string_view bytes);
  /// The next whole message without its NUL; valid until the next append(). Nothing where none is whole yet, or the
  /// one in front is overlong().
  [[nodiscard]] std::optional<std::string_view> next();
  [[nodiscard]] bool ready() const { return end_ != std::string::npos && !overlong(); }
  /// The message in front is longer than kMaxMessageBytes, whether or not its end has come.
  [[nodiscard]] bool overlong() const;
  [[nodiscard]] size_t size() const { return bytes_.size() - begin_; }

 private:
  void find_end(size_t from);

  std::string bytes_;
  size_t begin_ = 0;                // of the message in front
  size_t end_ = std::string::npos;  // its NUL
};

/// One request of a Varlink client.
struct VarlinkCall {
  std::string method;  ///< interface and name as sent: `io.stackwatch.GetStatus`
  bool more = false;
  bool oneway = false;
  bool upgrade = false;
  rapidjson::Document parameters;  ///< always an object
};

/// Reads a request. Keys that Varlink does not know are skipped. Error: it is no JSON, too deep, or of other types.
[[nodiscard]] Result<VarlinkCall> parse_call(std::string_view message);

/// Takes the parameters of a call one by one; null is the same as absent. The first that has the wrong type or is out
/// of range is bad(), and after all are taken so is one that nobody asked for: a misspelt name must not be ignored.
class Parameters {
 public:
  /// `object` outlives this.
  explicit Parameters(const rapidjson::Value& object) : object_(object) {}

  [[nodiscard]] std::optional<int64_t> integer(const char* name, int64_t low, int64_t high);
  [[nodiscard]] std::optional<double> number(const char* name, double low, double high);
  [[nodiscard]] std::optional<bool> flag(const char* name);
  [[nodiscard]] std::optional<std::string> text(const char* name);
  [[nodiscard]] std::optional<std::vector<std::string>> texts(const char* name);
  /// Marks a parameter as bad for a reason that only the caller knows.
  void reject(const char* name);
  [[nodiscard]] std::optional<std::string> bad() const;

 private:
  const rapidjson::Value* take(const char* name);

  const rapidjson::Value& object_;
  std::vector<std::string> known_;
  std::optional<std::string> bad_;
};

/// Appends a reply and its NUL to `output`; `write` writes the parameters object. `continues`: more replies follow.
template <class Write>
void append_reply(std::string& output, bool continues, Write write) {
  JsonWriter json;
  json.begin_object();
  json.key("parameters");
  write(json);
  if (continues) json.member("continues", true);
  json.end_object();
  output.append(json.text());
  output.push_back('\0');
}

/// Appends an error reply; `error` is its full name, `write` writes its parameters object.
template <class Write>
void append_error(std::string& output, std::string_view error, Write write) {
  JsonWriter json;
  json.begin_object();
  json.member("error", error);
  json.key("parameters");
  write(json);
  json.end_object();
  output.append(json.text());
  output.push_back('\0');
}

/// The same for errors with one parameter.
void append_error(std::string& output, std::string_view error, std::string_view parameter, std::string_view value);

}  // namespace stackwatch
