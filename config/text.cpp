// SPDX-License-Identifier: Apache-2.0
#include "config/text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

namespace stackwatch {
namespace {

constexpr size_t kMaxQuotedBytes = 80;    // half a terminal line
constexpr size_t kMaxComparedBytes = 64;  // longer than any key: nothing is near such a name

// Optimal string alignment distance, byte by byte.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before_last(b.size() + 1);
  std::vector<size_t> last(b.size() + 1);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      result += {'\\', 'x', kHex[byte >> 4U], kHex[byte & 0xfU]};
    } else {
      result += c;
    }
  }
  return result;
}

std::string in_quotes(std::string_view text) {
  if (text.size() <= kMaxQuotedBytes) return '"' + printable(text) + '"';
  size_t end = kMaxQuotedBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0U) == 0x80U) --end;  // not in the middle of UTF-8
  return '"' + printable(text.substr(0, end)) + "…\"";
}

std::string suggestion(std::string_view name, std::span<const std::string_view> known) {
  std::string_view nearest;
  size_t nearest_distance = std::max<size_t>(1, name.size() / 3) + 1;
  if (name.size() <= kMaxComparedBytes) {
    for (const std::string_view candidate : known) {
      const size_t away = distance(name, candidate);
      if (away >= nearest_distance) continue;
      nearest = candidate;
      nearest_distance = away;
    }
  }
  if (!nearest.empty()) return "did you mean " + in_quotes(nearest) + "?";
  std::string all;
  for (const std::string_view candidate : known) {
    all += all.empty() ? "known: " : ", ";
    all += candidate;
  }
  return all;
}

std::string format_number(double value) {
  // to_chars alone prefers 1e+06 to 1000000. 64: fixed notation of this range has at most 16 + 1 + 24 characters.
  std::array<char, 64> buffer{};
  const bool plain = value == 0 || (std::abs(value) >= 1e-4 && std::abs(value) < 1e15);
  char* const last = buffer.data() + buffer.size();
  const auto [end, error] = plain ? std::to_chars(buffer.data(), last, value, std::chars_format::fixed)
                                  : std::to_chars(buffer.data(), last, value);
  return error == std::errc{} ? std::string(buffer.data(), end) : std::string("?");
}

}  // namespace stackwatch
