// SPDX-License-Identifier: Apache-2.0
#include "daemon/process_list.h"

#include <algorithm>

namespace stackwatch {

void ProcessList::set(std::vector<ProcessSample> samples) {
  samples_ = std::move(samples);
  last_parent_ = {};
  tasks_ = 0;
  for (const ProcessSample& sample : samples_) tasks_ += sample.threads;
}

const ProcessSample* ProcessList::find(const ProcessKey& process) const {
  const ProcessSample* found = find_pid(process.pid);
  return found != nullptr && found->key == process ? found : nullptr;
}

const ProcessSample* ProcessList::find_pid_in_ns(int32_t pid_in_ns) const {
  const auto found = std::ranges::find(samples_, pid_in_ns, &ProcessSample::pid_in_ns);
  return found != samples_.end() ? &*found : nullptr;
}

// Brothers follow each other.
const ProcessSample* ProcessList::parent_of(const ProcessSample& sample) {
  if (last_parent_.first != sample.parent_pid) last_parent_ = {sample.parent_pid, find_pid(sample.parent_pid)};
  return last_parent_.second;
}

const ProcessSample* ProcessList::find_pid(int32_t pid) const {
  const auto found =
      std::ranges::lower_bound(samples_, pid, {}, [](const ProcessSample& each) { return each.key.pid; });
  return found != samples_.end() && found->key.pid == pid ? &*found : nullptr;
}

}  // namespace stackwatch
