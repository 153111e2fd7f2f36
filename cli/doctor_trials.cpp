// SPDX-License-Identifier: Apache-2.0
// What the doctor does to see whether it works.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>

#include "bpf/bpf_census.h"
#include "bpf/uprobe_check.h"
#include "cli/client.h"
#include "cli/doctor.h"
#include "cli/json_view.h"
#include "cli/probe_table.h"
#include "core/unique_fd.h"
#include "daemon/proc_census.h"
#include "daemon/procfs.h"

namespace stackwatch {
namespace {

/// Probes are put into an allocator in 3 s by a machine that is emulated (QEMU without acceleration), and later where
/// it has much else to do.
constexpr double kProbePatience_s = 30;

/// Ourselves, as the engines know a process.
Result<ProcessKey> own_key(Census& census) {
  auto samples = census.take();
  if (!samples) return Failure(samples.error());
  const auto self = std::ranges::find(*samples, static_cast<int32_t>(getpid()), &ProcessSample::pid_in_ns);
  if (self == samples->end()) return fail("find ourselves in the census", "we are not in it");
  return self->key;
}

/// Uses the CPU, waits, touches memory and allocates: something for every probe.
void do_something(const Clock& clock) {
  constexpr size_t kBytes = size_t{4} << 20U;
  static_cast<void>(std::unique_ptr<char[]>(new char[kBytes / 64]));
  void* fresh = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (fresh != MAP_FAILED) {
    madvise(fresh, kBytes, MADV_NOHUGEPAGE);  // a fault for each page, not two for all
    for (size_t i = 0; i < kBytes; i += 4096) static_cast<volatile char*>(fresh)[i] = 1;
    munmap(fresh, kBytes);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const uint64_t end_ns = clock.monotonic_ns() + 100'000'000;
  while (clock.monotonic_ns() < end_ns) continue;
}

int64_t counted(const StackDelta& delta) {
  int64_t total = 0;
  for (const StackDelta::Value& value : delta.values) total += std::max<int64_t>(0, value.value);
  return total;
}

/// What each of the probes counts while something is done; again, at most so often, where one counted nothing: where
/// the machine is busy, a moment may pass in which we did not get to do it.
Result<std::vector<int64_t>> count_something(ProbeEngine& engine, std::span<const std::unique_ptr<Probe>> probes,
                                             const Clock& clock) {
  constexpr int kMostTries = 5;
  std::vector<int64_t> totals(probes.size(), 0);
  for (int i = 0; i < kMostTries && std::ranges::count(totals, 0) > 0; ++i) {
    // What is allocated must be held while it is counted.
    const std::unique_ptr<std::string> held = std::make_unique<std::string>(size_t{1} << 20U, 'x');
    do_something(clock);
    if (auto collected = engine.collect(); !collected) return Failure(collected.error());
    for (size_t p = 0; p < probes.size(); ++p) {
      auto delta = probes[p]->read();
      if (!delta) return Failure(delta.error());
      totals[p] += counted(*delta);
    }
  }
  return totals;
}

/// Attaches probes of these kinds to ourselves and looks whether each counts.
Result<std::string> try_probe(const std::vector<ProbeKind>& kinds, const ProcessKey& self, const Clock& clock) {
  auto engines = make_engines(kinds, clock);
  if (!engines) return Failure(engines.error());
  ProbeEngine& engine = *engines->front();
  ProbeOptions options;
  options.frequency_hz = 499;
  options.pid_in_ns = getpid();
  std::vector<std::unique_ptr<Probe>> probes;
  for (const ProbeKind kind : kinds) {
    probes.push_back(engine.make_probe(kind));
    if (auto attached = probes.back()->attach(self, options); !attached) return Failure(attached.error());
  }
  engine.wait_until_counting(kProbePatience_s);
  const auto totals = count_something(engine, probes, clock);
  if (!totals) return Failure(totals.error());
  std::string found;
  for (size_t i = 0; i < probes.size(); ++i) {
    const std::string kind(to_string(kinds[i]));
    // Nobody need have waited for a CPU.
    if ((*totals)[i] == 0 && kinds[i] != ProbeKind::kRunQueue) {
      const std::string note = engine.note(self);
      return fail(ErrorKind::kUnsupported, kind, note.empty() ? "attached, but it counts nothing" : note,
                  "try again when the machine has less to do; if it stays, please report it with this output");
    }
    found += fmt::format("{}{} {} {}", found.empty() ? "" : ", ", kind, (*totals)[i], units_of(kinds[i]).json);
  }
  return found;
}

Result<std::string> try_uprobe_way(const Clock& clock) {
  const auto trial = check_uprobes(clock);
  if (!trial) return Failure(trial.error());
  const std::string cost = fmt::format("{:.0f} ns a call", trial->entry_ns);
  if (trial->multi) return "in one link, " + cost;
  return fail(ErrorKind::kUnsupported, "no uprobe_multi here (it came with Linux 6.6)",
              "one perf event for each place instead, slower to attach; " + cost,
              "needs CAP_SYS_ADMIN in the service: see perf-uprobes.conf among the package's examples");
}

/// Does `attempt` with processes of other users (root: of anybody), until it succeeds with one: some may be guarded by
/// more than privileges, and kernel threads have nothing to read. The first refusal where none does.
Result<std::string> with_others(const Procfs& procfs, const char* hint,
                                const std::function<Result<std::string>(const std::string& directory)>& attempt) {
  constexpr size_t kMostProcesses = 4096;
  std::vector<int32_t> pids = procfs.pids();
  pids.resize(std::min(pids.size(), kMostProcesses));
  std::optional<Error> refusal;
  for (const int32_t pid : pids) {
    const std::string directory = procfs.root() + "/" + std::to_string(pid);
    struct stat status {};
    if (pid == getpid() || ::stat(directory.c_str(), &status) != 0) continue;
    if (geteuid() != 0 && status.st_uid == geteuid()) continue;
    auto outcome = attempt(directory);
    if (outcome) return outcome;
    if (!refusal || outcome.error().kind == ErrorKind::kUnsupported) refusal = outcome.error();
  }
  if (!refusal) return std::string("nobody else is there to try it with");
  refusal->hint = hint;
  return Failure(std::move(*refusal));
}

Result<std::string> read_first(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 64> bytes{};
  const ssize_t got = fd ? read(fd.get(), bytes.data(), bytes.size()) : -1;
  if (got < 0) return fail_errno("read " + path, errno);
  if (got == 0) return fail("read " + path, "it is empty");  // a kernel thread's
  return path + " can be read";
}

Result<std::string> try_executables(const Procfs& procfs) {
  return with_others(procfs, "it needs CAP_SYS_PTRACE; without it other users' processes have no names of functions",
                     [](const std::string& directory) -> Result<std::string> {
                       std::array<char, 4096> target{};
                       const std::string exe = directory + "/exe";
                       if (readlink(exe.c_str(), target.data(), target.size()) < 0) {
                         return fail_errno("read " + exe, errno);
                       }
                       return read_first(directory + "/maps");
                     });
}

Result<std::string> try_private_files(const Procfs& procfs) {
  return with_others(procfs, "it needs CAP_DAC_READ_SEARCH, and CAP_SYS_PTRACE for files in /proc",
                     [](const std::string& directory) { return read_first(directory + "/io"); });
}

Result<std::string> try_deleted_objects(const Procfs& procfs) {
  struct Close {
    void operator()(DIR* directory) const { closedir(directory); }
  };
  return with_others(
      procfs,
      "it needs CAP_CHECKPOINT_RESTORE, besides the two above; without it deleted and replaced files have no names",
      [](const std::string& process) -> Result<std::string> {
        const std::string path = process + "/map_files";
        const std::unique_ptr<DIR, Close> directory(opendir(path.c_str()));
        if (!directory) return fail_errno("open " + path, errno);
        while (const dirent* entry = readdir(directory.get())) {
          if (entry->d_name[0] == '.') continue;
          const std::string file = path + "/" + entry->d_name;
          const UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
          if (!fd) return fail_errno("open " + file, errno);
          return file + " can be opened";
        }
        return fail("open " + path, "it is empty");
      });
}

Result<std::string> try_kernel_symbols() {
  const auto head = read_small_file("/proc/kallsyms", 4096);
  constexpr const char* kHint =
      "it needs CAP_SYSLOG and kernel.kptr_restrict below 2; kernel frames are addresses else";
  if (!head || head->empty()) return fail("read /proc/kallsyms", "nothing is in it", kHint);
  if (head->find_first_not_of("0 \n") != std::string::npos && !head->starts_with("0000000000000000 ")) {
    return std::string("addresses are told");
  }
  // The first symbols of some kernels are at address 0: per-CPU variables.
  const auto more = read_small_file("/proc/kallsyms", size_t{16} << 20U);
  const bool hidden = !more || more->find("\nffff") == std::string::npos;
  if (hidden) return fail("read /proc/kallsyms", "addresses are hidden", kHint);
  return std::string("addresses are told");
}

Result<std::string> try_daemon(const std::string& socket, const Clock& clock) {
  auto client = Client::connect(socket, clock);
  if (!client) return Failure(client.error());
  const auto reply = client->call("GetStatus");
  if (!reply) return Failure(reply.error());
  return "answers on " + socket;
}

/// The probes, or why they were not tried.
void try_probes(std::vector<Trial>& trials, const Result<ProcessKey>& self, const Clock& clock) {
  struct Row {
    const char* id;
    std::vector<ProbeKind> kinds;
  };
  const std::array<Row, 4> rows = {{{"on_cpu", {ProbeKind::kOnCpu}},
                                    {"off_cpu", {ProbeKind::kBlocked, ProbeKind::kRunQueue}},
                                    {"page_fault", {ProbeKind::kPageFault}},
                                    {"memory", {ProbeKind::kMemory}}}};
  for (const Row& row : rows) {
    Result<std::string> outcome =
        self ? try_probe(row.kinds, *self, clock) : Result<std::string>(Failure(self.error()));
    trials.push_back({row.id, CheckState::kMissing, std::move(outcome)});
  }
}

}  // namespace

std::vector<Trial> try_everything(const Clock& clock, const std::string& socket) {
  std::vector<Trial> trials;
  const Procfs procfs;
  auto iterator = make_bpf_census([](int32_t) { return std::string(); });
  std::unique_ptr<Census> census = iterator ? std::move(*iterator) : make_proc_census(procfs);
  const Result<ProcessKey> self = own_key(*census);
  if (census->method() == "task iterator") {
    trials.push_back({"census", CheckState::kLimited,
                      self ? Result<std::string>("by the task iterator") : Result<std::string>(Failure(self.error()))});
  } else {
    Error error = iterator.error();
    error.why += "; processes are read from /proc, at some forty times the cost";
    trials.push_back({"census", CheckState::kLimited, Failure(std::move(error))});
  }
  try_probes(trials, self, clock);
  trials.push_back({"uprobe_multi", CheckState::kLimited, try_uprobe_way(clock)});
  trials.push_back({"executables", CheckState::kLimited, try_executables(procfs)});
  trials.push_back({"private_files", CheckState::kLimited, try_private_files(procfs)});
  trials.push_back({"deleted_objects", CheckState::kLimited, try_deleted_objects(procfs)});
  trials.push_back({"kernel_symbols", CheckState::kLimited, try_kernel_symbols()});
  trials.push_back({"daemon", CheckState::kLimited, try_daemon(socket, clock)});
  return trials;
}

}  // namespace stackwatch
