// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bpf/memory_engine.h"
#include "core/clock.h"
#include "symbols/allocator_finder.h"
#include "tests/kernel/support/child.h"
#include "tests/kernel/support/sampling.h"

namespace stackwatch {

/// The memory engine and the finder on the real kernel, wired as the daemon wires them.
struct LiveMemory {
  explicit LiveMemory(const MemoryLimits& limits = {}) {
    auto made = make_memory_engine(clock, limits);
    if (!made) throw std::runtime_error(made.error().message());
    engine = std::move(made->engine);
    control = made->control;
    AllocatorFinderOptions options;
    options.worker_program = our_program("stackwatch-symbols");
    auto maker = make_allocator_finder(clock, std::move(options));
    if (!maker) throw std::runtime_error(maker.error().message());
    finder = std::move(*maker);
  }

  /// What the daemon's loop does between ticks.
  void turn() {
    finder->dispatch();
    for (const AllocatorFunctions& functions : finder->take()) control->set_functions(functions);
    for (const Error& error : finder->take_events()) errors.push_back(error.message());
    for (const MemoryEvent& event : control->take_process_events()) errors.push_back(event.text.message());
    engine->drain();
  }

  [[nodiscard]] MemoryPhase phase(const ProcessKey& process) const {
    const auto state = control->state(process);
    return state ? state->phase : MemoryPhase::kWaiting;
  }

  [[nodiscard]] bool wait_for(const ProcessKey& process, MemoryPhase wanted, double seconds = 10) {
    for (double waited = 0; waited < seconds; waited += 0.01) {
      turn();
      if (phase(process) == wanted) return true;
      pass(0.01);
    }
    return false;
  }

  std::unique_ptr<Probe> attach_only(const ProcessKey& process, const ProbeOptions& options = {}) {
    auto probe = engine->make_probe(ProbeKind::kMemory);
    const auto attached = probe->attach(process, options);
    if (!attached) throw std::runtime_error(attached.error().message());
    finder->watch(process, process.pid);
    return probe;
  }

  /// Attached and counting.
  std::unique_ptr<Probe> attach(const ProcessKey& process, const ProbeOptions& options = {}) {
    auto probe = attach_only(process, options);
    if (!wait_for(process, MemoryPhase::kCounting)) {
      std::string all;
      for (const std::string& error : errors) all += error + "\n";
      throw std::runtime_error("not counting: " + all + (control->state(process) ? control->state(process)->note : ""));
    }
    return probe;
  }

  void read_into(Probe& probe, Counted& counted) {
    turn();
    const auto collected = engine->collect();
    if (!collected) throw std::runtime_error(collected.error().message());
    auto delta = probe.read();
    if (!delta) throw std::runtime_error(delta.error().message());
    counted.add(*delta);
  }

  SystemClock clock;
  std::unique_ptr<ProbeEngine> engine;
  MemoryControl* control = nullptr;
  std::unique_ptr<AllocatorFinder> finder;
  std::vector<std::string> errors;
};

}  // namespace stackwatch
