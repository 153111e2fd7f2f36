// SPDX-License-Identifier: Apache-2.0
// What the doctor reads: settings of the kernel and of this process.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>

#include "cli/doctor.h"
#include "daemon/procfs.h"

namespace stackwatch {
namespace {

/// None of the files that are read here is longer.
constexpr size_t kFileBytes = 8192;

struct Capability {
  unsigned bit;
  std::string_view name;
  std::string_view buys;
  bool needed;  ///< without it no probe works
};
// As in docs/security.md. Numbers from linux/capability.h, which an older machine's headers may lack.
constexpr std::array<Capability, 6> kCapabilities = {{
    {39, "CAP_BPF", "loading programs", true},
    {38, "CAP_PERFMON", "sampling, reading kernel memory in programs", true},
    {19, "CAP_SYS_PTRACE", "executables and mappings of other users' processes", false},
    {2, "CAP_DAC_READ_SEARCH", "object files that only their owner may read", false},
    {40, "CAP_CHECKPOINT_RESTORE", "object files that were deleted or replaced", false},
    {34, "CAP_SYSLOG", "names of kernel functions", false},
}};
constexpr unsigned kSysAdmin = 21;  // stands for the first two and for CAP_CHECKPOINT_RESTORE, says capabilities(7)
constexpr unsigned kSysResource = 24;

class Files {
 public:
  explicit Files(const std::string& root) : root_(root) {}
  /// Without the line end; nothing where it cannot be read.
  [[nodiscard]] std::optional<std::string> line(const std::string& path) const {
    auto text = read_small_file(root_ + path, kFileBytes);
    if (text) text->resize(std::min(text->size(), text->find('\n')));
    return text;
  }
  [[nodiscard]] std::string text(const std::string& path) const {
    return read_small_file(root_ + path, kFileBytes).value_or("");
  }
  [[nodiscard]] bool readable(const std::string& path) const { return is_allowed(path, R_OK); }
  [[nodiscard]] bool exists(const std::string& path) const { return is_allowed(path, F_OK); }
  [[nodiscard]] std::string link(const std::string& path) const {
    std::array<char, 256> target{};
    const ssize_t length = readlink((root_ + path).c_str(), target.data(), target.size());
    return length > 0 ? std::string(target.data(), static_cast<size_t>(length)) : "";
  }

 private:
  /// With the rights that we have: access() asks with those of the user, without ambient capabilities.
  [[nodiscard]] bool is_allowed(const std::string& path, int mode) const {
    return faccessat(AT_FDCWD, (root_ + path).c_str(), mode, AT_EACCESS) == 0;
  }

