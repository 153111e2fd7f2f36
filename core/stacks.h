// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/ids.h"

namespace stackwatch {

/// One frame of a named stack. The object tells apart functions of the same name in different files.
struct Function {
  std::string object;  ///< build-id in hex, else path; "kernel" for the kernel; empty where unknown
  std::string name;    ///< demangled; kernel functions end in _[k]; `[file]` where the object has no symbol for it
  bool operator==(const Function&) const = default;
};

/// Every function that was ever named, once. Ids are dense, start at 0 and stay valid for the table's life.
/// Bounded: past `capacity` functions every new one is kOther, and `overflowed()` counts them.
class FunctionTable {
 public:
  /// 2^18 functions of about 100 bytes are 26 MB: what a machine full of large C++ programs has, and a roof for a JIT
  /// that makes up names without end.
  static constexpr uint32_t kDefaultCapacity = 1U << 18;
  static constexpr FunctionId kOther{0};    ///< "[other]"
  static constexpr FunctionId kUnnamed{1};  ///< "[unnamed]"

  explicit FunctionTable(uint32_t capacity = kDefaultCapacity);

  FunctionId intern(std::string_view object, std::string_view name);
  [[nodiscard]] const Function& operator[](FunctionId id) const { return functions_[id.value]; }
  [[nodiscard]] uint32_t size() const { return static_cast<uint32_t>(functions_.size()); }
  [[nodiscard]] uint64_t overflowed() const { return overflowed_; }

 private:
  uint32_t capacity_;
  uint64_t overflowed_ = 0;
  std::deque<Function> functions_;  // a deque: the keys of index_ point into it
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(const std::pair<std::string_view, std::string_view>& key) const;
  };
  std::unordered_map<std::pair<std::string_view, std::string_view>, FunctionId, KeyHash> index_;
};

/// The stacks of one process: sequences of functions, root first, each once. Ids are dense, start at 0 (kOther) and
/// stay valid for the table's life. Bounded: past `capacity` every new stack is kOther.
class StackTable {
 public:
  static constexpr uint32_t kDefaultCapacity = 4096;
  static constexpr StackId kOther{0};  ///< one frame, FunctionTable::kOther

  explicit StackTable(uint32_t capacity = kDefaultCapacity);

  /// kOther where the table is full and does not have the stack.
  StackId intern(std::span<const FunctionId> root_first);
  /// Root first.
  [[nodiscard]] std::span<const FunctionId> operator[](StackId id) const;
  /// The functions of a stack, each once even where it recurses, in order of first appearance from the root.
  [[nodiscard]] std::span<const FunctionId> unique_functions(StackId id) const;
  [[nodiscard]] uint32_t size() const { return static_cast<uint32_t>(entries_.size()); }
  [[nodiscard]] uint32_t capacity() const { return capacity_; }

 private:
  struct Entry {
    std::vector<FunctionId> frames;
    std::vector<FunctionId> unique;
  };
  uint32_t capacity_;
  std::deque<Entry> entries_;
  std::unordered_multimap<uint64_t, StackId> index_;
};

}  // namespace stackwatch
