// SPDX-License-Identifier: Apache-2.0
#include "capture/perf_import.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

namespace stackwatch {
namespace {

/// What is looked at to find out about events and frequency: some seconds of a busy machine.
constexpr size_t kFrontBytes = size_t{4} << 20U;
/// Processes in memory at a time; past it those that were silent longest are detached.
constexpr size_t kMaxProcesses = 16'384;
/// Stacks in memory, of all processes: some 100 MB.
constexpr size_t kMaxStacks = size_t{1} << 17U;
/// How much the time may go back from line to line: perf sorts its samples, other tools that merge files may not.
constexpr double kMaxBackS = 10;
/// A process may be silent as long as it was seen, within these bounds, before it is detached.
constexpr double kLeastSilenceS = 5;
constexpr double kMostSilenceS = 300;

struct Process {
  ProcessIdentity identity;
  StackTable stacks;
  std::vector<int64_t> counts;   // by StackId
  std::vector<StackId> touched;  // those that are not 0
  Losses lost;
  double first_s = 0;
  double last_s = 0;
  bool replaced = false;
  bool renamed = false;
};

/// Which function a frame is, in the words that the daemon uses.
class FrameNamer {
 public:
  explicit FrameNamer(FunctionTable& functions) : functions_(functions) {}

  FunctionId name(const PerfSample::Frame& frame) {
    const bool unknown = frame.symbol == "[unknown]";
    if (frame.kernel) {
      name_ = unknown ? "[kernel]" : frame.symbol;
      name_ += "_[k]";
      const bool is_image = frame.object.empty() || frame.object.starts_with("[kernel") || frame.object == "[k]";
      return functions_.intern(is_image ? "kernel" : frame.object, name_);
    }
    if (!unknown) return functions_.intern(frame.object, frame.symbol);
    if (frame.object.empty()) return functions_.intern("", frame.symbol);
    const std::string_view file = frame.object.substr(frame.object.rfind('/') + 1);
    name_.assign("[").append(file.starts_with('[') ? file.substr(1, file.size() - 2) : file).append("]");
    return functions_.intern(frame.object, name_);
  }

 private:
  FunctionTable& functions_;
  std::string name_;  // kept for its memory
};

class Importer {
 public:
  Importer(CaptureWriter writer, double frequency_hz, double begin_s, double tick_s)
      : writer_(std::move(writer)), frequency_hz_(frequency_hz), begin_s_(begin_s), tick_s_(tick_s) {}

  /// Whether the time of a sample fits to those before it.
  [[nodiscard]] bool fits(double time_s) const { return time_s - begin_s_ >= tick_begin_s() - kMaxBackS; }
  Result<void> add(const PerfSample& sample);
  Result<void> finish();

  PerfImportReport report;

 private:
  // The recorded time line begins with the first sample: perf's clock says nothing to anybody else.
  [[nodiscard]] double tick_begin_s() const { return static_cast<double>(tick_) * tick_s_; }
  [[nodiscard]] double tick_end_s() const { return static_cast<double>(tick_ + 1) * tick_s_; }
  Process& process_of(const PerfHeader& header, double time_s);
  Result<void> end_tick(double end_s);
  Result<void> write_delta(Process& process, double end_s);
  Result<void> forget(std::map<int32_t, Process>::iterator process, double end_s);
  Result<void> forget_silent(double end_s);
  Result<void> make_room(double end_s);

