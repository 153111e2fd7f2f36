// SPDX-License-Identifier: Apache-2.0
#include "corpus_replay.h"

#include <rapidjson/document.h>
#include <rapidjson/istreamwrapper.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <tuple>
#include <utility>

#include "capture/reader.h"
#include "daemon/capture_source.h"
#include "daemon/detection.h"

namespace stackwatch {
namespace {

namespace fs = std::filesystem;

/// What the sizes in cores of the defaults are meant for: the usual rate of a watch rule.
constexpr double kUsual_hz = 99;
/// Names and unwind tables come in the first seconds; what is sampled until then is no part of the mix.
constexpr double kStartUp_s = 20;
/// Length of the blocks that the dispersion is measured over: longer than a request, much shorter than the baseline.
constexpr double kBlock_s = 10;

Result<CorpusRun> read_truth(const fs::path& path) {
  std::ifstream file(path);
  rapidjson::IStreamWrapper stream(file);
  rapidjson::Document truth;
  truth.ParseStream(stream);
  const auto broken = [&](const char* key) { return fail(path.string(), std::string("it has no valid ") + key); };
  if (truth.HasParseError() || !truth.IsObject()) return broken("JSON object");
  CorpusRun run;
  run.name = path.stem().stem().string();
  for (const auto& [key, value] : {std::pair{"run", &run.exe}, {"case", &run.kind}}) {
    if (!truth.HasMember(key) || !truth[key].IsString()) return broken(key);
    *value = truth[key].GetString();
  }
  for (const auto& [key, value] : {std::pair{"started_s", &run.started_s},
                                   {"onset_s", &run.onset_s},
                                   {"ended_s", &run.ended_s},
                                   {"cpu_s", &run.cpu_s},
                                   {"planned_cpu_s", &run.planned_cpu_s}}) {
    if (!truth.HasMember(key) || !truth[key].IsNumber()) return broken(key);
    *value = truth[key].GetDouble();
  }
  if (!truth.HasMember("pid") || !truth["pid"].IsInt()) return broken("pid");
  run.pid = truth["pid"].GetInt();
  if (!truth.HasMember("change") || !truth["change"].IsBool()) return broken("change");
  run.is_change = truth["change"].GetBool();
  if (!truth.HasMember("functions") || !truth["functions"].IsArray()) return broken("functions");
  for (const auto& function : truth["functions"].GetArray()) {
    if (!function.IsString()) return broken("functions");
    run.functions.emplace_back(function.GetString());
  }
  return run;
}

/// Samples of one run, tick by tick.
class Sampling {
 public:
  explicit Sampling(const CorpusRun& run) : run_(run) {}

  void add(double time_s, const NamedDelta& delta) {
    double total = 0;
    double right = 0;
    for (const NamedDelta::Value& value : delta.values) {
      total += static_cast<double>(value.value);
      if (is_right(delta, value.stack)) right += static_cast<double>(value.value);
    }
    if (time_s < run_.started_s + kStartUp_s || time_s > run_.ended_s) return;
    if (time_s >= run_.onset_s && run_.onset_s > run_.started_s) {
      after_.first += right;
      after_.second += total;
      return;
    }
    auto& block = blocks_[static_cast<int64_t>(time_s / kBlock_s)];
    block.first += right;
    block.second += total;
  }

  [[nodiscard]] Sampled result() const {
    Sampled out;
    std::pair<double, double> sum{0, 0};
    for (const auto& [time, block] : blocks_) {
      sum.first += block.first;
      sum.second += block.second;
    }
    if (sum.second == 0) return out;
    out.share_before = sum.first / sum.second;
    out.share_after = after_.second > 0 ? after_.first / after_.second : out.share_before;
    out.per_second = sum.second / (static_cast<double>(blocks_.size()) * kBlock_s);
    out.dispersion = dispersion(out.share_before);
    return out;
  }

 private:
  [[nodiscard]] bool is_right(const NamedDelta& delta, StackId stack) {
    return std::ranges::any_of((*delta.stacks)[stack], [&](FunctionId id) {
      return std::ranges::find(run_.functions, (*delta.functions)[id].name) != run_.functions.end();
    });
  }

  /// Pearson's statistic over its degrees of freedom.
  [[nodiscard]] double dispersion(double share) const {
    double squares = 0;
    int used = 0;
    for (const auto& [time, block] : blocks_) {
      const double variance = block.second * share * (1 - share);
      if (variance <= 0) continue;
      squares += (block.first - block.second * share) * (block.first - block.second * share) / variance;
      ++used;
    }
    return used > 2 ? std::max(1.0, squares / (used - 1)) : 1;
  }

  const CorpusRun& run_;
  std::map<int64_t, std::pair<double, double>> blocks_;  // before the onset: right, total
  std::pair<double, double> after_{0, 0};
};

/// Samples a second of a busy core, as the first counts tell; 0 where there are none.
Result<double> sampled_at(const std::string& path) {
  auto reader = CaptureReader::open(path);
  if (!reader) return Failure(reader.error());
  CaptureSource source(std::move(*reader));
  for (;;) {
    auto batch = source.next();
    if (!batch) return Failure(batch.error());
    if (!*batch) return 0.0;
    for (const NamedDelta& delta : (*batch)->deltas) {
      if (delta.probe == ProbeKind::kOnCpu && delta.frequency_hz > 0) return delta.frequency_hz;
    }
  }
}

Firing firing_of(const Alert& alert) {
  Firing firing{static_cast<double>(alert.updated_ns) * 1e-9,
                alert.process.pid_in_ns,
                alert.process.exe,
                alert.detector,
                {alert.frame},
                alert.before,
                alert.after,
                alert.is_named_later()};
  for (const Alert::Contributor& other : alert.contributors) {
    if (std::ranges::find(firing.frames, other.frame) == firing.frames.end()) firing.frames.push_back(other.frame);
  }
  return firing;
}

class Replay {
 public:
  Replay(CaptureSource& source, const JudgedWith& with, const std::vector<CorpusRun>& runs)
      : source_(source),
        runs_(runs),
        detection_(with.policy, with.detectors),
        policy_(with.alerting, source.clock(), sequential_alert_ids(),
                AlertContext{
                    [this](const ProcessKey& process) { return source_.identify(process); },
                    [this](const ProcessKey& process, ProbeKind probe) { return source_.losses(process, probe); }}) {}

