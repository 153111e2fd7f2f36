// SPDX-License-Identifier: Apache-2.0
#include "cli/json_view.h"

#include "daemon/control/json.h"

namespace stackwatch {
namespace {

const JsonValue* member(const JsonValue& object, const char* name) {
  if (!object.IsObject()) return nullptr;
  const auto found = object.FindMember(name);
  return found == object.MemberEnd() ? nullptr : &found->value;
}

std::string_view view(const JsonValue& text) { return {text.GetString(), text.GetStringLength()}; }

bool write_value(JsonWriter& json, const JsonValue& value, int depth) {
  if (depth > kMaxReplyNesting) return false;
  bool written = true;
  if (value.IsObject()) {
    json.begin_object();
    for (const auto& entry : value.GetObject()) {
      json.key(view(entry.name));
      written = written && write_value(json, entry.value, depth + 1);
    }
    json.end_object();
  } else if (value.IsArray()) {
    json.begin_array();
    for (const auto& element : value.GetArray()) written = written && write_value(json, element, depth + 1);
    json.end_array();
  } else if (value.IsString()) {
    json.value(view(value));
  } else if (value.IsBool()) {
    json.value(value.GetBool());
  } else if (value.IsUint64()) {
    json.value(value.GetUint64());
  } else if (value.IsInt64()) {
    json.value(value.GetInt64());
  } else if (value.IsNumber()) {
    json.value(value.GetDouble());
  } else {
    json.null();
  }
  return written;
}

}  // namespace

std::string_view text_of(const JsonValue& object, const char* name) {
  const JsonValue* value = member(object, name);
  return value != nullptr && value->IsString() ? view(*value) : std::string_view();
}

std::optional<double> number_of(const JsonValue& object, const char* name) {
  const JsonValue* value = member(object, name);
  if (value == nullptr || !value->IsNumber()) return std::nullopt;
  return value->GetDouble();
}

int64_t integer_of(const JsonValue& object, const char* name) {
  const JsonValue* value = member(object, name);
  return value != nullptr && value->IsInt64() ? value->GetInt64() : 0;
}

bool flag_of(const JsonValue& object, const char* name) {
  const JsonValue* value = member(object, name);
  return value != nullptr && value->IsBool() && value->GetBool();
}

const JsonValue& object_of(const JsonValue& object, const char* name) {
  static const JsonValue empty(rapidjson::kObjectType);
  const JsonValue* value = member(object, name);
  return value != nullptr && value->IsObject() ? *value : empty;
}

const JsonValue& array_of(const JsonValue& object, const char* name) {
  static const JsonValue empty(rapidjson::kArrayType);
  const JsonValue* value = member(object, name);
  return value != nullptr && value->IsArray() ? *value : empty;
}

Result<std::string> to_json_line(const JsonValue& value) {
  JsonWriter json;
  if (!write_value(json, value, 0)) return fail("print the reply", "it is nested too deep");
  return std::string(json.text()) + "\n";
}

}  // namespace stackwatch
