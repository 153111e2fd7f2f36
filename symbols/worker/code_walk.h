// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "symbols/worker/elf_object.h"

namespace stackwatch {

/// Instructions looked at for one function. The slow paths of allocators come to some 2,000.
inline constexpr size_t kMaxWalkedInstructions = 20'000;
/// Instructions of a function's beginning among which one is looked for that the kernel can emulate.
inline constexpr size_t kMaxEntryInstructions = 16;
/// Places where one function may end: each costs a probe.
inline constexpr size_t kMaxWalkedReturns = 64;

/// Where code goes: to an address of the object, or to a function of another.
struct CodeTarget {
  uint64_t address = 0;
  std::string import;  ///< not empty: a function of another object
};

/// Reads x86-64 instructions of an object, from its file. Nothing else is understood: is_supported().
class CodeWalker {
 public:
  /// `imports`: what each slot that the dynamic linker fills leads to, by the address of the slot.
  CodeWalker(ElfObject& object, const std::map<uint64_t, CodeTarget>& imports, bool is_x86_64);
  ~CodeWalker();
  CodeWalker(const CodeWalker&) = delete;
  CodeWalker& operator=(const CodeWalker&) = delete;

  [[nodiscard]] bool is_supported() const;
  /// Where the straight way from `address` first calls or jumps to; nothing where it returns before.
  [[nodiscard]] std::optional<CodeTarget> first_transfer(uint64_t address);

  struct Ends {
    std::vector<uint64_t> returns;  ///< addresses of the `ret` instructions that it may end at, in order
    std::vector<uint64_t> targets;  ///< what its jumps lead to, as far as it can be told
    bool complete = true;           ///< false: there may be others (jump tables, other objects, limits)
  };
  /// Where a function that was called returns from: in its own code, or in that of a function that it jumps to at its
  /// end.
  [[nodiscard]] Ends ends(uint64_t address);

  struct Entry {
    uint64_t address = 0;
    bool stepped = false;  ///< the kernel has to step through the instruction there when there is a probe at it
  };
  /// Where to probe the entry of a function: the first instruction on its straight way that the kernel can emulate,
  /// if until there the arguments and the stack pointer are as they were and nothing jumps in between; else its first.
  [[nodiscard]] Entry entry(uint64_t address);

 private:
  struct Decoder;
  struct Block;

  bool walk_block(uint64_t address, Ends& ends, std::vector<uint64_t>& open, size_t& budget);
  void follow(const std::optional<CodeTarget>& target, Ends& ends, std::vector<uint64_t>& open);
  [[nodiscard]] CodeTarget through_stub(uint64_t address);

  ElfObject& object_;
  const std::map<uint64_t, CodeTarget>& imports_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace stackwatch
