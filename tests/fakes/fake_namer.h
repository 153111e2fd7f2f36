// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "symbols/namer.h"

namespace stackwatch {

/// Names without a worker: the function at address 7 is called "f7", in the kernel "k7_[k]". Answers come when the test
/// lets them.
class FakeNamer final : public StackNamer {
 public:
  struct Call {
    std::string what;  ///< "learn", "request", "forget"
    ProcessKey process;
    bool operator==(const Call&) const = default;
  };

  explicit FakeNamer(FunctionTable& functions) : functions_(functions) {}

  // What the test says.
  void hold() { held_ = true; }  ///< no answers until release()
  void release() { held_ = false; }
  void never_name(StackHash stack) { nameless_.insert(stack.value); }
  void name_after_all(StackHash stack) { nameless_.erase(stack.value); }
  void refuse_next(int requests) { refusals_ = requests; }
  void tell(Error event) { events_.push_back(std::move(event)); }
  void set_worker(pid_t worker) { worker_ = worker; }
  [[nodiscard]] const std::vector<Call>& calls() const { return calls_; }
  [[nodiscard]] size_t requests(StackHash stack) const {
    const auto found = requests_.find(stack.value);
    return found == requests_.end() ? 0 : found->second;
  }
  /// Its mappings were read and not dropped since.
  [[nodiscard]] bool knows(const ProcessKey& process) const { return known_.contains(process); }
  [[nodiscard]] size_t known() const { return known_.size(); }

  // What the namer does.
  [[nodiscard]] int fd() const override { return -1; }
  void dispatch() override {}
  void learn(const ProcessKey& process, int32_t /*pid_in_ns*/, ExecId /*exec*/) override {
    calls_.push_back({"learn", process});
    known_.insert(process);
  }
  [[nodiscard]] bool request(const ProcessKey& process, int32_t /*pid_in_ns*/, StackHash hash,
                             const RawStack& stack) override {
    calls_.push_back({"request", process});
    ++requests_[hash.value];
    if (refusals_ > 0) {
      --refusals_;
      return false;
    }
    known_.insert(process);
    NamedStack named{process, hash, {}};
    for (auto at = stack.user_frames.rbegin(); at != stack.user_frames.rend(); ++at) {
      named.frames.push_back(functions_.intern("program", "f" + std::to_string(*at)));
    }
    for (auto at = stack.kernel_frames.rbegin(); at != stack.kernel_frames.rend(); ++at) {
      named.frames.push_back(functions_.intern("kernel", "k" + std::to_string(*at) + "_[k]"));
    }
    if (named.frames.empty()) named.frames.push_back(functions_.intern("", "[unknown]"));
    waiting_.push_back(std::move(named));
    return true;
  }
  void forget(const ProcessKey& process) override {
    calls_.push_back({"forget", process});
    known_.erase(process);
    std::erase_if(waiting_, [&process](const NamedStack& stack) { return stack.process == process; });
  }
  [[nodiscard]] std::vector<NamedStack> take_named() override {
    std::vector<NamedStack> named;
    if (held_) return named;
    std::vector<NamedStack> still;
    for (NamedStack& stack : waiting_) {
      (nameless_.contains(stack.hash.value) ? still : named).push_back(std::move(stack));
    }
    waiting_ = std::move(still);
    return named;
  }
  [[nodiscard]] std::vector<Error> take_events() override { return std::exchange(events_, {}); }
  [[nodiscard]] size_t pending() const override { return waiting_.size(); }
  [[nodiscard]] pid_t worker_pid() const override { return worker_; }
  [[nodiscard]] NamerStats stats() const override { return {}; }

 private:
  FunctionTable& functions_;
  std::vector<NamedStack> waiting_;
  std::set<ProcessKey> known_;
  std::set<uint64_t> nameless_;
  std::map<uint64_t, size_t> requests_;
  std::vector<Call> calls_;
  std::vector<Error> events_;
  pid_t worker_ = 0;
  int refusals_ = 0;
  bool held_ = false;
};

}  // namespace stackwatch
