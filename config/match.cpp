// SPDX-License-Identifier: Apache-2.0
#include "config/match.h"

#include <algorithm>
#include <array>
#include <string>

#include "config/glob.h"

namespace stackwatch {
namespace {

constexpr size_t kCommBytes = 15;  // TASK_COMM_LEN without the NUL

bool fits(const std::optional<std::string>& pattern, const std::optional<std::string>& text) {
  return text && match_glob(*pattern, *text) == GlobMatch::kYes;
}

std::string_view base_name(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

std::string_view take_word(std::string_view& words) {
  const size_t end = words.find('\0');
  const std::string_view word = words.substr(0, end);
  words = end == std::string_view::npos ? std::string_view{} : words.substr(end + 1);
  return word;
}

// The names that comm may be the first 15 bytes of.
std::array<std::string_view, 3> long_names(ProcessFacts& facts) {
  std::array<std::string_view, 3> names;
  if (facts.exe()) names[0] = base_name(*facts.exe());
  if (facts.cmdline_words()) {
    std::string_view words = *facts.cmdline_words();
    names[1] = base_name(take_word(words));
    names[2] = base_name(take_word(words));
  }
  return names;
}

bool name_holds(const std::string& pattern, ProcessFacts& facts) {
  const std::string& comm = facts.known().comm;
  const GlobMatch match = match_glob(pattern, comm);
  if (match != GlobMatch::kPrefix || comm.size() != kCommBytes) return match == GlobMatch::kYes;
  bool known = false;
  for (const std::string_view name : long_names(facts)) {
    if (!name.starts_with(comm)) continue;  // the process gave itself another name
    known = true;
    if (match_glob(pattern, name) == GlobMatch::kYes) return true;
  }
  return !known && !facts.exe() && !facts.cmdline() && is_plain(pattern);
}

bool user_holds(const std::string& pattern, ProcessFacts& facts) {
  if (pattern.find_first_not_of("0123456789") == std::string::npos) {
    return pattern == std::to_string(facts.known().uid);
  }
  return fits(pattern, facts.user_name());
}

bool is_unit(std::string_view component, std::string_view type) {
  constexpr size_t kMaxUnitName = 255;  // UNIT_NAME_MAX of systemd
  return component.size() > type.size() && component.size() <= kMaxUnitName && component.ends_with(type) &&
         !component.starts_with('.');
}

bool holds_processes(std::string_view component) {
  return is_unit(component, ".service") || is_unit(component, ".scope") || is_unit(component, ".socket") ||
         is_unit(component, ".mount") || is_unit(component, ".swap");
}

}  // namespace

std::string_view ProcessFacts::unit() {
  if (!unit_.fetched) unit_ = {true, unit_of_cgroup(known_.cgroup)};
  return unit_.value;
}

const std::optional<std::string>& ProcessFacts::exe() {
  if (!exe_.fetched) {
    exe_ = {true, provider_->exe()};
    constexpr std::string_view kDeleted = " (deleted)";
    if (exe_.value && exe_.value->ends_with(kDeleted)) exe_.value->resize(exe_.value->size() - kDeleted.size());
  }
  return exe_.value;
}

const std::optional<std::string>& ProcessFacts::cmdline_words() {
  if (!cmdline_words_.fetched) {
    cmdline_words_ = {true, provider_->cmdline()};
    std::optional<std::string>& words = cmdline_words_.value;
    if (words) {
      if (words->size() > kMaxCmdlineBytes) words->resize(kMaxCmdlineBytes);
      while (words->ends_with('\0')) words->pop_back();
      if (words->empty()) words.reset();  // what /proc shows for kernel threads and zombies
    }
  }
  return cmdline_words_.value;
}

const std::optional<std::string>& ProcessFacts::cmdline() {
  if (!cmdline_.fetched) {
    cmdline_ = {true, cmdline_words()};
    if (cmdline_.value) std::replace(cmdline_.value->begin(), cmdline_.value->end(), '\0', ' ');
  }
  return cmdline_.value;
}

const std::optional<std::string>& ProcessFacts::user_name() {
  if (!user_name_.fetched) user_name_ = {true, provider_->user_name(known_.uid)};
  return user_name_.value;
}

bool matches(const WatchRule& rule, ProcessFacts& facts) {
  const ProcessFacts::Known& known = facts.known();
  if (rule.pid && *rule.pid != known.pid) return false;
  if (rule.cgroup && match_glob(*rule.cgroup, known.cgroup) != GlobMatch::kYes) return false;
  if (rule.unit && match_glob(*rule.unit, facts.unit()) != GlobMatch::kYes) return false;
  // A first look at comm, before anything is read: most rules fail most processes here.
  if (rule.name && match_glob(*rule.name, known.comm) == GlobMatch::kNo) return false;
  if (rule.user && !user_holds(*rule.user, facts)) return false;
  if (rule.name && !name_holds(*rule.name, facts)) return false;
  if (rule.exe && !fits(rule.exe, facts.exe())) return false;
  if (rule.cmdline && !fits(rule.cmdline, facts.cmdline())) return false;
  return rule.pid || rule.cgroup || rule.unit || rule.name || rule.user || rule.exe || rule.cmdline;
}

std::string_view unit_of_cgroup(std::string_view cgroup) {
  constexpr std::string_view kDeleted = " (deleted)";
  if (cgroup.ends_with(kDeleted)) cgroup.remove_suffix(kDeleted.size());
  std::string_view slice;
  while (!cgroup.empty()) {
    const size_t slash = cgroup.rfind('/');
    std::string_view component = slash == std::string_view::npos ? cgroup : cgroup.substr(slash + 1);
    cgroup = slash == std::string_view::npos ? std::string_view{} : cgroup.substr(0, slash);
    // systemd puts an underscore before names that the kernel's own files in the directory could have.
    if (component.starts_with('_')) component.remove_prefix(1);
    if (holds_processes(component)) return component;
    if (slice.empty() && is_unit(component, ".slice")) slice = component;
  }
  return slice;
}

}  // namespace stackwatch
