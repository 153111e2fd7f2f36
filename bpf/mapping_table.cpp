// SPDX-License-Identifier: Apache-2.0
#include "bpf/mapping_table.h"

#include <algorithm>
#include <limits>

namespace stackwatch {
namespace {

uint64_t end_of(uint64_t address, uint64_t length) {
  return address + std::min(length, std::numeric_limits<uint64_t>::max() - address);
}

}  // namespace

// Takes a range out, with those parts of mappings that reach into it.
std::vector<MappingTable::Piece> MappingTable::cut(uint64_t address, uint64_t end) {
  std::vector<Piece> pieces;
  auto at = mappings_.lower_bound(address);
  if (at != mappings_.begin() && std::prev(at)->second.end > address) --at;
  while (at != mappings_.end() && at->first < end) {
    const uint64_t begun = at->first;
    const Mapping mapping = at->second;
    pieces.push_back({std::max(begun, address), {std::min(mapping.end, end), mapping.hash}});
    at = mappings_.erase(at);
    if (begun < address) mappings_[begun] = {address, mapping.hash};
    if (mapping.end > end) mappings_[end] = mapping;
  }
  return pieces;
}

bool MappingTable::enter(uint64_t address, uint64_t length, uint64_t hash, uint64_t& replaced) {
  const uint64_t end = end_of(address, length);
  replaced = 0;
  for (const Piece& piece : cut(address, end)) {
    replaced += piece.mapping.end - piece.address;
    bytes_[piece.mapping.hash] -= static_cast<int64_t>(piece.mapping.end - piece.address);
  }
  if (mappings_.size() >= kMaxMappings || end == address) return end == address;
  mappings_[address] = {end, hash};
  bytes_[hash] += static_cast<int64_t>(end - address);
  return true;
}

uint64_t MappingTable::leave(uint64_t thread, uint64_t address, uint64_t length) {
  left(thread);  // of an earlier call nobody told the end
  std::vector<Piece> pieces = cut(address, end_of(address, length));
  uint64_t known = 0;
  for (const Piece& piece : pieces) known += piece.mapping.end - piece.address;
  if (pieces.empty()) return 0;
  leaving_[thread] = std::move(pieces);
  // Nobody is in so many calls: their ends were lost.
  if (leaving_.size() > kMaxCalls) left(leaving_.begin()->first);
  return known;
}

void MappingTable::left(uint64_t thread) {
  const auto found = leaving_.find(thread);
  if (found == leaving_.end()) return;
  for (const Piece& piece : found->second) {
    bytes_[piece.mapping.hash] -= static_cast<int64_t>(piece.mapping.end - piece.address);
  }
  leaving_.erase(found);
}

void MappingTable::stays(uint64_t thread) {
  const auto found = leaving_.find(thread);
  if (found == leaving_.end()) return;
  for (const Piece& piece : found->second) mappings_[piece.address] = piece.mapping;
  leaving_.erase(found);
}

void MappingTable::clear() {
  mappings_.clear();
  leaving_.clear();
  for (auto& [hash, bytes] : bytes_) bytes = 0;
}

void MappingTable::drop_empty() {
  std::erase_if(bytes_, [](const auto& entry) { return entry.second == 0; });
}

}  // namespace stackwatch
