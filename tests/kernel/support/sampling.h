// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>

#include "bpf/sampling_engine.h"
#include "core/clock.h"

namespace stackwatch {

/// What a probe counted over several reads.
struct Counted {
  int64_t samples = 0;
  Losses lost;
  std::unordered_map<uint64_t, int64_t> by_stack;
  std::unordered_map<uint64_t, RawStack> frames;

  void add(const StackDelta& delta) {
    for (const auto& value : delta.values) {
      samples += value.value;
      by_stack[value.stack.value] += value.value;
    }
    for (const auto& stack : delta.new_stacks) frames[stack.hash.value] = stack.stack;
    lost += delta.lost;
  }
};

/// An engine on the real kernel.
struct LiveEngine {
  explicit LiveEngine(const SamplingLimits& limits = {}, EventsByCpu given = {}) {
    auto made = make_on_cpu_engine(clock, limits, nullptr, std::move(given));
    if (!made) throw std::runtime_error(made.error().message());
    engine = std::move(*made);
  }

  std::unique_ptr<Probe> attach(const ProcessKey& process, double frequency_hz = 99, bool children = false) const {
    auto probe = engine->make_probe(engine->kinds().front());
    const auto attached = probe->attach(process, {.frequency_hz = frequency_hz, .children = children});
    if (!attached) throw std::runtime_error(attached.error().message());
    return probe;
  }

  void collect() const {
    const auto collected = engine->collect();
    if (!collected) throw std::runtime_error(collected.error().message());
  }

  void read_into(Probe& probe, Counted& counted) const {
    collect();
    auto delta = probe.read();
    if (!delta) throw std::runtime_error(delta.error().message());
    counted.add(*delta);
  }

  SystemClock clock;
  std::unique_ptr<ProbeEngine> engine;
};

inline void pass(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// Time that the hypervisor took from all CPUs so far. The kernel leaves it out of CPU times, but a sample that was due
/// while a CPU stood still comes when it goes on.
inline double stolen_s() {
  std::ifstream stat("/proc/stat");
  std::string cpu;
  double value = 0;
  stat >> cpu;
  for (int field = 1; field <= 8; ++field) stat >> value;  // user nice system idle iowait irq softirq steal
  return value / static_cast<double>(sysconf(_SC_CLK_TCK));
}

/// Samples are drawn at fixed times, so their number is within one per interval and CPU of rate × CPU time where the
/// process runs all the time; where it starts and stops it is as uneven as a Poisson number at most. Stolen time may
/// add to it.
inline void expect_samples_match(int64_t samples, double cpu_s, double frequency_hz, double stolen_meanwhile_s) {
  const double expected = cpu_s * frequency_hz;
  const double error = 5 * std::sqrt(expected) + 3;
  EXPECT_GE(static_cast<double>(samples), expected - error) << "CPU time " << cpu_s << " s";
  EXPECT_LE(static_cast<double>(samples), expected + error + stolen_meanwhile_s * frequency_hz)
      << "CPU time " << cpu_s << " s, stolen " << stolen_meanwhile_s << " s";
  testing::Test::RecordProperty("samples_over_expected", std::to_string(static_cast<double>(samples) / expected));
}

}  // namespace stackwatch
