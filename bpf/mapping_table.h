// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only.

#include <cstddef>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

namespace stackwatch {

/// What one process has mapped itself since it was attached, by address: which stack each byte belongs to. Told of in
/// the order in which addresses change hands. Addresses and lengths are in bytes, whole pages.
class MappingTable {
 public:
  /// Linux lets a process have 65,530 mappings (vm.max_map_count); one set higher is lost above this. 5 MB.
  static constexpr size_t kMaxMappings = 65536;
  /// Calls in flight, one per thread.
  static constexpr size_t kMaxCalls = 16384;

  /// Now there, in place of whatever was known to be. Tells how many bytes were known there. False where there is no
  /// room for it: it is not counted.
  [[nodiscard]] bool enter(uint64_t address, uint64_t length, uint64_t hash, uint64_t& replaced);
  /// A thread asked for it to go. It still counts, but others may enter there. Tells how many bytes of it were known.
  uint64_t leave(uint64_t thread, uint64_t address, uint64_t length);
  /// What the thread asked for was done, …
  void left(uint64_t thread);
  /// … or was refused: all is as it was.
  void stays(uint64_t thread);
  /// Another program: nothing is mapped any more.
  void clear();

  /// Bytes by stack; also stacks that have none any more.
  [[nodiscard]] const std::unordered_map<uint64_t, int64_t>& bytes() const { return bytes_; }
  /// Forgets stacks without bytes.
  void drop_empty();

 private:
  struct Mapping {
    uint64_t end = 0;
    uint64_t hash = 0;
  };
  struct Piece {
    uint64_t address = 0;
    Mapping mapping;
  };
  [[nodiscard]] std::vector<Piece> cut(uint64_t address, uint64_t end);

  std::map<uint64_t, Mapping> mappings_;  // by address; they do not overlap
  std::unordered_map<uint64_t, std::vector<Piece>> leaving_;
  std::unordered_map<uint64_t, int64_t> bytes_;
};

}  // namespace stackwatch
