// SPDX-License-Identifier: Apache-2.0
#include "config/glob.h"

#include <algorithm>
#include <string>

namespace stackwatch {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

bool is_systemd_escape(std::string_view pattern, size_t at) {
  return pattern.size() - at >= 4 && pattern[at + 1] == 'x' && is_hex(pattern[at + 2]) && is_hex(pattern[at + 3]);
}

// One element of a pattern compared with one byte.
struct Step {
  bool hit = false;
  size_t next = 0;  // where the next element begins
};

// The byte at `at`, after a backslash the one behind it; moves `at` past it.
unsigned char literal(std::string_view pattern, size_t& at) {
  if (pattern[at] == '\\' && at + 1 < pattern.size() && !is_systemd_escape(pattern, at)) ++at;
  return static_cast<unsigned char>(pattern[at++]);
}

// `open` is the position of a '['. Nowhere where the set has no end.
Step step_set(std::string_view pattern, size_t open, unsigned char byte) {
  size_t at = open + 1;
  const bool negated = at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^');
  if (negated) ++at;
  bool inside = false;
  for (bool first = true; at < pattern.size(); first = false) {
    if (pattern[at] == ']' && !first) return {inside != negated, at + 1};
    const unsigned char low = literal(pattern, at);
    unsigned char high = low;
    if (at + 1 < pattern.size() && pattern[at] == '-' && pattern[at + 1] != ']') {
      ++at;
      high = literal(pattern, at);
    }
    inside = inside || (low <= byte && byte <= high);
  }
  return {false, kNone};
}

Step step_element(std::string_view pattern, size_t at, unsigned char byte) {
  if (pattern[at] == '?') return {true, at + 1};
  if (pattern[at] == '[') {
    const Step set = step_set(pattern, at, byte);
    return set.next == kNone ? Step{byte == '[', at + 1} : set;
  }
  const unsigned char wanted = literal(pattern, at);
  return {wanted == byte, at};
}

std::optional<std::string> check_set(std::string_view pattern, size_t open, size_t& end) {
  end = step_set(pattern, open, 0).next;
  const std::string place = "the [ at character " + std::to_string(open + 1);
  if (end == kNone) return place + " has no closing ]";
  const std::string_view set = pattern.substr(open, end - open);
  if (set.find("[:") != kNone) return place + " has a class like [:digit:], which is not supported: write [0-9]";
  size_t at = open + 1;
  if (pattern[at] == '!' || pattern[at] == '^') ++at;
  while (at < end - 1) {
    const unsigned char low = literal(pattern, at);
    if (at + 1 >= end - 1 || pattern[at] != '-') continue;
    ++at;
    if (literal(pattern, at) < low) return place + " has a range that runs backwards";
  }
  return std::nullopt;
}

}  // namespace

GlobMatch match_glob(std::string_view pattern, std::string_view text) {
  size_t at = 0;
  size_t read = 0;
  size_t after_star = kNone;  // where to go on when what follows the last '*' does not fit here …
  size_t star_read = 0;       // … and up to where that '*' reaches. Earlier ones need no second try.
  while (read < text.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      after_star = ++at;
      star_read = read;
      continue;
    }
    if (at < pattern.size()) {
      const Step step = step_element(pattern, at, static_cast<unsigned char>(text[read]));
      if (step.hit) {
        at = step.next;
        ++read;
        continue;
      }
    }
    if (after_star == kNone) return GlobMatch::kNo;
    at = after_star;
    read = ++star_read;
  }
  const size_t rest = pattern.find_first_not_of('*', at);
  return rest == kNone ? GlobMatch::kYes : GlobMatch::kPrefix;
}

std::optional<std::string> check_glob(std::string_view pattern) {
  if (pattern.empty()) return "it is empty";
  if (pattern.size() > kMaxGlobBytes) return "it is longer than " + std::to_string(kMaxGlobBytes) + " bytes";
  if (pattern.find('\0') != kNone) return "it contains a NUL byte";
  for (size_t at = 0; at < pattern.size();) {
    if (pattern[at] == '[') {
      if (auto problem = check_set(pattern, at, at)) return problem;
    } else if (pattern[at] == '\\' && at + 1 == pattern.size()) {
      return "it ends in a single backslash";
    } else {
      literal(pattern, at);
    }
  }
  return std::nullopt;
}

bool is_plain(std::string_view pattern) { return pattern.find_first_of("*?[\\") == kNone; }

}  // namespace stackwatch
