// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/jit_symbols.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include "symbols/protocol.h"
#include "symbols/worker/file_reader.h"

namespace stackwatch {
namespace {

constexpr uint32_t kDumpMagic = 0x4a695444;  // "JiTD"
constexpr uint32_t kCodeLoad = 0;
constexpr uint32_t kCodeMove = 1;
/// Longer lines are not what any runtime writes; they are skipped to their end.
constexpr size_t kMaxLineBytes = 16 * 1024;
/// Read at a time of a map, so that a huge one needs no memory of its size.
constexpr size_t kChunkBytes = 256 * 1024;
/// Code of one function. A snapshot of a whole runtime (V8's builtins) is some MB.
constexpr uint64_t kMaxFunctionBytes = 256ULL << 20;
/// A node of the map beside the name.
constexpr size_t kNodeBytes = 96;

struct DumpHeader {
  uint32_t magic = 0;
  uint32_t version = 0;
  uint32_t total_size = 0;
  uint32_t elf_machine = 0;
};
struct RecordHeader {
  uint32_t id = 0;
  uint32_t total_size = 0;
  uint64_t timestamp = 0;
};
static_assert(sizeof(RecordHeader) == 16);
struct CodeLoad {
  uint32_t pid = 0;
  uint32_t tid = 0;
  uint64_t vma = 0;
  uint64_t code_address = 0;
  uint64_t code_bytes = 0;
  uint64_t code_index = 0;
};
static_assert(sizeof(CodeLoad) == 40);
struct CodeMove {
  uint32_t pid = 0;
  uint32_t tid = 0;
  uint64_t vma = 0;
  uint64_t old_address = 0;
  uint64_t new_address = 0;
  uint64_t code_bytes = 0;
  uint64_t code_index = 0;
};
static_assert(sizeof(CodeMove) == 48);

bool take_hex(std::string_view& text, uint64_t& value) {
  if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  if (text.empty() || text.front() != ' ') return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

void JitSymbols::refresh() {
  struct stat info {};
  if (::fstat(file_.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < 0) return;
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size < position_) unload();
  if (position_ == 0) {
    DumpHeader header;
    is_dump_ = read_at(file_.get(), 0, &header, sizeof header) == sizeof header && header.magic == kDumpMagic;
    if (is_dump_) position_ = header.total_size;
    broken_ = is_dump_ && header.total_size < sizeof header;
  }
  is_dump_ ? read_records(size) : read_lines(size);
}

void JitSymbols::read_lines(uint64_t end) {
  std::string chunk;
  while (position_ < end) {
    chunk.resize(std::min<uint64_t>(kChunkBytes, end - position_));
    chunk.resize(read_at(file_.get(), position_, chunk.data(), chunk.size()));
    if (chunk.empty()) return;
    const size_t last = chunk.rfind('\n');
    if (last == std::string::npos) {
      if (chunk.size() <= kMaxLineBytes) return;  // a line that is being written
      position_ += chunk.size();                  // its end will make no sense either
      continue;
    }
    position_ += last + 1;
    for (std::string_view text = std::string_view(chunk).substr(0, last + 1); !text.empty();) {
      const size_t length = text.find('\n');
      add_line(text.substr(0, length));
      text.remove_prefix(length + 1);
    }
  }
}

void JitSymbols::add_line(std::string_view line) {
  uint64_t start = 0;
  uint64_t bytes = 0;
  if (line.size() > kMaxLineBytes || !take_hex(line, start) || !take_hex(line, bytes)) return;
  add(start, bytes, line);
}

void JitSymbols::read_records(uint64_t end) {
  while (!broken_ && end >= sizeof(RecordHeader) && position_ <= end - sizeof(RecordHeader)) {
    RecordHeader record;
    if (read_at(file_.get(), position_, &record, sizeof record) != sizeof record) return;
    if (record.total_size < sizeof record) {
      broken_ = true;
      return;
    }
    if (record.total_size > end - position_) return;  // it is being written
    if (!add_record(position_ + sizeof record, record.id, record.total_size - uint32_t{sizeof record})) return;
    position_ += record.total_size;
  }
}

bool JitSymbols::add_record(uint64_t at, uint32_t id, uint32_t bytes) {
  if (id == kCodeLoad && bytes > sizeof(CodeLoad)) {
    CodeLoad load;
    if (read_at(file_.get(), at, &load, sizeof load) != sizeof load) return false;
    std::string name(std::min<size_t>(bytes - sizeof load, kMaxLineBytes), '\0');
    name.resize(read_at(file_.get(), at + sizeof load, name.data(), name.size()));
    name.resize(std::min(name.find('\0'), name.size()));
    add(load.code_address, load.code_bytes, name);
  } else if (id == kCodeMove && bytes >= sizeof(CodeMove)) {
    CodeMove move;
    if (read_at(file_.get(), at, &move, sizeof move) != sizeof move) return false;
    const auto old = functions_.find(move.old_address);
    if (old == functions_.end()) return true;
    const std::string name = old->second.name;
    name_bytes_ -= name.size();
    functions_.erase(old);
    add(move.new_address, move.code_bytes, name);
  }
  return true;
}

void JitSymbols::add(uint64_t start, uint64_t bytes, std::string_view name) {
  name = name.substr(0, protocol::kMaxNameBytes);
  if (bytes == 0 || bytes > kMaxFunctionBytes || start + bytes < start || name.empty()) return;
  auto at = functions_.lower_bound(start);
  if (at != functions_.begin() && std::prev(at)->second.end > start) --at;
  while (at != functions_.end() && at->first < start + bytes) {
    name_bytes_ -= at->second.name.size();
    at = functions_.erase(at);
  }
  if (functions_.size() >= kMaxJitFunctions || name_bytes_ + name.size() > kMaxJitNameBytes) return;
  name_bytes_ += name.size();
  functions_.emplace_hint(at, start, Function{start + bytes, std::string(name)});
}

std::optional<JitSymbols::Found> JitSymbols::find(uint64_t address) const {
  const auto after = functions_.upper_bound(address);
  if (after == functions_.begin() || address >= std::prev(after)->second.end) return std::nullopt;
  return Found{std::prev(after)->first, std::prev(after)->second.name};
}

size_t JitSymbols::table_bytes() const { return functions_.size() * kNodeBytes + name_bytes_; }

void JitSymbols::unload() {
  functions_.clear();
  name_bytes_ = 0;
  position_ = 0;
  broken_ = false;
}

}  // namespace stackwatch
