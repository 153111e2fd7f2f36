// SPDX-License-Identifier: Apache-2.0
#include "core/stacks.h"

#include <algorithm>

namespace stackwatch {
namespace {

uint64_t hash_frames(std::span<const FunctionId> frames) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const FunctionId frame : frames) {
    hash = (hash ^ frame.value) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 29U;
  }
  return hash;
}

}  // namespace

size_t FunctionTable::KeyHash::operator()(const std::pair<std::string_view, std::string_view>& key) const {
  const std::hash<std::string_view> hash;
  return hash(key.first) * 31 + hash(key.second);
}

FunctionTable::FunctionTable(uint32_t capacity) : capacity_(std::max<uint32_t>(capacity, 2)) {
  intern("", "[other]");
  intern("", "[unnamed]");
}

FunctionId FunctionTable::intern(std::string_view object, std::string_view name) {
  if (const auto found = index_.find({object, name}); found != index_.end()) return found->second;
  if (functions_.size() >= capacity_) {
    ++overflowed_;
    return kOther;
  }
  const FunctionId id{static_cast<uint32_t>(functions_.size())};
  const Function& stored = functions_.emplace_back(Function{std::string(object), std::string(name)});
  index_.emplace(std::pair<std::string_view, std::string_view>{stored.object, stored.name}, id);
  return id;
}

StackTable::StackTable(uint32_t capacity) : capacity_(std::max<uint32_t>(capacity, 1)) {
  const FunctionId other = FunctionTable::kOther;
  intern(std::span(&other, 1));
}

StackId StackTable::intern(std::span<const FunctionId> root_first) {
  const uint64_t hash = hash_frames(root_first);
  const auto [first, last] = index_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    if (std::ranges::equal(entries_[it->second.value].frames, root_first)) return it->second;
  }
  if (entries_.size() >= capacity_) return kOther;

  Entry entry{{root_first.begin(), root_first.end()}, {}};
  for (const FunctionId frame : root_first) {
    if (std::ranges::find(entry.unique, frame) == entry.unique.end()) entry.unique.push_back(frame);
  }
  const StackId id{static_cast<uint32_t>(entries_.size())};
  entries_.push_back(std::move(entry));
  index_.emplace(hash, id);
  return id;
}

std::span<const FunctionId> StackTable::operator[](StackId id) const { return entries_[id.value].frames; }

std::span<const FunctionId> StackTable::unique_functions(StackId id) const { return entries_[id.value].unique; }

}  // namespace stackwatch
