// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/stacks.h"
#include "symbols/namer.h"
#include "target_process.h"
#include "tests/fakes/fake_clock.h"

namespace stackwatch {

/// What the tests of a namer need: a table, a clock that stands still, and waiting for names without sleeping.
class NamerFixture : public ::testing::Test {
 protected:
  static RawStack user_stack(std::vector<uint64_t> leaf_first, ExecId exec = ExecId{1}) {
    return {exec, std::move(leaf_first), {}};
  }

  /// Dispatches until `done` or for 20 real seconds, which only a failure takes.
  static bool wait_until(StackNamer& namer, const std::function<bool()>& done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!done()) {
      if (std::chrono::steady_clock::now() > end) return false;
      pollfd ready{namer.fd(), POLLIN, 0};
      ::poll(&ready, 1, 100);
      namer.dispatch();
    }
    return true;
  }

  std::vector<std::string> names_of(const NamedStack& stack) const {
    std::vector<std::string> names;
    for (const FunctionId frame : stack.frames) names.push_back(functions[frame].name);
    return names;
  }

  /// The names of one stack, root first; empty where they do not come.
  std::vector<std::string> name(StackNamer& namer, pid_t pid, const RawStack& stack) {
    if (!namer.request(key_of(pid), pid, StackHash{++hashes}, stack)) return {};
    if (!wait_until(namer, [&] { return namer.pending() == 0; })) return {};
    const auto named = namer.take_named();
    if (named.size() != 1 || named[0].hash.value != hashes) return {};
    last_ = named[0];
    return names_of(named[0]);
  }

  FakeClock clock;
  FunctionTable functions;
  uint64_t hashes = 0;
  NamedStack last_;
};

}  // namespace stackwatch
