// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <rapidjson/document.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace stackwatch {

/// The members of one JSON object. The first that is missing or makes no sense is remembered; what is read then has
/// some value.
class JsonFields {
 public:
  explicit JsonFields(const rapidjson::Value& object) : object_(object) {}

  [[nodiscard]] const rapidjson::Value* find(const char* name) const {
    const auto member = object_.FindMember(name);
    return member == object_.MemberEnd() || member->value.IsNull() ? nullptr : &member->value;
  }
  [[nodiscard]] bool has(const char* name) const { return find(name) != nullptr; }

  /// Empty where it is missing.
  std::string text(const char* name) {
    const rapidjson::Value* value = find(name);
    if (value == nullptr) return {};
    if (!value->IsString()) return complain(name, "is no string"), std::string();
    return {value->GetString(), value->GetStringLength()};
  }
  /// A finite number of at most this size: sums of many stay finite, and a time has room in 64 bits of nanoseconds.
  double number(const char* name, double most = 4e9) {
    const rapidjson::Value* value = need(name);
    if (value == nullptr) return 0;
    if (!value->IsNumber()) return complain(name, "is no number"), 0;
    const double number = value->GetDouble();
    if (!(number >= -most && number <= most)) return complain(name, "is out of range"), 0;
    return number;
  }
  double positive(const char* name, double most = 4e9) {
    const double value = number(name, most);
    return value >= 0 ? value : (complain(name, "is negative"), 0);
  }
  std::optional<double> maybe_positive(const char* name) {
    return has(name) ? std::optional(positive(name)) : std::nullopt;
  }
  int64_t integer(const char* name, int64_t least, int64_t most) {
    const rapidjson::Value* value = need(name);
    if (value == nullptr) return least;
    if (!value->IsInt64()) return complain(name, "is no whole number"), least;
    if (value->GetInt64() < least || value->GetInt64() > most) return complain(name, "is out of range"), least;
    return value->GetInt64();
  }
  int64_t maybe_integer(const char* name, int64_t least, int64_t most, int64_t otherwise) {
    return has(name) ? integer(name, least, most) : otherwise;
  }
  uint64_t count(const char* name) {
    const rapidjson::Value* value = need(name);
    if (value == nullptr) return 0;
    if (!value->IsUint64()) return complain(name, "is no whole number from 0 on"), 0;
    return value->GetUint64();
  }
  /// 0 where it is missing.
  uint64_t maybe_count(const char* name) { return has(name) ? count(name) : 0; }
  uint32_t small_count(const char* name) {
    const uint64_t value = count(name);
    if (value <= std::numeric_limits<uint32_t>::max()) return static_cast<uint32_t>(value);
    return complain(name, "is out of range"), 0;
  }
  bool flag(const char* name) {
    const rapidjson::Value* value = find(name);
    return value != nullptr && value->IsTrue();
  }

  void complain(std::string_view name, std::string_view why) {
    if (problem_.empty()) problem_.append("\"").append(name).append("\" ").append(why);
  }
  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  const rapidjson::Value* need(const char* name) {
    const rapidjson::Value* value = find(name);
    if (value == nullptr) complain(name, "is missing");
    return value;
  }
  const rapidjson::Value& object_;
  std::string problem_;
};

}  // namespace stackwatch
