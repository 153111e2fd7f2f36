// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace stackwatch {

/// An integer that cannot be mixed up with another kind of integer.
template <class Tag, class Value>
struct StrongId {
  Value value{};
  constexpr auto operator<=>(const StrongId&) const = default;
};

/// A function: index into a FunctionTable. The same in every process.
using FunctionId = StrongId<struct FunctionTag, uint32_t>;
/// A stack of functions: index into the StackTable of one process.
using StackId = StrongId<struct StackTag, uint32_t>;
/// A stack of addresses as the kernel side counts it: 64-bit hash of all frames.
using StackHash = StrongId<struct StackHashTag, uint64_t>;
/// Which program image a process runs: differs before and after each exec.
using ExecId = StrongId<struct ExecTag, uint64_t>;

}  // namespace stackwatch

template <class Tag, class Value>
struct std::hash<stackwatch::StrongId<Tag, Value>> {
  size_t operator()(const stackwatch::StrongId<Tag, Value>& id) const noexcept { return std::hash<Value>{}(id.value); }
};
