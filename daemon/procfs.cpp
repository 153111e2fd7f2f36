// SPDX-License-Identifier: Apache-2.0
#include "daemon/procfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <memory>

#include "core/unique_fd.h"

namespace stackwatch {
namespace {

std::vector<int32_t> numbers_in(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(directory.c_str()), closedir);
  std::vector<int32_t> numbers;
  if (!dir) return numbers;
  while (const dirent* entry = readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    int32_t number = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), number);
    if (parsed.ec == std::errc{} && parsed.ptr == name.data() + name.size()) numbers.push_back(number);
  }
  return numbers;
}

}  // namespace

std::optional<std::string> read_small_file(const std::string& path, size_t limit) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return std::nullopt;
  std::string content(limit, '\0');
  size_t length = 0;
  while (length < limit) {
    const ssize_t got = ::read(file.get(), content.data() + length, limit - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  content.resize(length);
  return content;
}

std::vector<int32_t> Procfs::pids() const { return numbers_in(root_); }

std::vector<int32_t> Procfs::threads(int32_t pid) const {
  return numbers_in(root_ + "/" + std::to_string(pid) + "/task");
}

std::optional<std::string> Procfs::read(int32_t pid, std::string_view name, size_t limit) const {
  return read_small_file(root_ + "/" + std::to_string(pid) + "/" + std::string(name), limit);
}

std::optional<std::string> Procfs::exe(int32_t pid) const {
  std::array<char, 4096> target{};
  const std::string link = root_ + "/" + std::to_string(pid) + "/exe";
  const ssize_t length = readlink(link.c_str(), target.data(), target.size());
  if (length <= 0) return std::nullopt;
  return std::string(target.data(), static_cast<size_t>(length));
}

std::string Procfs::cgroup(int32_t pid) const {
  const auto lines = read(pid, "cgroup", 64 * 1024);
  return lines ? cgroup_path(*lines) : std::string();
}

std::string cgroup_path(std::string_view lines) {
  std::string_view v2 = "/";
  std::string_view systemd = "/";
  std::string_view cpu = "/";
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    // "ID:CONTROLLERS:PATH"; the path may hold colons.
    const size_t first = line.find(':');
    const size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos || second + 1 >= line.size()) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view path = line.substr(second + 1);
    if (controllers.empty()) v2 = path;
    if (controllers == "name=systemd") systemd = path;
    if (controllers == "cpu" || controllers == "cpu,cpuacct") cpu = path;
  }
  if (v2 != "/") return std::string(v2);
  if (systemd != "/") return std::string(systemd);
  return std::string(cpu);
}

}  // namespace stackwatch
