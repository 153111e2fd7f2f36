// SPDX-License-Identifier: Apache-2.0
#include "symbols/maps.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace stackwatch {
namespace {

/// Takes fields off the front of a line.
struct Fields {
  std::string_view rest;

  template <class T>
  bool number(T& value, int base) {
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value, base);
    if (error != std::errc{}) return false;
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    return true;
  }
  bool mark(char expected) {
    if (rest.empty() || rest.front() != expected) return false;
    rest.remove_prefix(1);
    return true;
  }
};

/// `00400000-0040b000 r-xp 00002000 fe:01 1234      /path`
std::optional<MapsEntry> parse_line(std::string_view line) {
  MapsEntry entry;
  Fields fields{line};
  if (!fields.number(entry.start, 16) || !fields.mark('-') || !fields.number(entry.end, 16) || !fields.mark(' ') ||
      fields.rest.size() < 5) {
    return std::nullopt;
  }
  entry.writable = fields.rest[1] == 'w';
  const bool executable = fields.rest[2] == 'x';
  fields.rest.remove_prefix(4);
  if (!executable || !fields.mark(' ') || !fields.number(entry.file_offset, 16) || !fields.mark(' ') ||
      !fields.number(entry.device_major, 16) || !fields.mark(':') || !fields.number(entry.device_minor, 16) ||
      !fields.mark(' ') || !fields.number(entry.inode, 10) || entry.end <= entry.start ||
      entry.file_offset + (entry.end - entry.start) < entry.file_offset) {
    return std::nullopt;
  }
  const size_t path = fields.rest.find_first_not_of(' ');
  if (path == 0) return std::nullopt;
  if (path != std::string_view::npos) entry.path = fields.rest.substr(path);
  return entry;
}

}  // namespace

std::vector<MapsEntry> parse_maps(std::string_view text) {
  std::vector<MapsEntry> entries;
  uint64_t end = 0;
  while (!text.empty() && entries.size() < kMaxMapsEntries) {
    const size_t line = std::min(text.find('\n'), text.size());
    auto entry = parse_line(text.substr(0, line));
    text.remove_prefix(std::min(line + 1, text.size()));
    if (!entry || entry->start < end) continue;
    end = entry->end;
    entries.push_back(std::move(*entry));
  }
  return entries;
}

bool MapsEntry::may_be_jit() const {
  return path.empty() || path.starts_with("[anon") || path.starts_with("/memfd:") || path.starts_with("//anon") ||
         path.starts_with("/dev/zero") || path.starts_with("/anon_hugepage") || path == "[heap]";
}

std::string_view object_basename(std::string_view path) {
  static constexpr std::string_view kDeleted = " (deleted)";
  if (path.ends_with(kDeleted)) path.remove_suffix(kDeleted.size());
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

}  // namespace stackwatch
