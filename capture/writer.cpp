// SPDX-License-Identifier: Apache-2.0
#include "capture/writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "capture/capture_file.h"
#include "capture/json_line.h"
#include "core/time_text.h"

namespace stackwatch {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;
/// So much of the recorded time at most is lost when the recorder is killed. Half a second, so that ticks of a second
/// with some jitter are flushed each.
constexpr double kFlushS = 0.5;

bool same(const ProcessIdentity& a, const ProcessIdentity& b) {
  return a.key == b.key && a.pid_in_ns == b.pid_in_ns && a.comm == b.comm && a.exe == b.exe && a.cgroup == b.cgroup &&
         a.unit == b.unit;
}

/// Whole nanoseconds as seconds: llround(s * 1e9) gives them back, up to 52 days.
double seconds(uint64_t ns) { return static_cast<double>(ns) * 1e-9; }

uint64_t grown(uint64_t now, uint64_t before) { return now - std::min(now, before); }

ProcessSample difference(const ProcessSample& now, const ProcessSample& before) {
  ProcessSample d = now;  // levels and names stay
  d.on_cpu_ns = grown(now.on_cpu_ns, before.on_cpu_ns);
  d.run_queue_ns = grown(now.run_queue_ns, before.run_queue_ns);
  d.voluntary_switches = grown(now.voluntary_switches, before.voluntary_switches);
  d.involuntary_switches = grown(now.involuntary_switches, before.involuntary_switches);
  d.minor_faults = grown(now.minor_faults, before.minor_faults);
  d.major_faults = grown(now.major_faults, before.major_faults);
  d.read_bytes = grown(now.read_bytes, before.read_bytes);
  d.write_bytes = grown(now.write_bytes, before.write_bytes);
  return d;
}

void write_counters(JsonLine& json, const ProcessSample& sample) {
  json.member("on_cpu_s", seconds(sample.on_cpu_ns));
  json.member("run_queue_s", seconds(sample.run_queue_ns));
  json.member("voluntary_switches", sample.voluntary_switches);
  json.member("involuntary_switches", sample.involuntary_switches);
  json.member("minor_faults", sample.minor_faults);
  json.member("major_faults", sample.major_faults);
  json.member("rss_bytes", sample.rss_bytes);
  json.member("read_bytes", sample.read_bytes);
  json.member("write_bytes", sample.write_bytes);
  json.member("threads", sample.threads);
}

void write_lost(JsonLine& json, const Losses& lost) {
  json.begin_object("lost");
  for (size_t i = 0; i < kLossReasons; ++i) {
    if (lost.count[i] > 0) json.member(to_string(static_cast<LossReason>(i)), lost.count[i]);
  }
  json.end_object();
}

double finite(double value) { return std::isfinite(value) ? value : 0; }

}  // namespace

struct CaptureWriter::Impl {
  /// The stacks of one StackTable as the capture knows them.
  struct Table {
    const StackTable* table = nullptr;
    uint32_t number = 0;           ///< of the process in the capture
    std::vector<uint64_t> stacks;  ///< number in the capture, by StackId
  };
  struct Process {
    ProcessIdentity identity;
    std::optional<ProcessSample> last;
    std::vector<Table> tables;
  };

  Impl(UniqueFd fd, const std::string& name, const CaptureHeader& about, const CaptureOptions& options)
      : header(about), file(std::move(fd), name, options.compress ? std::optional(options.level) : std::nullopt) {}

  Result<void> write_header();
  Result<void> write_line() {
    ++lines;
    return file.append(json.end());
  }
  void begin(std::string_view type, double time_s, uint32_t number) {
    json.begin(type);
    json.member("t", header.t(finite(time_s)));
    json.member("process", number);
  }
  Result<void> write_process(const Process& process, uint32_t number);
  Result<Table*> table_of(Process& process, const StackTable* stacks);
  Result<void> write_stacks(Table& table, const FunctionTable& functions);
  Result<uint32_t> object_number(const std::string& name);

  CaptureHeader header;
  CaptureFile file;
  JsonLine json;
  std::unordered_map<ProcessKey, Process> processes;
  std::unordered_map<std::string, uint32_t> objects;
  std::vector<uint32_t> frame_objects;  // of one stack, kept for its memory
  uint32_t next_process = 1;
  uint64_t next_stack = 1;
  uint64_t lines = 0;
  std::optional<double> flushed_s;
};

Result<void> CaptureWriter::Impl::write_header() {
  json.begin("capture");
  json.member("version", 1);
  json.member("started", format_utc(header.started_ns));
  json.member("host", header.host);
  json.member("tick_s", header.tick_s);
  json.member("started_ns", header.started_ns);
  json.member("origin_s", header.origin_s);
  if (header.marks_ticks) json.flag("marks_ticks");
  if (auto written = write_line(); !written) return written;
  return file.flush();
}

