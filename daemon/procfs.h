// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stackwatch {

/// Reads what /proc tells about processes. `root` is /proc, or a made-up tree in tests. Pids are those of the pid
/// namespace that the tree belongs to. Whatever cannot be read (gone, not permitted) is nothing.
class Procfs {
 public:
  explicit Procfs(std::string root = "/proc") : root_(std::move(root)) {}

  [[nodiscard]] const std::string& root() const { return root_; }
  [[nodiscard]] std::vector<int32_t> pids() const;
  [[nodiscard]] std::vector<int32_t> threads(int32_t pid) const;
  /// At most `limit` bytes of /proc/PID/NAME.
  [[nodiscard]] std::optional<std::string> read(int32_t pid, std::string_view name, size_t limit = 4096) const;
  [[nodiscard]] std::optional<std::string> exe(int32_t pid) const;
  /// Path of the process's cgroup below its hierarchy's root: see cgroup_path(). Empty where it cannot be read.
  [[nodiscard]] std::string cgroup(int32_t pid) const;

 private:
  std::string root_;
};

/// The one path that says most, of the lines of /proc/PID/cgroup: that of the v2 hierarchy if it is not its root, else
/// that of systemd's own v1 hierarchy, else the cpu controller's, else "/".
[[nodiscard]] std::string cgroup_path(std::string_view lines);

/// At most `limit` bytes of a file; nothing where it cannot be read.
[[nodiscard]] std::optional<std::string> read_small_file(const std::string& path, size_t limit);

}  // namespace stackwatch
