// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "config/config.h"

namespace stackwatch {

/// What of a command line is compared; the rest is cut off. Java's are some 10 KiB long, the kernel allows megabytes.
inline constexpr size_t kMaxCmdlineBytes = 32 * 1024;

/// Facts that cost a read of /proc or of the user database. Each is asked for at most once per ProcessFacts, and only
/// where a rule depends on it. Nothing where it cannot be read (kernel thread, no privilege, the process is gone).
class FactsProvider {
 public:
  virtual ~FactsProvider() = default;
  [[nodiscard]] virtual std::optional<std::string> exe() = 0;      ///< target of /proc/PID/exe
  [[nodiscard]] virtual std::optional<std::string> cmdline() = 0;  ///< /proc/PID/cmdline as it is: NUL-terminated words
  [[nodiscard]] virtual std::optional<std::string> user_name(uint32_t uid) = 0;
};

/// What rules see of one process: what the census has already told, and the rest when it is needed. Short-lived: one
/// for a process at one moment, used with all rules. Copies its strings; `provider` must outlive it.
class ProcessFacts {
 public:
  struct Known {
    int32_t pid = 0;  ///< as the daemon's own pid namespace shows it
    std::string comm;
    std::string cgroup;  ///< path below the hierarchy's root
    uint32_t uid = 0;
  };
  ProcessFacts(Known known, FactsProvider& provider) : known_(std::move(known)), provider_(&provider) {}
  ProcessFacts(const ProcessFacts&) = delete;  // unit_ points into known_
  ProcessFacts& operator=(const ProcessFacts&) = delete;

  [[nodiscard]] const Known& known() const { return known_; }
  [[nodiscard]] std::string_view unit();
  [[nodiscard]] const std::optional<std::string>& exe();            ///< without the " (deleted)" that the kernel adds
  [[nodiscard]] const std::optional<std::string>& cmdline_words();  ///< NUL-separated, no NUL at the end
  [[nodiscard]] const std::optional<std::string>& cmdline();        ///< the words joined by spaces
  [[nodiscard]] const std::optional<std::string>& user_name();

 private:
  template <class T>
  struct Lazy {
    bool fetched = false;
    T value{};
  };
  Known known_;
  FactsProvider* provider_;
  Lazy<std::string_view> unit_;
  Lazy<std::optional<std::string>> exe_;
  Lazy<std::optional<std::string>> cmdline_words_;
  Lazy<std::optional<std::string>> cmdline_;
  Lazy<std::optional<std::string>> user_name_;
};

/// Whether all matchers of the rule hold.
/// - pid     equals.
/// - name    matches comm. The kernel cuts comm at 15 bytes: a comm of that length also stands for the file name of exe
///           or of one of the first two words of the command line (the second: a script), where that begins with comm.
///           If none can be read, a pattern without wildcards holds if it begins with comm.
/// - cgroup  matches the whole path; a path below it is another one: "/system.slice/*" has all services.
/// - unit    matches unit_of_cgroup().
/// - user    matches the user's name; a number is the effective uid.
/// - exe     matches the whole path of the executable, which for a script is its interpreter.
/// - cmdline matches the whole command line, words joined by single spaces.
/// Cheap facts are compared first, so that what costs a read is fetched only if all else holds.
[[nodiscard]] bool matches(const WatchRule& rule, ProcessFacts& facts);

/// The systemd unit in a cgroup path: its innermost component that names a service, scope, socket, mount or swap unit,
/// else its innermost slice; empty where there is none. As systemd writes it, `\x2d` included. Points into `cgroup`.
/// So a service of a user manager is that service, not user@1000.service, and one in a container is that of the
/// container's systemd where the container has one.
[[nodiscard]] std::string_view unit_of_cgroup(std::string_view cgroup);

}  // namespace stackwatch
