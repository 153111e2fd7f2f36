// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/unwind_index.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "symbols/worker/elf_object.h"
#include "symbols/worker/file_reader.h"

namespace stackwatch {
namespace {

// Pointer encodings (LSB, "DWARF Exception Header Encoding"): the low four bits are the format, the rest the base.
constexpr uint8_t kAbsolute = 0x00;
constexpr uint8_t kUdata2 = 0x02;
constexpr uint8_t kUdata4 = 0x03;
constexpr uint8_t kUdata8 = 0x04;
constexpr uint8_t kSdata2 = 0x0a;
constexpr uint8_t kSdata4 = 0x0b;
constexpr uint8_t kSdata8 = 0x0c;
constexpr uint8_t kDataRelativeSdata4 = 0x3b;

/// CIEs are 20 to 30 bytes; augmentations that need more than this are nothing that compilers write.
constexpr size_t kMaxCieBytes = 128;
/// Compilers write one CIE per object file and linkers merge equal ones; past this they are read again each time.
constexpr size_t kMaxKnownCies = 256;

struct HeaderHead {
  uint8_t version = 0;
  uint8_t frame_encoding = 0;
  uint8_t count_encoding = 0;
  uint8_t table_encoding = 0;
};

/// Bytes of a pointer in this format; 0 for those of variable length and unknown ones.
size_t pointer_bytes(uint8_t encoding, bool wide) {
  switch (encoding & 0x0fU) {
    case kAbsolute:
      return wide ? 8 : 4;
    case kUdata2:
    case kSdata2:
      return 2;
    case kUdata4:
    case kSdata4:
      return 4;
    case kUdata8:
    case kSdata8:
      return 8;
    default:
      return 0;
  }
}

struct Cursor {
  std::span<const uint8_t> rest;
  bool ok = true;