Result<void> CaptureWriter::Impl::write_process(const Process& process, uint32_t number) {
  const ProcessIdentity& identity = process.identity;
  json.begin("process");
  json.member("process", number);
  json.member("pid", identity.pid_in_ns);
  json.member("start_time_ns", identity.key.start_time_ns);
  json.member("comm", identity.comm);
  json.member("exe", identity.exe);
  json.member("cgroup", identity.cgroup);
  json.member("unit", identity.unit);
  if (identity.key.pid != identity.pid_in_ns) json.member("initial_pid", identity.key.pid);
  if (process.last) {
    const ProcessSample& census = *process.last;
    json.member("nice", census.nice);
    json.member("parent_pid", census.parent_pid);
    json.member("uid", census.uid);
    json.member("policy", static_cast<unsigned>(census.policy));
    if (census.kernel_thread) json.flag("kernel_thread");
    json.begin_object("totals");
    write_counters(json, census);
    json.end_object();
  }
  return write_line();
}

// A table that has become smaller is another one at the same address.
Result<CaptureWriter::Impl::Table*> CaptureWriter::Impl::table_of(Process& process, const StackTable* stacks) {
  auto& tables = process.tables;
  if (tables.front().table == nullptr) tables.front().table = stacks;
  auto found = std::ranges::find(tables, stacks, &Table::table);
  if (found != tables.end() && found->stacks.size() <= stacks->size()) return &*found;
  if (found == tables.end()) found = tables.insert(tables.end(), Table{});
  *found = Table{stacks, next_process++, {}};
  if (auto written = write_process(process, found->number); !written) return Failure(written.error());
  return &*found;
}

Result<uint32_t> CaptureWriter::Impl::object_number(const std::string& name) {
  if (name.empty()) return 0U;
  const auto [known, is_new] = objects.try_emplace(name, static_cast<uint32_t>(objects.size() + 1));
  if (!is_new) return known->second;
  json.begin("object");
  json.member("object", known->second);
  json.member("name", name);
  if (auto written = write_line(); !written) return Failure(written.error());
  return known->second;
}

Result<void> CaptureWriter::Impl::write_stacks(Table& table, const FunctionTable& functions) {
  while (table.stacks.size() < table.table->size()) {
    const auto frames = (*table.table)[StackId{static_cast<uint32_t>(table.stacks.size())}];
    frame_objects.clear();
    for (const FunctionId frame : frames) {
      auto object = object_number(functions[frame].object);
      if (!object) return Failure(object.error());
      frame_objects.push_back(*object);
    }
    json.begin("stack");
    json.member("stack", next_stack);
    json.member("process", table.number);
    json.begin_array("frames");
    for (const FunctionId frame : frames) json.value(std::string_view(functions[frame].name));
    json.end_array();
    json.begin_array("objects");
    for (const uint32_t object : frame_objects) json.value(object);
    json.end_array();
    if (auto written = write_line(); !written) return written;
    table.stacks.push_back(next_stack++);
  }
  return {};
}

CaptureWriter::CaptureWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CaptureWriter::CaptureWriter(CaptureWriter&&) noexcept = default;
CaptureWriter& CaptureWriter::operator=(CaptureWriter&&) noexcept = default;
CaptureWriter::~CaptureWriter() {
  if (impl_ && impl_->file.is_open()) static_cast<void>(!impl_->file.finish());
}

