// SPDX-License-Identifier: Apache-2.0
#include "daemon/pipeline.h"

#include <utility>

namespace stackwatch {

Result<Pipeline::Outcome> Pipeline::tick() {
  auto batch = source_.next();
  if (!batch) return Failure(batch.error());
  Outcome outcome;
  if (!batch->has_value()) {
    outcome.ended = true;
    return outcome;
  }
  const std::vector<Observation> observations = detection_.observe(**batch, &source_);
  outcome.changed =
      policy_.tick((*batch)->time_s, observations, (*batch)->exits, (*batch)->replaced, (*batch)->realtime_offset_ns);
  for (const Alert& alert : outcome.changed) {
    for (Attached& attached : sinks_) {
      auto published = attached.sink->publish(alert);
      if (!published && std::exchange(attached.works, false)) outcome.sink_errors.push_back(published.error());
      if (published) attached.works = true;
    }
  }
  return outcome;
}

}  // namespace stackwatch