  std::string root_;
};

/// The value behind "NAME:" of /proc/self/status.
std::string status_field(const std::string& status, const std::string& name) {
  const size_t at = ("\n" + status).find("\n" + name + ":\t");
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 2;
  return status.substr(begin, status.find('\n', begin) - begin);
}

uint64_t effective_capabilities(const Files& files) {
  const std::string text = status_field(files.text("/proc/self/status"), "CapEff");
  uint64_t bits = 0;
  std::from_chars(text.data(), text.data() + text.size(), bits, 16);
  return bits;
}

bool has(uint64_t bits, unsigned bit) { return (bits >> bit & 1U) != 0; }

Check check_btf(const Files& files) {
  constexpr const char* kPath = "/sys/kernel/btf/vmlinux";
  if (files.readable(kPath)) return {"btf", CheckState::kOk, std::string(kPath) + " is there", ""};
  return {"btf", CheckState::kMissing, std::string(kPath) + " is missing",
          "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as those of distributions from 5.10 on are"};
}

Check check_lockdown(const Files& files) {
  const auto modes = files.line("/sys/kernel/security/lockdown");
  if (!modes) return {"lockdown", CheckState::kOk, "not in use, or not to be seen", ""};
  if (modes->find("[confidentiality]") == std::string::npos) {
    return {"lockdown", CheckState::kOk, *modes + ": BPF may read what it needs", ""};
  }
  return {"lockdown", CheckState::kMissing, *modes + ": programs may not read kernel memory",
          "boot with lockdown=integrity; it cannot be lowered while the machine runs"};
}

Check check_capabilities(uint64_t bits) {
  Check check{"capabilities", CheckState::kOk, "all that stackwatchd uses", ""};
  std::string lacking;
  for (const Capability& capability : kCapabilities) {
    if (has(bits, capability.bit)) continue;
    const bool covered = has(bits, kSysAdmin) && (capability.needed || capability.bit == 40);
    if (covered) continue;
    lacking += (lacking.empty() ? "" : "; ") + std::string(capability.name) + " (" + std::string(capability.buys) + ")";
    if (capability.needed) check.state = CheckState::kMissing;
    if (check.state == CheckState::kOk) check.state = CheckState::kLimited;
  }
  if (lacking.empty()) return check;
  check.found = "lacking: " + lacking;
  check.advice = "run as root, or see AmbientCapabilities= in stackwatch.service";
  return check;
}

Check check_paranoid(const Files& files, uint64_t bits) {
  const auto level = files.line("/proc/sys/kernel/perf_event_paranoid");
  if (!level) {
    return {"perf_event_paranoid", CheckState::kMissing, "the kernel has no perf events",
            "it needs CONFIG_PERF_EVENTS"};
  }
  if (has(bits, 38) || has(bits, kSysAdmin)) {
    // Whether this kernel is one of those, on_cpu tells.
    const bool patched = !has(bits, kSysAdmin) && std::atoi(level->c_str()) > 2;
    return {"perf_event_paranoid", CheckState::kOk,
            *level + ", which does not hold for CAP_PERFMON" + (patched ? " but on kernels of Debian and Ubuntu" : ""),
            ""};
  }
  return {"perf_event_paranoid", CheckState::kMissing, *level + ", and CAP_PERFMON is lacking",
          "grant CAP_PERFMON; lowering kernel.perf_event_paranoid does not suffice for BPF"};
}

Check check_memlock(const ProcessFacts& facts, uint64_t bits, bool bpf_works) {
  if (!facts.memlock_bytes) return {"memlock", CheckState::kOk, "unlimited", ""};
  const std::string limit = std::to_string(*facts.memlock_bytes >> 10U) + " KiB";
  if (has(bits, kSysResource)) return {"memlock", CheckState::kOk, limit + ", and may be raised", ""};
  if (bpf_works) {
    return {"memlock", CheckState::kOk, limit + ", which this kernel does not hold against maps of BPF", ""};
  }
  return {"memlock", CheckState::kLimited, limit,
          "before Linux 5.11 maps of BPF are locked memory: LimitMEMLOCK=infinity, or ulimit -l unlimited"};
}

Check check_tracefs(const Files& files) {
  const bool mounted = files.exists("/sys/kernel/tracing/events") || files.exists("/sys/kernel/debug/tracing/events");
  return {"tracefs", CheckState::kOk, mounted ? "mounted; not needed" : "not mounted; not needed", ""};
}

Check check_ptrace_scope(const Files& files) {
  const auto scope = files.line("/proc/sys/kernel/yama/ptrace_scope");
  if (!scope) return {"ptrace_scope", CheckState::kOk, "no Yama here", ""};
  return {"ptrace_scope", CheckState::kOk, *scope + ": forbids stopping processes, which stackwatch never does", ""};
}

Check check_kptr(const Files& files) {
  const auto level = files.line("/proc/sys/kernel/kptr_restrict");
  if (!level || (*level != "2")) return {"kptr_restrict", CheckState::kOk, level.value_or("0"), ""};
  return {"kptr_restrict", CheckState::kLimited, "2: addresses of kernel functions are hidden from everybody",
          "sysctl kernel.kptr_restrict=1 for names in kernel stacks"};
}

// The initial namespaces have fixed numbers (PROC_PID_INIT_INO, PROC_USER_INIT_INO in the kernel).
Check check_namespaces(const Files& files) {
  const bool foreign_user = files.link("/proc/self/ns/user") != "user:[4026531837]";
  const bool foreign_pid = files.link("/proc/self/ns/pid") != "pid:[4026531836]";
  const bool filtered = status_field(files.text("/proc/self/status"), "Seccomp") == "2";
  const std::string filter = filtered ? "; a seccomp filter holds" : "";
  if (foreign_user) {
    return {"container", CheckState::kMissing,
            "a user namespace of its own: capabilities for BPF do not count" + filter,
            "run it on the host, or in a container without a user namespace"};
  }
  if (foreign_pid) {
    return {"container", CheckState::kLimited,
            "a pid namespace of its own: processes outside are counted, but have no paths and no names" + filter,
            "run it on the host to see all of it (podman, docker: --pid=host)"};
  }
  return {"container", CheckState::kOk, "none: initial pid and user namespace" + filter, ""};
}

Check check_journal(const Files& files) {
  constexpr const char* kPath = "/run/systemd/journal/socket";
  if (files.exists(kPath)) return {"journal", CheckState::kOk, std::string(kPath) + " is there", ""};
  return {"journal", CheckState::kLimited, std::string(kPath) + " is missing: alerts are told to clients alone",
          "run where systemd-journald runs, or make its socket visible in the container"};
}

Check judge(Trial trial) {
  if (trial.outcome) return {std::move(trial.id), CheckState::kOk, std::move(*trial.outcome), ""};
  Error error = std::move(trial.outcome.error());
  std::string advice = std::move(error.hint);
  error.hint.clear();
  return {std::move(trial.id), trial.otherwise, error.message(), std::move(advice)};
}

}  // namespace

DoctorReport examine(const std::string& root, const ProcessFacts& facts, std::vector<Trial> trials) {
  const Files files(root);
  const uint64_t bits = effective_capabilities(files);
  bool bpf_works = false;
  for (const Trial& trial : trials) bpf_works = bpf_works || (trial.id == "on_cpu" && trial.outcome.has_value());
  DoctorReport report;
  report.kernel = files.line("/proc/sys/kernel/osrelease").value_or("(unknown)");
  report.checks = {check_btf(files),
                   check_lockdown(files),
                   check_capabilities(bits),
                   check_paranoid(files, bits),
                   check_memlock(facts, bits, bpf_works),
                   check_tracefs(files),
                   check_ptrace_scope(files),
                   check_kptr(files),
                   check_namespaces(files),
                   check_journal(files)};
  for (Trial& trial : trials) report.checks.push_back(judge(std::move(trial)));
  return report;
}

}  // namespace stackwatch
