// SPDX-License-Identifier: Apache-2.0
// What detectors cost: memory of the heap by what malloc gave, CPU time of this thread. 100 processes with 500 streams
// each, as many samples as 99 Hz give, and processes whose ticks have no counts at all.
#include <malloc.h>
#include <time.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "core/census_delta.h"
#include "detectors/composition.h"
#include "detectors/registry.h"

namespace {
size_t heap_bytes = 0;
}

// Replaced for the whole program: what is asked for is counted with what the allocator makes of it.
void* operator new(size_t size) {
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  heap_bytes += malloc_usable_size(memory) + sizeof(size_t);
  return memory;
}
void* operator new(size_t size, std::align_val_t alignment) {
  const auto align = static_cast<size_t>(alignment);
  void* memory = std::aligned_alloc(align, (size + align - 1) / align * align);
  if (memory == nullptr) throw std::bad_alloc();
  heap_bytes += malloc_usable_size(memory) + sizeof(size_t);
  return memory;
}
void operator delete(void* memory) noexcept {
  if (memory != nullptr) heap_bytes -= malloc_usable_size(memory) + sizeof(size_t);
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { operator delete(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { operator delete(memory); }

namespace stackwatch {
namespace {

constexpr int kProcesses = 100;
constexpr int kSamples = 99;
constexpr int kWarmUp = 1000;  // past the windows' length, and half of a half hour: then a time of day is known
constexpr int kFilled = 400;   // the streams that matter have their places
constexpr int kTicks = 200;
constexpr int kUntilFound = 300;  // and what it keeps of the mix since

double cpu_s() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Programs whose functions and stacks come to about 500 streams: 20 handlers, each with 12 leaves, shares like 1/rank.
class Program {
 public:
  Program() {
    for (int handler = 0; handler < 20; ++handler) {
      for (int leaf = 0; leaf < 12; ++leaf) {
        const std::string name = std::to_string(handler) + "_" + std::to_string(leaf);
        const std::array frames{functions_.intern("p", "main"), functions_.intern("p", "loop"),
                                functions_.intern("p", "handler" + std::to_string(handler)),
                                functions_.intern("p", "work" + name),
                                functions_.intern("libc", "leaf" + std::to_string(leaf))};
        stacks_.push_back(table_.intern(frames));
        // A second way to the same function: the stack then says what no function says.
        const std::array other{frames[0], frames[1], functions_.intern("p", "retry"), frames[3], frames[4]};
        stacks_.push_back(table_.intern(other));
      }
    }
    for (size_t i = 0; i < stacks_.size(); ++i) weights_.push_back(1 / (20.0 + static_cast<double>(i)));
    draw_ = std::discrete_distribution<size_t>(weights_.begin(), weights_.end());
  }
  /// One of its functions takes a quarter of all more.
  void grow(size_t stack) {
    weights_[stack] += std::accumulate(weights_.begin(), weights_.end(), 0.0) / 3;
    draw_ = std::discrete_distribution<size_t>(weights_.begin(), weights_.end());
  }
  void draw(std::mt19937_64& random, double time_s, int samples, NamedDelta& out) {
    counts_.assign(stacks_.size(), 0);
    for (int i = 0; i < samples; ++i) ++counts_[draw_(random)];
    out.values.clear();
    for (size_t i = 0; i < stacks_.size(); ++i) {
      if (counts_[i] > 0) out.values.push_back({stacks_[i], counts_[i]});
    }
    out.time_s = time_s;
    out.interval_s = 1;
    out.exposure_s = samples / 99.0;
    out.frequency_hz = 99;
    out.stacks = &table_;
    out.functions = &functions_;
  }

 private:
  FunctionTable functions_;
  StackTable table_;
  std::vector<StackId> stacks_;
  std::vector<int64_t> counts_;
  std::vector<double> weights_;
  std::discrete_distribution<size_t> draw_;
};

struct Attached {
  std::unique_ptr<Program> program = std::make_unique<Program>();
  std::vector<std::unique_ptr<Detector>> on_cpu;
  std::vector<std::unique_ptr<Detector>> census;
};

CensusDelta census_of(double time_s, double cores) {
  CensusDelta census;
  census.time_s = time_s;
  census.interval_s = 1;
  census.on_cpu_s = cores;
  census.rss_bytes = 1e8;
  census.local_s = static_cast<int64_t>(time_s) + (time_s < kWarmUp ? 0 : 1800);  // the half hour ends here
  return census;
}

/// CPU time of the detectors alone.
double run(std::vector<Attached>& processes, int first, int ticks, int samples) {
  std::mt19937_64 random(1);
  NamedDelta delta;
  double spent_s = 0;
  for (int t = first; t < first + ticks; ++t) {
    const double time_s = 100 + t;
    for (Attached& process : processes) {
      process.program->draw(random, time_s, samples, delta);
      const CensusDelta census = census_of(time_s, samples / 99.0);
      const double begin_s = cpu_s();
      for (const auto& detector : process.census) (void)detector->observe_census(census);
      for (const auto& detector : process.on_cpu) (void)detector->observe_census(census);
      for (const auto& detector : process.on_cpu) (void)detector->observe(delta);
      spent_s += cpu_s() - begin_s;
    }
  }
  return spent_s;
}

size_t streams_of(const std::vector<Attached>& processes) {
  size_t streams = 0;
  for (const Attached& process : processes) {
    for (const auto& detector : process.on_cpu) streams += detector->streams();
  }
  return streams;
}

double findings_of(const std::vector<Attached>& processes) {
  size_t findings = 0;
  for (const Attached& process : processes) {
    for (const auto& detector : process.on_cpu) {
      if (const auto* composition = dynamic_cast<const CompositionDetector*>(detector.get())) {
        findings += composition->standing();
      }
    }
  }
  return static_cast<double>(findings);
}

void fill(std::vector<Attached>& processes, ProbeKind probe, std::string_view only) {
  const DetectionPolicy policy;
  DetectorSettings settings;
  for (Attached& process : processes) {
    auto& detectors = probe == ProbeKind::kCensus ? process.census : process.on_cpu;
    detectors = make_detectors(probe, policy, settings);
    std::erase_if(detectors, [only](const auto& detector) { return !only.empty() && detector->name() != only; });
  }
}

/// Bytes per process of detectors of one kind, after they have been run in; what a tick draws is made beforehand.
double bytes_of(ProbeKind probe, std::string_view only) {
  std::vector<Attached> processes(10);
  run(processes, 0, 1, kSamples);
  const size_t before = heap_bytes;
  fill(processes, probe, only);
  run(processes, 0, kWarmUp, kSamples);
  return static_cast<double>(heap_bytes - before) / static_cast<double>(processes.size());
}

void print_cost() {
  std::printf("## Cost of the detectors\n\n| what | value |\n|---|---|\n");
  std::vector<Attached> processes(kProcesses);
  run(processes, 0, 1, kSamples);
  const size_t before = heap_bytes;
  fill(processes, ProbeKind::kOnCpu, "");
  fill(processes, ProbeKind::kCensus, "");
  run(processes, 0, kFilled, kSamples);
  const double most = static_cast<double>(streams_of(processes)) / kProcesses;
  run(processes, kFilled, kWarmUp - kFilled, kSamples);
  const double bytes = static_cast<double>(heap_bytes - before) / kProcesses;
  const double streams = static_cast<double>(streams_of(processes)) / kProcesses;
  std::printf("| %d processes, streams of each at most, and when room was made | %.0f, %.0f |\n", kProcesses, most,
              streams);
  std::printf("| memory of the detectors of a process | %.0f kB |\n", bytes / 1e3);
  for (const auto& [probe, name] : {std::pair(ProbeKind::kOnCpu, "composition"), std::pair(ProbeKind::kOnCpu, "rate"),
                                    std::pair(ProbeKind::kCensus, "rate"), std::pair(ProbeKind::kCensus, "leak")}) {
    std::printf("| of these `%s` on %s | %.1f kB |\n", name, std::string(to_string(probe)).c_str(),
                bytes_of(probe, name) / 1e3);
  }
  const double spent_s = run(processes, kWarmUp, kTicks, kSamples);
  std::printf("| CPU time of a tick of 1 s, all processes | %.1f %% of a core |\n", spent_s / kTicks * 100);
  std::printf("| per stream and tick | %.3f us |\n", spent_s / kTicks / kProcesses / streams * 1e6);
  const double idle_s = run(processes, kWarmUp + kTicks, kTicks, 0);
  std::printf("| the same processes without counts | %.2f %% of a core |\n", idle_s / kTicks * 100);
  int at = kWarmUp + 2 * kTicks;
  for (const size_t stack : {size_t{5}, size_t{200}, size_t{100}, size_t{350}}) {
    for (Attached& process : processes) process.program->grow(stack);
    run(processes, at, kUntilFound, kSamples);
    at += kUntilFound;
    std::printf("| memory while %.2f findings of `composition` stand, with %.0f streams | %.0f kB |\n",
                findings_of(processes) / kProcesses, static_cast<double>(streams_of(processes)) / kProcesses,
                static_cast<double>(heap_bytes - before) / kProcesses / 1e3);
  }
}

}  // namespace
}  // namespace stackwatch

int main() { stackwatch::print_cost(); }
