// SPDX-License-Identifier: Apache-2.0
#include "bpf/uprobe_check.h"

#include "bpf/uprobe_links.h"

namespace stackwatch {

Result<UprobeCheck> check_uprobes(const Clock& clock) {
  const auto trial = try_uprobes(clock);
  if (!trial) return Failure(trial.error());
  return UprobeCheck{trial->way == UprobeWay::kMulti, trial->entry_ns};
}

}  // namespace stackwatch
