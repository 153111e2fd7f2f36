// SPDX-License-Identifier: Apache-2.0
#include "cli/machine.h"

#include <unistd.h>

#include "bpf/bpf_census.h"
#include "cli/output.h"
#include "cli/probe_table.h"
#include "cli/text.h"
#include "daemon/proc_census.h"

namespace stackwatch {

Result<void> Machine::start(const std::vector<ProbeKind>& probes, AttachmentLimits limits, const Clock& clock) {
  auto made = make_engines(probes, clock);
  if (!made) return Failure(made.error());
  engines = std::move(*made);
  auto iterator = make_bpf_census([this](int32_t pid) { return procfs.cgroup(pid); });
  census = iterator ? std::move(*iterator) : make_proc_census(procfs);
  auto names = make_namer(functions, clock);
  if (!names) return Failure(names.error());
  namer = std::move(*names);
  Attachments::Engines all;
  for (const auto& engine : engines) all.push_back(engine.get());
  attachments = std::make_unique<Attachments>(std::move(all), *namer, functions, clock, limits);
  return {};
}

void Machine::add_to(std::vector<pollfd>& entries) const {
  entries.push_back({namer->fd(), POLLIN, 0});
  for (const auto& engine : engines) entries.push_back({engine->poll_fd(), POLLIN, 0});
}

void Machine::handle(std::span<const pollfd> entries) {
  if (entries[0].revents != 0) namer->dispatch();
  for (size_t i = 0; i < engines.size(); ++i) {
    if (entries[1 + i].revents != 0) engines[i]->drain();
  }
}

void say(const std::string& text) {
  static_cast<void>(!write_output(STDERR_FILENO, "stackwatch: " + safe_text(text) + "\n"));
}

void say_events(Machine& machine) {
  for (const Error& event : machine.namer->take_events()) say("warning: " + event.message());
  for (const auto& engine : machine.engines) {
    for (const Error& event : engine->take_events()) say("warning: " + event.message());
  }
}

}  // namespace stackwatch
