// SPDX-License-Identifier: Apache-2.0
#include "daemon/cgroup_cpu.h"

#include <charconv>
#include <filesystem>

#include "daemon/procfs.h"

namespace stackwatch {
namespace {

constexpr size_t kMaxFile = 4096;
constexpr double kTaskWeight = 1024;  // nice 0
constexpr double kDefaultV2Weight = 100;
constexpr unsigned kMaxCpus = 1U << 16;  // more than any kernel can be built for

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  return text;
}

template <class Number>
std::optional<Number> number(std::string_view text) {
  text = trimmed(text);
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// The value of a line "KEY VALUE".
uint64_t value_of(std::string_view lines, std::string_view key) {
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(line.size() + 1, lines.size()));
    if (line.starts_with(key) && line.size() > key.size() && line[key.size()] == ' ') {
      return number<uint64_t>(line.substr(key.size() + 1)).value_or(0);
    }
  }
  return 0;
}

std::optional<double> cores_of(std::optional<int64_t> quota, std::optional<int64_t> period) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

/// "50000 100000", "max 100000".
std::optional<double> quota_of_max(std::string_view text) {
  const size_t space = text.find(' ');
  if (space == text.npos) return std::nullopt;
  return cores_of(number<int64_t>(text.substr(0, space)), number<int64_t>(text.substr(space + 1)));
}

}  // namespace

std::optional<unsigned> count_cpu_list(std::string_view list) {
  list = trimmed(list);
  unsigned sum = 0;
  while (!list.empty()) {
    const std::string_view range = list.substr(0, list.find(','));
    list.remove_prefix(std::min(range.size() + 1, list.size()));
    const size_t dash = range.find('-');
    const auto first = number<unsigned>(range.substr(0, dash));
    const auto last = dash == range.npos ? first : number<unsigned>(range.substr(dash + 1));
    if (!first || !last || *last < *first || *last >= kMaxCpus) return std::nullopt;
    sum += *last - *first + 1;
  }
  if (sum == 0) return std::nullopt;
  return sum;
}

CgroupFiles::CgroupFiles(std::string root) {
  if (root.empty()) return;
  const auto is_there = [](const std::string& path) {
    std::error_code ignored;
    return std::filesystem::exists(path, ignored);
  };
  const auto controllers = read_small_file(root + "/cgroup.controllers", kMaxFile);
  if (controllers && controllers->find("cpu") != std::string::npos) {
    v2_ = true;
    cpu_ = cpuset_ = root;
    return;
  }
  for (const char* name : {"/cpu", "/cpu,cpuacct"}) {
    if (cpu_.empty() && is_there(root + name + "/cpu.shares")) cpu_ = root + name;
  }
  if (is_there(root + "/cpuset")) cpuset_ = root + "/cpuset";
}

std::optional<std::string> CgroupFiles::file(const std::string& base, const std::string& path,
                                             std::string_view name) const {
  // A process in a namespace may tell a path that leads out of it.
  if (base.empty() || path.find("..") != std::string::npos) return std::nullopt;
  return read_small_file(base + path + "/" + std::string(name), kMaxFile);
}

CgroupCpu CgroupFiles::read(const std::string& path) const {
  CgroupCpu out;
  if (!exist()) return out;
  if (v2_) {
    if (const auto text = file(cpu_, path, "cpu.weight")) {
      out.weight = number<double>(*text).value_or(kDefaultV2Weight) / kDefaultV2Weight * kTaskWeight;
    }
    if (const auto text = file(cpu_, path, "cpu.max")) out.quota_cores = quota_of_max(*text);
  } else {
    if (const auto text = file(cpu_, path, "cpu.shares")) out.weight = number<double>(*text).value_or(kTaskWeight);
    if (const auto quota = file(cpu_, path, "cpu.cfs_quota_us")) {
      const auto period = file(cpu_, path, "cpu.cfs_period_us");
      out.quota_cores = cores_of(number<int64_t>(*quota), number<int64_t>(period.value_or("")));
    }
  }
  if (out.quota_cores) {  // without a quota nothing is throttled, and the file need not be opened
    const std::string stat = file(cpu_, path, "cpu.stat").value_or("");
    out.periods = value_of(stat, "nr_periods");
    out.throttled_periods = value_of(stat, "nr_throttled");
  }
  const char* cpus = v2_ ? "cpuset.cpus.effective" : "cpuset.effective_cpus";
  if (const auto text = file(cpuset_, path, cpus)) out.allowed_cpus = count_cpu_list(*text);
  return out;
}

}  // namespace stackwatch
