// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/varlink.h"

#include <rapidjson/error/en.h>

#include <algorithm>

namespace stackwatch {
namespace {

constexpr const char* kWhat = "read a request";

/// Nesting is counted before anything is built. Brackets inside of strings do not count.
bool nested_too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxNesting) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

/// False where the flag is there but no boolean.
bool read_flag(const rapidjson::Value& request, const char* name, bool& flag) {
  const auto found = request.FindMember(name);
  if (found == request.MemberEnd() || found->value.IsNull()) return true;
  if (!found->value.IsBool()) return false;
  flag = found->value.GetBool();
  return true;
}

}  // namespace

void MessageBuffer::append(std::string_view bytes) {
  if (begin_ > 0) {
    bytes_.erase(0, begin_);
    if (end_ != std::string::npos) end_ -= begin_;
    begin_ = 0;
  }
  const size_t old_size = bytes_.size();
  bytes_.append(bytes);
  if (end_ == std::string::npos) find_end(old_size);
}

void MessageBuffer::find_end(size_t from) { end_ = bytes_.find('\0', from); }

std::optional<std::string_view> MessageBuffer::next() {
  if (!ready()) return std::nullopt;
  const std::string_view message = std::string_view(bytes_).substr(begin_, end_ - begin_);
  begin_ = end_ + 1;
  find_end(begin_);
  return message;
}

bool MessageBuffer::overlong() const {
  const size_t length = (end_ == std::string::npos ? bytes_.size() : end_) - begin_;
  return length > kMaxMessageBytes;
}

Result<VarlinkCall> parse_call(std::string_view message) {
  if (nested_too_deep(message)) return fail(kWhat, "its objects are nested too deep");
  VarlinkCall call;
  // Iterative: a hostile nesting must not use up the stack, whatever the check above overlooks.
  constexpr unsigned kFlags = rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag;
  rapidjson::Document request;
  request.Parse<kFlags>(message.data(), message.size());
  if (request.HasParseError()) return fail(kWhat, rapidjson::GetParseError_En(request.GetParseError()));
  if (!request.IsObject()) return fail(kWhat, "it is no object");

  // Through a constant reference: clang finds the comparison of other iterators ambiguous in C++20.
  const rapidjson::Value& object = request;
  const auto method = object.FindMember("method");
  if (method == object.MemberEnd() || !method->value.IsString()) return fail(kWhat, "it names no method");
  call.method.assign(method->value.GetString(), method->value.GetStringLength());
  if (!read_flag(request, "more", call.more) || !read_flag(request, "oneway", call.oneway) ||
      !read_flag(request, "upgrade", call.upgrade)) {
    return fail(kWhat, "more, oneway and upgrade must be true or false");
  }
  if (call.more && call.oneway) return fail(kWhat, "more and oneway exclude each other");

  call.parameters.SetObject();
  const auto parameters = object.FindMember("parameters");
  if (parameters != object.MemberEnd() && !parameters->value.IsNull()) {
    if (!parameters->value.IsObject()) return fail(kWhat, "its parameters are no object");
    call.parameters.CopyFrom(parameters->value, call.parameters.GetAllocator());
  }
  return call;
}

const rapidjson::Value* Parameters::take(const char* name) {
  known_.emplace_back(name);
  const auto found = object_.FindMember(name);
  if (found == object_.MemberEnd() || found->value.IsNull()) return nullptr;
  return &found->value;
}

void Parameters::reject(const char* name) {
  if (!bad_) bad_ = name;
}

std::optional<int64_t> Parameters::integer(const char* name, int64_t low, int64_t high) {
  const rapidjson::Value* value = take(name);
  if (value == nullptr) return std::nullopt;
  if (value->IsInt64() && value->GetInt64() >= low && value->GetInt64() <= high) return value->GetInt64();
  reject(name);
  return std::nullopt;
}

std::optional<double> Parameters::number(const char* name, double low, double high) {
  const rapidjson::Value* value = take(name);
  if (value == nullptr) return std::nullopt;
  if (value->IsNumber() && value->GetDouble() >= low && value->GetDouble() <= high) return value->GetDouble();
  reject(name);
  return std::nullopt;
}

std::optional<bool> Parameters::flag(const char* name) {
  const rapidjson::Value* value = take(name);
  if (value == nullptr) return std::nullopt;
  if (value->IsBool()) return value->GetBool();
  reject(name);
  return std::nullopt;
}

std::optional<std::string> Parameters::text(const char* name) {
  const rapidjson::Value* value = take(name);
  if (value == nullptr) return std::nullopt;
  if (value->IsString()) return std::string(value->GetString(), value->GetStringLength());
  reject(name);
  return std::nullopt;
}

std::optional<std::vector<std::string>> Parameters::texts(const char* name) {
  const rapidjson::Value* value = take(name);
  if (value == nullptr) return std::nullopt;
  std::vector<std::string> all;
  for (const auto* item = value->IsArray() ? value->Begin() : nullptr; item != nullptr && item != value->End();
       ++item) {
    if (item->IsString()) all.emplace_back(item->GetString(), item->GetStringLength());
  }
  if (value->IsArray() && all.size() == value->Size()) return all;
  reject(name);
  return std::nullopt;
}

std::optional<std::string> Parameters::bad() const {
  if (bad_) return bad_;
  for (const auto& member : object_.GetObject()) {
    std::string name(member.name.GetString(), member.name.GetStringLength());
    if (std::ranges::find(known_, name) == known_.end()) return name;
  }
  return std::nullopt;
}

void append_error(std::string& output, std::string_view error, std::string_view parameter, std::string_view value) {
  append_error(output, error, [&](JsonWriter& json) {
    json.begin_object();
    json.member(parameter, value);
    json.end_object();
  });
}

}  // namespace stackwatch
