// SPDX-License-Identifier: Apache-2.0
#include "bpf/bpf_census.h"

#include <bpf/bpf.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <unordered_map>
#include <vector>

#include "bpf/abi.h"
#include "bpf/bpf_support.h"
#include "census.skel.h"
#include "core/census_fold.h"
#include "core/unique_fd.h"

namespace stackwatch {
namespace {

struct SkeletonDeleter {
  void operator()(census_bpf* skeleton) const { census_bpf__destroy(skeleton); }
};

class BpfCensus final : public Census {
 public:
  explicit BpfCensus(CgroupReader read_cgroup) : read_cgroup_(std::move(read_cgroup)) {}

  Result<void> load() {
    const LibbpfMessages messages;
    skeleton_.reset(census_bpf__open_and_load());
    if (!skeleton_) return fail_bpf("load the census program", errno, messages);
    link_.reset(bpf_program__attach_iter(skeleton_->progs.take_census, nullptr));
    if (!link_) return fail_bpf("attach the census program", errno, messages);
    return {};
  }

  Result<std::vector<ProcessSample>> take() override {
    const UniqueFd iterator(bpf_iter_create(bpf_link__fd(link_.get())));
    if (!iterator) return fail_errno("start a census", errno);
    samples_.clear();
    threads_.clear();
    waits_.clear();
    cgroup_tokens_.clear();
    samples_.reserve(last_size_ + last_size_ / 8);
    for (;;) {
      // The kernel fills at most 32 kB at a time and ends reads between records.
      const ssize_t length = read(iterator.get(), buffer_.data(), buffer_.size());
      if (length < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (length < 0) return fail_errno("take a census", errno);
      if (length == 0) break;
      if (auto parsed = parse(static_cast<size_t>(length)); !parsed) return Failure(parsed.error());
    }
    fold_threads();
    assign_cgroups();
    memory_.correct(samples_, waits_);
    last_size_ = samples_.size();
    return std::move(samples_);
  }

  [[nodiscard]] std::string_view method() const override { return "task iterator"; }

 private:
  using Token = std::pair<uint64_t, uint64_t>;  // css_set, id of the v2 cgroup
  struct Cgroup {
    int32_t pid_in_ns = 0;
    uint64_t start_time_ns = 0;
    Token token;
    std::string path;
  };

  Result<void> parse(size_t length) {
    size_t at = 0;
    while (at + sizeof(abi::census_thread) <= length) {
      abi::census_thread thread;
      std::memcpy(&thread, buffer_.data() + at, sizeof(thread));
      if (thread.kind == abi::kCensusThread) {
        threads_.push_back(thread);
        at += sizeof(thread);
      } else if (thread.kind == abi::kCensusProcess && at + sizeof(abi::census_process) <= length) {
        abi::census_process process;
        std::memcpy(&process, buffer_.data() + at, sizeof(process));
        add_process(process);
        at += sizeof(process);
      } else {
        break;
      }
      waits_.push_back({thread.tgid, thread.tid, thread.run_queue_ns});
    }
    if (at != length) return fail("take a census", "the kernel side sent a record of unknown shape");
    return {};
  }

  void add_process(const abi::census_process& process) {
    ProcessSample& sample = samples_.emplace_back();
    sample.key.pid = process.self.tgid;
    sample.key.start_time_ns = process.start_boottime_ns / kStartTimeGranularityNs * kStartTimeGranularityNs;
    sample.pid_in_ns = process.pid_in_ns;
    sample.parent_pid = process.parent_tgid;
    sample.comm.assign(process.comm, strnlen(process.comm, sizeof(process.comm)));
    sample.exec = ExecId{process.exec_id};
    sample.kernel_thread = (process.flags & abi::kKernelThread) != 0;
    sample.on_cpu_ns = process.self.on_cpu_ns + process.dead.on_cpu_ns;
    sample.voluntary_switches = process.self.voluntary_switches + process.dead.voluntary_switches;
    sample.involuntary_switches = process.self.involuntary_switches + process.dead.involuntary_switches;
    sample.minor_faults = process.self.minor_faults + process.dead.minor_faults;
    sample.major_faults = process.self.major_faults + process.dead.major_faults;
    sample.read_bytes = process.self.read_bytes + process.dead.read_bytes;
    sample.write_bytes = process.self.write_bytes + process.dead.write_bytes;
    static const auto page_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    sample.rss_bytes = process.rss_pages * page_bytes;
    sample.nice = static_cast<int8_t>(process.nice);
    sample.policy = static_cast<SchedulingPolicy>(process.policy);
    sample.threads = process.threads;
    sample.uid = process.euid;
    cgroup_tokens_.emplace_back(process.cgroup_set, process.cgroup_id);
  }

  void fold_threads() {
    if (threads_.empty()) return;
    index_.clear();
    for (size_t i = 0; i < samples_.size(); ++i) {
      if (samples_[i].threads > 1) index_[samples_[i].key.pid] = i;
    }
    for (const abi::census_thread& thread : threads_) {
      const auto found = index_.find(thread.tgid);
      if (found == index_.end()) continue;  // the process began or ended while the census passed
      ProcessSample& sample = samples_[found->second];
      sample.on_cpu_ns += thread.on_cpu_ns;
      sample.voluntary_switches += thread.voluntary_switches;
      sample.involuntary_switches += thread.involuntary_switches;
      sample.minor_faults += thread.minor_faults;
      sample.major_faults += thread.major_faults;
      sample.read_bytes += thread.read_bytes;
      sample.write_bytes += thread.write_bytes;
    }
  }

  // The path costs an open and a read of /proc, which waits for whoever changes cgroups (0.3 s while 200 processes
  // began on a busy machine), and this is the loop's thread. So it is read once per css_set: a process that is new, or
  // has changed its cgroups, has the path of one that had the same set at the last census. The set's address can come
  // round; not while somebody has it, and together with the v2 cgroup's id it is unique enough in practice.
  void assign_cgroups() {
    std::vector<Cgroup> now(samples_.size());
    std::vector<size_t> fresh;
    // Both lists have the order of the pids that the kernel went through.
    auto before = cgroups_.begin();
    for (size_t i = 0; i < samples_.size(); ++i) {
      const ProcessSample& sample = samples_[i];
      now[i] = {sample.pid_in_ns, sample.key.start_time_ns, cgroup_tokens_[i], {}};
      while (before != cgroups_.end() && before->pid_in_ns < sample.pid_in_ns) ++before;
      if (before == cgroups_.end() || before->pid_in_ns != sample.pid_in_ns || before->token != cgroup_tokens_[i] ||
          before->start_time_ns != sample.key.start_time_ns) {
        fresh.push_back(i);
        continue;
      }
      now[i].path = std::move(before->path);
    }
    std::map<Token, std::string> known;
    if (!fresh.empty()) {
      for (const Cgroup& cgroup : now) {
        if (!cgroup.path.empty()) known.try_emplace(cgroup.token, cgroup.path);
      }
    }
    for (const size_t i : fresh) {
      const auto same = known.find(now[i].token);
      now[i].path = same != known.end() ? same->second : read_cgroup_(samples_[i].pid_in_ns);
      if (!now[i].path.empty()) known.try_emplace(now[i].token, now[i].path);
    }
    for (size_t i = 0; i < samples_.size(); ++i) samples_[i].cgroup = now[i].path;
    cgroups_ = std::move(now);
  }

  CgroupReader read_cgroup_;
  std::unique_ptr<census_bpf, SkeletonDeleter> skeleton_;
  BpfLink link_;
  std::vector<char> buffer_ = std::vector<char>(size_t{64} * 1024);
  std::vector<ProcessSample> samples_;
  std::vector<abi::census_thread> threads_;
  std::vector<CensusMemory::ThreadWait> waits_;
  std::unordered_map<int32_t, size_t> index_;  // processes with threads
  std::vector<Token> cgroup_tokens_;           // of samples_, in the same order
  std::vector<Cgroup> cgroups_;                // of the last census, by pid_in_ns
  CensusMemory memory_;
  size_t last_size_ = 0;
};

}  // namespace

Result<std::unique_ptr<Census>> make_bpf_census(CgroupReader read_cgroup) {
  if (auto possible = check_bpf_possible(); !possible) return Failure(possible.error());
  auto census = std::make_unique<BpfCensus>(std::move(read_cgroup));
  if (auto loaded = census->load(); !loaded) return Failure(loaded.error());
  return std::unique_ptr<Census>(std::move(census));
}

}  // namespace stackwatch