  Result<Replayed> run() {
    for (;;) {
      auto batch = source_.next();
      if (!batch) return Failure(batch.error());
      if (!*batch) break;
      tick(**batch);
    }
    for (const auto& [name, sampling] : sampling_) out_.sampled[name] = sampling.result();
    return std::move(out_);
  }

 private:
  void tick(const TickBatch& batch) {
    const double offset_s = static_cast<double>(batch.realtime_offset_ns.value_or(0)) * 1e-9;
    for (const NamedDelta& delta : batch.deltas) {
      if (delta.probe != ProbeKind::kOnCpu) continue;
      if (const CorpusRun* const run = run_of(delta.process, delta.time_s + offset_s)) {
        sampling_.try_emplace(run->name, *run).first->second.add(delta.time_s + offset_s, delta);
      }
    }
    const std::vector<Observation> observations = detection_.observe(batch, &source_);
    out_.streams = std::max(out_.streams, detection_.streams());
    out_.seconds = std::max(out_.seconds, batch.time_s);
    for (const Observation& observation : observations) count_claims(observation, batch.time_s + offset_s);
    for (const Alert& alert :
         policy_.tick(batch.time_s, observations, batch.exits, batch.replaced, batch.realtime_offset_ns)) {
      if (alert.is_firing()) out_.firings.push_back(firing_of(alert));
    }
  }

  /// The run that does it: of several workers, one.
  const CorpusRun* run_of(const ProcessKey& process, double time_s) {
    const ProcessIdentity identity = source_.identify(process);
    const CorpusRun* const run = run_at(runs_, identity.exe, time_s);
    if (run == nullptr) return nullptr;
    return run->kind != "busyworker" || identity.pid_in_ns == run->pid ? run : nullptr;
  }

  void count_claims(const Observation& observation, double time_s) {
    if (observation.findings.empty()) return;
    const CorpusRun* const run = run_of(observation.process, time_s);
    if (run == nullptr || time_s < run->onset_s) return;
    for (const Finding& finding : observation.findings) {
      const bool is_new = claimed_
                              .emplace(observation.process, observation.probe, std::string(finding.detector),
                                       finding.frame.value_or(FunctionId{UINT32_MAX}))
                              .second;
      if (is_new) ++out_.claims[run->name];
    }
  }

  CaptureSource& source_;
  const std::vector<CorpusRun>& runs_;
  Detection detection_;
  AlertPolicy policy_;
  std::map<std::string, Sampling> sampling_;
  std::set<std::tuple<ProcessKey, ProbeKind, std::string, FunctionId>> claimed_;
  Replayed out_;
};

}  // namespace

const CorpusRun* run_at(const std::vector<CorpusRun>& runs, const std::string& exe, double time_s) {
  const std::string name = fs::path(exe).filename().string();
  const CorpusRun* last = nullptr;
  const CorpusRun* first = nullptr;
  for (const CorpusRun& run : runs) {
    if (run.exe != name) continue;
    if (first == nullptr || run.started_s < first->started_s) first = &run;
    if (run.started_s <= time_s && (last == nullptr || run.started_s > last->started_s)) last = &run;
  }
  return last != nullptr ? last : first;
}

Result<std::vector<CorpusRun>> read_corpus(const std::string& directory) {
  std::vector<CorpusRun> runs;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (!entry.path().string().ends_with(".truth.json")) continue;
    auto run = read_truth(entry.path());
    if (!run) return Failure(run.error());
    runs.push_back(std::move(*run));
  }
  if (error || runs.empty()) {
    return fail(directory, "it has no truths (NAME.truth.json)", "bench/detection/corpus/record.sh records some");
  }
  std::ranges::sort(runs, {}, &CorpusRun::name);
  return runs;
}

JudgedWith scaled_to(JudgedWith with, double frequency_hz) {
  if (frequency_hz <= 0) return with;
  const double part = kUsual_hz / frequency_hz;
  with.policy.min_change_cores *= part;
  with.detectors.rate.min_change_cores *= part;
  with.detectors.peers.min_change_cores *= part;
  return with;
}

Result<Replayed> replay_capture(const std::string& path, const JudgedWith& with, const std::vector<CorpusRun>& runs) {
  const auto frequency_hz = sampled_at(path);
  if (!frequency_hz) return Failure(frequency_hz.error());
  auto reader = CaptureReader::open(path);
  if (!reader) return Failure(reader.error());
  CaptureSource source(std::move(*reader));
  JudgedWith adjusted = scaled_to(with, *frequency_hz);
  adjusted.policy.tick_s = source.header().tick_s;
  return Replay(source, adjusted, runs).run();
}

}  // namespace stackwatch
