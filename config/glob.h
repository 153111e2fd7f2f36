// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace stackwatch {

/// Longer patterns are refused. Matching takes at most pattern times text steps: 1 KiB against the longest command line
/// that is looked at (kMaxCmdlineBytes) is some tens of milliseconds for a pattern made to be slow.
inline constexpr size_t kMaxGlobBytes = 1024;

enum class GlobMatch : uint8_t {
  kNo,      ///< neither this text nor one that begins with it matches
  kPrefix,  ///< a longer text that begins with this one would match
  kYes,
};

/// Compares bytes, whatever the locale, because names of processes are no text in any encoding (fnmatch() fails on
/// those that are not). `*` is any run of bytes, `/` too; `?` is one byte; `[a-z]`, `[!a-z]` and `[^a-z]` are sets;
/// `\` takes the next byte literally, except that `\x2d` and the like stand for themselves: systemd writes unit names
/// so. Takes pattern times text steps at most and no memory. A pattern that check_glob() refuses matches something
/// unspecified.
[[nodiscard]] GlobMatch match_glob(std::string_view pattern, std::string_view text);

/// Why this is no pattern, in words for an error message; nothing where it is one.
[[nodiscard]] std::optional<std::string> check_glob(std::string_view pattern);

/// Whether the pattern is one text literally: no `*`, `?`, `[` and no `\`.
[[nodiscard]] bool is_plain(std::string_view pattern);

}  // namespace stackwatch
