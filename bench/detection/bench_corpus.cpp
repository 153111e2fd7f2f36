// SPDX-License-Identifier: Apache-2.0
// Scores replayed captures of real programs: `bench_corpus DIR` reads NAME.truth.json (tests/programs/changer) and
// NAME.alerts (`stackwatch replay --json`), and prints Markdown.
#include <rapidjson/document.h>
#include <rapidjson/istreamwrapper.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/time_text.h"
#include "poisson_interval.h"

namespace stackwatch {
namespace {

namespace fs = std::filesystem;

constexpr double kDay_s = 86400;

struct Run {
  std::string name;
  bool is_change = false;
  bool starved = false;  ///< it had less than half of the CPU time that it was to use
  double watched_s = 0;  ///< without a change: all of it, else up to the onset
  int false_alerts = 0;
  std::optional<double> delay_s;  ///< none: missed
  bool first_right = false;
  bool third_right = false;
  int alerts_of_change = 0;
};

struct Firing {
  double time_s;
  std::vector<std::string> frames;  ///< what it accuses, the first first
};

std::string text_of(const rapidjson::Value& object, const char* key) {
  const auto member = object.FindMember(key);
  return member != object.MemberEnd() && member->value.IsString() ? member->value.GetString() : "";
}

/// Alerts as they began to fire, each once.
std::optional<std::vector<Firing>> read_alerts(const fs::path& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::vector<Firing> out;
  std::string line;
  while (std::getline(file, line)) {
    rapidjson::Document alert;
    alert.Parse(line.c_str(), line.size());
    if (alert.HasParseError() || !alert.IsObject()) return std::nullopt;
    if (text_of(alert, "state") != "firing") continue;
    const auto time_ns = parse_time(text_of(alert, "updated"), ZonelessTime::kRefused);
    if (!time_ns) return std::nullopt;
    Firing firing{static_cast<double>(*time_ns) * 1e-9, {text_of(alert, "frame")}};
    if (const auto others = alert.FindMember("contributors"); others != alert.MemberEnd() && others->value.IsArray()) {
      for (const auto& other : others->value.GetArray()) {
        const std::string frame = text_of(other, "frame");
        if (std::ranges::find(firing.frames, frame) == firing.frames.end()) firing.frames.push_back(frame);
      }
    }
    out.push_back(std::move(firing));
  }
  return out;
}

void judge(Run& run, const Firing& firing, double onset_s, const std::string& function) {
  if (!run.is_change || firing.time_s < onset_s) {
    ++run.false_alerts;
    return;
  }
  ++run.alerts_of_change;
  if (run.delay_s) return;
  run.delay_s = firing.time_s - onset_s;
  const auto at = std::ranges::find(firing.frames, function) - firing.frames.begin();
  run.first_right = at == 0;
  run.third_right = at < 3 && at < static_cast<std::ptrdiff_t>(firing.frames.size());
}

std::optional<Run> read_run(const fs::path& truth_path) {
  std::ifstream file(truth_path);
  rapidjson::IStreamWrapper stream(file);
  rapidjson::Document truth;
  truth.ParseStream(stream);
  if (truth.HasParseError() || !truth.IsObject()) return std::nullopt;
  for (const char* key : {"onset_s", "started_s", "ended_s", "cpu_s", "planned_cpu_s"}) {
    if (!truth.HasMember(key) || !truth[key].IsDouble()) return std::nullopt;
  }
  if (!truth.HasMember("change") || !truth["change"].IsBool()) return std::nullopt;
  Run run;
  run.name = text_of(truth, "case");
  run.is_change = truth["change"].GetBool();
  const double onset_s = truth["onset_s"].GetDouble();
  run.starved = truth["cpu_s"].GetDouble() < 0.5 * truth["planned_cpu_s"].GetDouble();
  run.watched_s = (run.is_change ? onset_s : truth["ended_s"].GetDouble()) - truth["started_s"].GetDouble();
  std::string base = truth_path.string();
  base.resize(base.size() - std::string_view(".truth.json").size());
  const auto alerts = read_alerts(base + ".alerts");
  if (!alerts) return std::nullopt;
  for (const Firing& firing : *alerts) judge(run, firing, onset_s, text_of(truth, "function"));
  return run;
}

/// With misses at the end, as longer than any.
std::string percentile(const std::vector<Run>& runs, double part) {
  std::vector<double> delays;
  for (const Run& run : runs) delays.push_back(run.delay_s.value_or(std::numeric_limits<double>::infinity()));
  std::sort(delays.begin(), delays.end());
  const double value = delays[static_cast<size_t>(part * static_cast<double>(delays.size() - 1) + 0.5)];
  if (value > 1e9) return "missed";
  return std::to_string(static_cast<int>(value + 0.5)) + " s";
}

void print_changes(const std::map<std::string, std::vector<Run>>& cases) {
  std::printf("| change | runs | alerted | delay median | P95 | right in top 1 | top 3 | alerts per change |\n");
  std::printf("|---|---|---|---|---|---|---|---|\n");
  for (const auto& [name, runs] : cases) {
    if (!runs.front().is_change) continue;
    const auto count = [&runs = runs](auto what) { return std::ranges::count_if(runs, what); };
    const auto alerted = count([](const Run& run) { return run.delay_s.has_value(); });
    int alerts = 0;
    for (const Run& run : runs) alerts += run.alerts_of_change;
    std::printf("| %s | %zu | %td | %s | %s | %td | %td | %.1f |\n", name.c_str(), runs.size(), alerted,
                percentile(runs, 0.5).c_str(), percentile(runs, 0.95).c_str(),
                count([](const Run& run) { return run.first_right; }),
                count([](const Run& run) { return run.third_right; }),
                alerts / std::max(1.0, static_cast<double>(alerted)));
  }
}

void print_false_alarms(const std::map<std::string, std::vector<Run>>& cases) {
  std::printf("\nNo change of the program; the last row is what came before the changes above.\n\n");
  std::printf("| what happened | runs | with an alert | alerts | process-hours | per process-day (95 %%) |\n");
  std::printf("|---|---|---|---|---|---|\n");
  const auto row = [](const std::string& name, const std::vector<Run>& runs) {
    int alerts = 0;
    double watched_s = 0;
    for (const Run& run : runs) {
      alerts += run.false_alerts;
      watched_s += run.watched_s;
    }
    const auto [low, high] = poisson_interval(alerts);
    const double days = watched_s / kDay_s;
    std::printf("| %s | %zu | %td | %d | %.2f | %.1f (%.1f – %.1f) |\n", name.c_str(), runs.size(),
                std::ranges::count_if(runs, [](const Run& run) { return run.false_alerts > 0; }), alerts,
                watched_s / 3600, alerts / days, low / days, high / days);
  };
  std::vector<Run> before;
  for (const auto& [name, runs] : cases) {
    if (runs.front().is_change)
      before.insert(before.end(), runs.begin(), runs.end());
    else
      row(name, runs);
  }
  if (!before.empty()) row("before a change", before);
}

int run(const std::string& directory) {
  std::map<std::string, std::vector<Run>> cases;
  size_t unreadable = 0;
  size_t starved = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (!entry.path().string().ends_with(".truth.json")) continue;
    auto run = read_run(entry.path());
    if (run && run->starved)
      ++starved;
    else if (run)
      cases[run->name].push_back(std::move(*run));
    else
      ++unreadable;
  }
  if (starved > 0) {
    std::printf("%zu runs had less than half of their CPU time on a busy machine, and are in no table.\n\n", starved);
  }
  if (error || cases.empty()) {
    std::fprintf(stderr, "bench_corpus: %s: it has no replayed captures (bench/detection/corpus/record.sh)\n",
                 directory.c_str());
    return 1;
  }
  print_changes(cases);
  print_false_alarms(cases);
  if (unreadable > 0) std::printf("\n%zu runs could not be read, and are in no table.\n", unreadable);
  return unreadable > 0 ? 1 : 0;
}

}  // namespace
}  // namespace stackwatch

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: bench_corpus DIR\n");
    return 2;
  }
  return stackwatch::run(argv[1]);
}
