// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/census.h"
#include "core/clock.h"
#include "core/probe.h"
#include "core/result.h"
#include "core/stacks.h"
#include "daemon/attachments.h"
#include "daemon/procfs.h"
#include "symbols/namer.h"

namespace stackwatch {

/// All that counting needs of the real machine, in the order in which each part needs the one before. One thread; not
/// to be moved.
struct Machine {
  Procfs procfs;
  FunctionTable functions;
  std::vector<std::unique_ptr<ProbeEngine>> engines;
  std::unique_ptr<Census> census;
  std::unique_ptr<StackNamer> namer;
  std::unique_ptr<Attachments> attachments;

  /// Errors: see make_engines().
  [[nodiscard]] Result<void> start(const std::vector<ProbeKind>& probes, AttachmentLimits limits, const Clock& clock);

  /// What is to be polled between two looks, and what is to be done then; the same entries in the same order.
  void add_to(std::vector<pollfd>& entries) const;
  void handle(std::span<const pollfd> entries);
};

/// One line on standard error.
void say(const std::string& text);
/// What the namer and the engines tell, each as a warning.
void say_events(Machine& machine);

}  // namespace stackwatch