Result<CaptureWriter> CaptureWriter::create(const std::string& path, const CaptureHeader& header,
                                            CaptureOptions options) {
  if (path == "-") {
    UniqueFd out(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
    if (!out) return fail_errno("write standard output", errno);
    return create(std::move(out), "standard output", header, options);
  }
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return fail_errno("write " + path, errno);
  return create(std::move(fd), path, header, options);
}

Result<CaptureWriter> CaptureWriter::create(UniqueFd fd, const std::string& name, const CaptureHeader& header,
                                            CaptureOptions options) {
  auto impl = std::make_unique<Impl>(std::move(fd), name, header, options);
  if (auto written = impl->write_header(); !written) return Failure(written.error());
  return CaptureWriter(std::move(impl));
}

bool CaptureWriter::knows(const ProcessKey& process) const { return impl_->processes.contains(process); }

Result<void> CaptureWriter::process(const ProcessIdentity& identity, const ProcessSample* census) {
  const auto [entry, is_new] = impl_->processes.try_emplace(identity.key);
  Impl::Process& process = entry->second;
  if (!is_new && same(process.identity, identity)) return {};
  process.identity = identity;
  if (is_new) process.tables.push_back({nullptr, impl_->next_process++, {}});
  if (is_new && census != nullptr) process.last = *census;
  for (const Impl::Table& table : process.tables) {
    if (auto written = impl_->write_process(process, table.number); !written) return written;
  }
  return {};
}

Result<void> CaptureWriter::sample(double time_s, const ProcessSample& sample) {
  const auto found = impl_->processes.find(sample.key);
  if (found == impl_->processes.end()) return {};
  Impl::Process& process = found->second;
  const uint32_t number = process.tables.front().number;
  if (!process.last) {
    process.last = sample;
    if (auto written = impl_->write_process(process, number); !written) return written;
  }
  impl_->begin("sample", time_s, number);
  write_counters(impl_->json, difference(sample, *process.last));
  process.last = sample;
  return impl_->write_line();
}

Result<void> CaptureWriter::delta(const NamedDelta& delta) {
  const auto found = impl_->processes.find(delta.process);
  if (found == impl_->processes.end() || delta.stacks == nullptr || delta.functions == nullptr) {
    return fail("write a capture", "a delta of a process or of stacks that nobody knows");
  }
  auto table = impl_->table_of(found->second, delta.stacks);
  if (!table) return Failure(table.error());
  if (auto written = impl_->write_stacks(**table, *delta.functions); !written) return written;
  const auto in_table = [&](const NamedDelta::Value& value) { return value.stack.value < (*table)->stacks.size(); };
  if (!std::ranges::all_of(delta.values, in_table)) {
    return fail("write a capture", "a delta has a stack that is not in its table");
  }
  JsonLine& json = impl_->json;
  impl_->begin("delta", delta.time_s, (*table)->number);
  json.member("probe", to_string(delta.probe));
  json.member("exposure_s", finite(delta.exposure_s));
  json.member("interval_s", finite(delta.interval_s));
  if (delta.frequency_hz > 0) json.member("frequency_hz", finite(delta.frequency_hz));
  json.begin_array("values");
  for (const NamedDelta::Value& value : delta.values) {
    json.begin_array();
    json.value((*table)->stacks[value.stack.value]);
    json.value(value.value);
    json.end_array();
  }
  json.end_array();
  write_lost(json, delta.lost);
  return impl_->write_line();
}

Result<void> CaptureWriter::losses(const ProcessKey& process, ProbeKind probe, const Losses& total) {
  const auto found = impl_->processes.find(process);
  if (found == impl_->processes.end()) return {};
  impl_->json.begin("losses");
  impl_->json.member("process", found->second.tables.front().number);
  impl_->json.member("probe", to_string(probe));
  write_lost(impl_->json, total);
  return impl_->write_line();
}

Result<void> CaptureWriter::ended(double time_s, const ProcessKey& process, CapturedEnd::Kind kind) {
  using enum CapturedEnd::Kind;
  const auto found = impl_->processes.find(process);
  if (found == impl_->processes.end()) return {};
  impl_->begin(kind == kExit       ? "exit"
               : kind == kDetached ? "detached"
                                   : "replaced",
               time_s, found->second.tables.front().number);
  if (kind != kReplaced) impl_->processes.erase(found);
  return impl_->write_line();
}

Result<void> CaptureWriter::tick(double time_s, std::optional<int64_t> realtime_offset_ns) {
  impl_->json.begin("tick");
  impl_->json.member("t", impl_->header.t(finite(time_s)));
  if (realtime_offset_ns) {
    impl_->json.member("clock_ns", *realtime_offset_ns - impl_->header.realtime_offset_ns());
  }
  if (auto written = impl_->write_line(); !written) return written;
  if (impl_->flushed_s && std::abs(time_s - *impl_->flushed_s) < kFlushS) return {};
  impl_->flushed_s = time_s;
  return flush();
}

Result<void> CaptureWriter::flush() { return impl_->file.flush(); }

Result<void> CaptureWriter::finish() { return impl_->file.finish(); }

uint64_t CaptureWriter::bytes() const { return impl_->file.bytes(); }

uint64_t CaptureWriter::lines() const { return impl_->lines; }

CaptureHeader capture_header(const Clock& clock, double tick_s, std::string host) {
  const uint64_t monotonic_ns = clock.monotonic_ns();
  const uint64_t offset_ns = clock.realtime_ns() - monotonic_ns;
  CaptureHeader header;
  header.origin_s = static_cast<int64_t>(monotonic_ns / kNsPerSecond);
  header.started_ns = offset_ns + static_cast<uint64_t>(header.origin_s) * kNsPerSecond;
  header.host = std::move(host);
  header.tick_s = tick_s;
  header.marks_ticks = true;
  return header;
}

}  // namespace stackwatch