  uint8_t byte() {
    if (rest.empty()) ok = false;
    if (!ok) return 0;
    const uint8_t value = rest.front();
    rest = rest.subspan(1);
    return value;
  }
  void skip(size_t bytes) {
    if (bytes > rest.size()) ok = false;
    if (ok) rest = rest.subspan(bytes);
  }
  void skip_leb() {
    while ((byte() & 0x80U) != 0) {
    }
  }
};

size_t read_vaddr(int file, std::span<const LoadedSegment> segments, uint64_t vaddr, void* to, size_t size) {
  for (const LoadedSegment& segment : segments) {
    if (vaddr < segment.vaddr || vaddr - segment.vaddr >= segment.bytes) continue;
    const uint64_t inside = vaddr - segment.vaddr;
    return read_at(file, segment.offset + inside, to, std::min<uint64_t>(size, segment.bytes - inside));
  }
  return 0;
}

/// The encoding of code pointers from a CIE's augmentation ("zR", "zPLR", …); kAbsolute where it names none.
std::optional<uint8_t> parse_cie(std::span<const uint8_t> cie, bool wide) {
  Cursor cursor{cie};
  const uint8_t version = cursor.byte();
  const auto* const augmentation = reinterpret_cast<const char*>(cursor.rest.data());
  const size_t length = ::strnlen(augmentation, cursor.rest.size());
  cursor.skip(length + 1);
  if (!cursor.ok || (version != 1 && version != 3)) return std::nullopt;
  if (length == 0) return kAbsolute;
  if (augmentation[0] != 'z') return std::nullopt;
  cursor.skip_leb();                                  // code alignment
  cursor.skip_leb();                                  // data alignment
  version == 1 ? cursor.skip(1) : cursor.skip_leb();  // return address register
  cursor.skip_leb();                                  // length of the augmentation data
  for (size_t i = 1; i < length && cursor.ok; ++i) {
    if (augmentation[i] == 'R') {
      const uint8_t encoding = cursor.byte();
      return cursor.ok ? std::optional(encoding) : std::nullopt;
    }
    if (augmentation[i] == 'P') {
      const size_t bytes = pointer_bytes(cursor.byte(), wide);
      if (bytes == 0) return std::nullopt;
      cursor.skip(bytes);
    } else if (augmentation[i] == 'L') {
      cursor.skip(1);
    }
  }
  return cursor.ok ? std::optional(kAbsolute) : std::nullopt;
}

}  // namespace

void UnwindIndex::clear() {
  entries_ = std::vector<Entry>();  // "= {}" would keep the memory
  encodings_.clear();
}

void UnwindIndex::load(int file, const LoadedSegment& header, bool wide_addresses) {
  clear();
  base_ = header.vaddr;
  wide_ = wide_addresses;
  HeaderHead head;
  if (read_at(file, header.offset, &head, sizeof head) != sizeof head || head.version != 1) return;
  const size_t frame_bytes = pointer_bytes(head.frame_encoding, wide_);
  if (frame_bytes == 0 || head.count_encoding != kUdata4 || head.table_encoding != kDataRelativeSdata4) return;
  uint32_t count = 0;
  const uint64_t count_at = sizeof head + frame_bytes;
  const uint64_t table_at = count_at + sizeof count;
  if (read_at(file, header.offset + count_at, &count, sizeof count) != sizeof count || header.bytes < table_at) return;
  const uint64_t present = std::min<uint64_t>(count, (header.bytes - table_at) / sizeof(Entry));
  if (present > kMaxUnwindEntries) return;
  entries_.resize(present);
  const size_t got = read_at(file, header.offset + table_at, entries_.data(), present * sizeof(Entry));
  entries_.resize(got / sizeof(Entry));
}

std::optional<UnwindRange> UnwindIndex::find(int file, std::span<const LoadedSegment> segments, uint64_t vaddr) {
  const int64_t relative = static_cast<int64_t>(vaddr - base_);
  const auto after = std::upper_bound(entries_.begin(), entries_.end(), relative,
                                      [](int64_t value, const Entry& entry) { return value < entry.start; });
  if (after == entries_.begin()) return std::nullopt;
  const Entry& entry = *std::prev(after);
  const auto address = [this](int32_t offset) { return base_ + static_cast<uint64_t>(int64_t{offset}); };
  const auto range = read_entry(file, segments, address(entry.start), address(entry.fde));
  if (!range || vaddr < range->start || vaddr >= range->end) return std::nullopt;
  return range;
}

std::optional<UnwindRange> UnwindIndex::read_entry(int file, std::span<const LoadedSegment> segments, uint64_t start,
                                                   uint64_t fde) {
  struct {
    uint32_t length = 0;
    uint32_t cie_distance = 0;
    uint8_t pointers[16] = {};
  } raw;
  static_assert(sizeof raw == 24);
  const size_t got = read_vaddr(file, segments, fde, &raw, sizeof raw);
  // 0xffffffff announces the 64-bit format, which nobody writes into .eh_frame; distance 0 is a CIE.
  if (got < 8 || raw.length == 0 || raw.length == 0xffffffff || raw.cie_distance == 0) return std::nullopt;
  const auto encoding = pointer_encoding(file, segments, fde + 4 - raw.cie_distance);
  if (!encoding) return std::nullopt;
  const size_t bytes = pointer_bytes(*encoding, wide_);
  if (bytes == 0 || got < 8 + 2 * bytes) return std::nullopt;
  uint64_t size = 0;  // lengths are unsigned whatever the encoding of pointers
  std::memcpy(&size, raw.pointers + bytes, bytes);
  if (size == 0 || start + size < start) return std::nullopt;
  return UnwindRange{start, start + size};
}

std::optional<uint8_t> UnwindIndex::pointer_encoding(int file, std::span<const LoadedSegment> segments, uint64_t cie) {
  if (const auto known = encodings_.find(cie); known != encodings_.end()) return known->second;
  std::array<uint8_t, kMaxCieBytes> raw{};
  const size_t got = read_vaddr(file, segments, cie, raw.data(), raw.size());
  uint32_t length = 0;
  uint32_t id = 0;
  if (got < 2 * sizeof(uint32_t)) return std::nullopt;
  std::memcpy(&length, raw.data(), sizeof length);
  std::memcpy(&id, raw.data() + sizeof length, sizeof id);
  if (id != 0 || length < sizeof id) return std::nullopt;
  const size_t body = std::min<size_t>(got - 8, length - sizeof id);
  const auto encoding = parse_cie(std::span(raw).subspan(8, body), wide_);
  if (encoding && encodings_.size() < kMaxKnownCies) encodings_.emplace(cie, *encoding);
  return encoding;
}

}  // namespace stackwatch
