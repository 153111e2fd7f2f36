// SPDX-License-Identifier: Apache-2.0
#include "config/rule.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "config/glob.h"
#include "config/text.h"

namespace stackwatch {
namespace {

constexpr int32_t kMaxPid = 1 << 22;  // PID_MAX_LIMIT of 64-bit kernels
constexpr size_t kMaxIdBytes = 64;    // a word in a table that people read
constexpr std::array<std::string_view, 5> kUnitTypes = {".service", ".scope", ".socket", ".mount", ".swap"};

struct Matcher {
  std::string_view key;
  std::optional<std::string> WatchRule::*member;
};

constexpr std::array<Matcher, 6> kMatchers{{{"name", &WatchRule::name},
                                            {"exe", &WatchRule::exe},
                                            {"cmdline", &WatchRule::cmdline},
                                            {"cgroup", &WatchRule::cgroup},
                                            {"unit", &WatchRule::unit},
                                            {"user", &WatchRule::user}}};

Failure bad(std::string_view key, std::string why, std::string hint = {}) {
  return fail(ErrorKind::kUsage, std::string(key), std::move(why), std::move(hint));
}

// A path that can only begin with a slash is compared with something that begins otherwise: it would never match.
Result<void> check_path(std::string_view key, const std::optional<std::string>& pattern) {
  if (!pattern || std::string_view("/*?[").find(pattern->front()) != std::string_view::npos) return {};
  return bad(key, in_quotes(*pattern) + " never matches, because it is compared with the whole path",
             "write " + in_quotes("*/" + *pattern));
}

// Which types of unit have processes of their own; slices do where somebody moved processes into one by hand.
Result<void> complete_unit(std::string& unit) {
  const size_t dot = unit.rfind('.');
  if (dot == std::string::npos && is_plain(unit)) {
    unit += ".service";
    return {};
  }
  const std::string_view type = dot == std::string::npos ? std::string_view{} : std::string_view(unit).substr(dot);
  if (!is_plain(type) || type.empty() || type == ".slice") return {};
  if (std::find(kUnitTypes.begin(), kUnitTypes.end(), type) != kUnitTypes.end()) return {};
  return bad("unit", in_quotes(unit) + " is no unit that has processes", suggestion(type, kUnitTypes));
}

Result<void> check_id(std::string_view id) {
  constexpr std::string_view kAllowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (!id.empty() && id.size() <= kMaxIdBytes && id.find_first_not_of(kAllowed) == std::string_view::npos) return {};
  return bad("id", in_quotes(id) + " is no id", "1 to 64 of a-z, A-Z, 0-9, \".\", \"_\", \"-\"");
}

// FNV-1a: the same in every version of the daemon, which std::hash does not promise.
std::string content_id(const WatchRule& rule) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  const auto add = [&hash](std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    hash = (hash ^ 0xffU) * 0x100000001b3ULL;  // no UTF-8 text contains it: keeps the parts apart
  };
  for (const Matcher& matcher : kMatchers) {
    if (const auto& pattern = rule.*matcher.member) {
      add(matcher.key);
      add(*pattern);
    }
  }
  if (rule.pid) {
    add("pid");
    add(std::to_string(*rule.pid));
  }
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string id = "rule-";
  for (unsigned shift = 64; shift > 16; shift -= 4) id += kHex[(hash >> (shift - 4U)) & 0xfU];
  return id;
}

Result<void> check_matchers(const WatchRule& rule) {
  bool any = rule.pid.has_value();
  for (const Matcher& matcher : kMatchers) {
    const auto& pattern = rule.*matcher.member;
    if (!pattern) continue;
    any = true;
    if (const auto problem = check_glob(*pattern)) {
      return bad(matcher.key, in_quotes(*pattern) + " is no pattern: " + *problem);
    }
  }
  if (!any)
    return bad("", "a watch rule without a matcher", "give it one of name, exe, cmdline, cgroup, unit, user, pid");
  if (rule.pid && (*rule.pid < 1 || *rule.pid > kMaxPid)) {
    return bad("pid", std::to_string(*rule.pid) + " is out of range", "from 1 to " + std::to_string(kMaxPid));
  }
  if (Result<void> exe = check_path("exe", rule.exe); !exe) return exe;
  return check_path("cgroup", rule.cgroup);
}

}  // namespace

Result<WatchRule> checked_rule(WatchRule rule) {
  if (const Result<void> matchers = check_matchers(rule); !matchers) return Failure(matchers.error());
  if (rule.unit) {
    if (const Result<void> unit = complete_unit(*rule.unit); !unit) return Failure(unit.error());
  }
  if (!(rule.frequency_hz >= kMinFrequencyHz && rule.frequency_hz <= kMaxFrequencyHz)) {
    return bad("frequency", format_number(rule.frequency_hz) + " is out of range",
               "from " + format_number(kMinFrequencyHz) + " to " + format_number(kMaxFrequencyHz) + " Hz");
  }
  if (rule.probes.empty()) return bad("probes", "the list is empty", "the default is [\"on_cpu\"]");
  std::sort(rule.probes.begin(), rule.probes.end());
  rule.probes.erase(std::unique(rule.probes.begin(), rule.probes.end()), rule.probes.end());
  if (rule.mmap && std::ranges::find(rule.probes, ProbeKind::kMemory) == rule.probes.end()) {
    return bad("mmap", "it is a part of the probe memory, which is not among the probes", "probes = [\"memory\"]");
  }
  if (rule.id.empty()) rule.id = content_id(rule);
  if (const Result<void> id = check_id(rule.id); !id) return Failure(id.error());
  return rule;
}

std::string describe(const WatchRule& rule) {
  std::string text;
  const auto add = [&text](std::string_view key, const std::string& value) {
    if (!text.empty()) text += ' ';
    text += std::string(key) + "=" + printable(value);
  };
  for (const Matcher& matcher : kMatchers) {
    if (const auto& pattern = rule.*matcher.member) add(matcher.key, *pattern);
  }
  if (rule.pid) add("pid", std::to_string(*rule.pid));
  return text;
}

}  // namespace stackwatch