  CaptureWriter writer_;
  double frequency_hz_;
  double begin_s_;
  double tick_s_;
  uint64_t tick_ = 0;
  double last_s_ = 0;
  FunctionTable functions_;
  FrameNamer namer_{functions_};
  std::map<int32_t, Process> processes_;  // in order of pids: the same text gives the same capture
  std::vector<FunctionId> frames_;        // of one sample, kept for its memory
};

Process& Importer::process_of(const PerfHeader& header, double time_s) {
  const int32_t pid = std::max(0, header.pid.value_or(header.tid));
  const auto [entry, is_new] = processes_.try_emplace(pid);
  Process& process = entry->second;
  const bool leads = !header.pid || *header.pid == header.tid;
  if (is_new) {
    ++report.processes;
    process.identity.key.pid = process.identity.pid_in_ns = pid;
    process.identity.comm = header.comm;
    process.first_s = time_s;
    process.renamed = !leads;  // a thread's name will do until the leader is seen
  } else if (leads && process.identity.comm != header.comm) {
    process.replaced |= !std::exchange(process.renamed, false);
    process.identity.comm = header.comm;
  }
  return process;
}

Result<void> Importer::add(const PerfSample& sample) {
  const PerfHeader& header = sample.header;
  const double time_s = header.time_s - begin_s_;
  while (time_s >= tick_end_s()) {
    if (auto ended = end_tick(tick_end_s()); !ended) return ended;
    if (!processes_.empty()) continue;
    tick_ = std::max(tick_, static_cast<uint64_t>(time_s / tick_s_));  // nobody sees the gap
    break;
  }
  if (time_s < tick_begin_s()) ++report.late;
  last_s_ = std::max(last_s_, time_s);
  if (header.pid.value_or(header.tid) == 0) {
    ++report.idle;
    return {};
  }
  Process& process = process_of(header, time_s);
  process.last_s = time_s;
  frames_.clear();
  for (auto frame = sample.frames.rbegin(); frame != sample.frames.rend(); ++frame) {
    frames_.push_back(namer_.name(*frame));
  }
  if (frames_.empty()) frames_.push_back(FunctionTable::kUnnamed);
  const uint32_t known = process.stacks.size();
  const StackId stack = process.stacks.intern(frames_);
  if (stack == StackTable::kOther && known == process.stacks.capacity()) ++process.lost[LossReason::kStacksFull];
  if (sample.truncated) ++process.lost[LossReason::kTruncated];
  if (process.counts.size() <= stack.value) process.counts.resize(process.stacks.size());
  if (process.counts[stack.value]++ == 0) process.touched.push_back(stack);
  return {};
}

Result<void> Importer::write_delta(Process& process, double end_s) {
  if (auto told = writer_.process(process.identity); !told) return told;
  if (std::exchange(process.replaced, false)) {
    if (auto told = writer_.ended(end_s, process.identity.key, CapturedEnd::Kind::kReplaced); !told) return told;
  }
  NamedDelta delta;
  delta.process = process.identity.key;
  delta.time_s = end_s;
  delta.interval_s = end_s - tick_begin_s();
  delta.frequency_hz = frequency_hz_;
  delta.stacks = &process.stacks;
  delta.functions = &functions_;
  delta.lost = std::exchange(process.lost, {});
  std::ranges::sort(process.touched);
  int64_t samples = 0;
  for (const StackId stack : process.touched) {
    const int64_t count = std::exchange(process.counts[stack.value], 0);
    delta.values.push_back({stack, count});
    samples += count;
  }
  process.touched.clear();
  delta.exposure_s = static_cast<double>(samples) / frequency_hz_;
  return writer_.delta(delta);
}

Result<void> Importer::forget(std::map<int32_t, Process>::iterator process, double end_s) {
  auto told = writer_.ended(end_s, process->second.identity.key, CapturedEnd::Kind::kDetached);
  processes_.erase(process);
  return told;
}

Result<void> Importer::forget_silent(double end_s) {
  for (auto it = processes_.begin(); it != processes_.end();) {
    const auto current = it++;
    const Process& process = current->second;
    const double allowed_s = std::clamp(process.last_s - process.first_s, kLeastSilenceS, kMostSilenceS);
    if (end_s - process.last_s < allowed_s) continue;
    if (auto told = forget(current, end_s); !told) return told;
  }
  return {};
}

Result<void> Importer::make_room(double end_s) {
  size_t stacks = 0;
  for (const auto& [pid, process] : processes_) stacks += process.stacks.size();
  if (processes_.size() <= kMaxProcesses && stacks <= kMaxStacks) return {};
  std::vector<std::map<int32_t, Process>::iterator> order;
  for (auto it = processes_.begin(); it != processes_.end(); ++it) order.push_back(it);
  // The one that was silent longest first; of those that were just seen the one with most stacks.
  std::ranges::stable_sort(order, [](const auto& a, const auto& b) {
    if (a->second.last_s != b->second.last_s) return a->second.last_s < b->second.last_s;
    return a->second.stacks.size() > b->second.stacks.size();
  });
  for (const auto& process : order) {
    if (processes_.size() <= kMaxProcesses * 3 / 4 && stacks <= kMaxStacks * 3 / 4) break;
    stacks -= process->second.stacks.size();
    if (auto told = forget(process, end_s); !told) return told;
  }
  return {};
}

Result<void> Importer::end_tick(double end_s) {
  for (auto& [pid, process] : processes_) {
    if (auto written = write_delta(process, end_s); !written) return written;
  }
  if (auto told = forget_silent(end_s); !told) return told;
  if (auto told = make_room(end_s); !told) return told;
  ++report.ticks;
  ++tick_;
  return writer_.tick(end_s);
}

// The last tick is as long as there are samples in it.
Result<void> Importer::finish() {
  const double end_s = last_s_ + 1 / frequency_hz_;
  const bool any = std::ranges::any_of(processes_, [](const auto& process) { return !process.second.touched.empty(); });
  if (any) {
    if (auto ended = end_tick(std::clamp(end_s, tick_begin_s() + 1e-3, tick_end_s())); !ended) return ended;
  }
  auto finished = writer_.finish();
  report.bytes = writer_.bytes();
  return finished;
}

Result<std::string> read_front(ByteSource& text, const std::string& name) {
  std::string front;
  std::vector<char> room(size_t{64} << 10U);
  while (front.size() < kFrontBytes) {
    auto count = text.read(room);
    if (!count) return fail("read " + name, count.error().why);
    if (*count == 0) break;
    front.append(room.data(), *count);
  }
  return front;
}

CaptureHeader header_of(const PerfImportOptions& options) {
  CaptureHeader header;
  header.started_ns = options.started_ns;
  header.tick_s = options.tick_s;
  header.marks_ticks = true;
  return header;
}

Result<void> import_all(PerfScriptReader& reader, Importer& importer, std::optional<PerfSample> sample) {
  while (sample) {
    if (!importer.fits(sample->header.time_s)) {
      if (auto refused = reader.refuse("the time goes back by more than 10 s"); !refused) return refused;
    } else if (auto added = importer.add(*sample); !added) {
      return added;
    }
    auto next = reader.next();
    if (!next) return Failure(next.error());
    sample = std::move(*next);
  }
  return {};
}

}  // namespace

Result<PerfImportReport> import_perf_script(std::unique_ptr<ByteSource> text, const std::string& name,
                                            const std::string& output, const PerfImportOptions& options) {
  auto plain = decompressed(std::move(text));
  if (!plain) return fail("read " + name, plain.error().why);
  auto front = read_front(**plain, name);
  if (!front) return Failure(front.error());
  auto survey = survey_perf_script(*front, options.event);
  if (!survey) return fail(survey.error().kind, "import " + name, survey.error().why, survey.error().hint);
  if (options.frequency_hz) {
    survey->frequency_hz = options.frequency_hz;
    survey->frequency_from = "the command line";
  }
  if (!survey->frequency_hz) {
    return fail(ErrorKind::kUsage, "import " + name, "it does not tell how often was sampled", "say it with -F");
  }

  PerfScriptReader reader(joined(std::move(*front), std::move(*plain)), name,
                          {.event = survey->event, .skip_bad_lines = options.skip_bad_lines});
  auto first = reader.next();
  if (!first) return Failure(first.error());
  if (!first->has_value()) return fail("import " + name, "it has no samples of the event " + survey->event);
  auto writer = CaptureWriter::create(output, header_of(options));
  if (!writer) return Failure(writer.error());
  Importer importer(std::move(*writer), *survey->frequency_hz, (**first).header.time_s, options.tick_s);
  const auto imported = import_all(reader, importer, std::move(*first));
  const auto finished = importer.finish();
  if (!imported) return Failure(imported.error());
  if (!finished) return Failure(finished.error());
  importer.report.survey = std::move(*survey);
  importer.report.read = reader.counters();
  return std::move(importer.report);
}

}  // namespace stackwatch
