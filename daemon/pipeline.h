// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/result.h"
#include "daemon/alerting/alert_policy.h"
#include "daemon/delta_source.h"
#include "daemon/detection.h"
#include "daemon/sink.h"

namespace stackwatch {

/// From deltas to alerts: source → detectors → policy → sinks. The same for live, recorded and made-up deltas.
class Pipeline {
 public:
  /// All parts outlive the pipeline.
  Pipeline(DeltaSource& source, Detection& detection, AlertPolicy& policy)
      : source_(source), detection_(detection), policy_(policy) {}
  /// `works` false: that it does not was told already.
  void add_sink(Sink& sink, bool works = true) { sinks_.push_back({&sink, works}); }

  struct Outcome {
    bool ended = false;              ///< the source has no more ticks
    std::vector<Alert> changed;      ///< alerts that began to fire or were resolved
    std::vector<Error> sink_errors;  ///< the first of each sink since it last worked: to be told once
  };
  [[nodiscard]] Result<Outcome> tick();

 private:
  struct Attached {
    Sink* sink;
    bool works;
  };
  DeltaSource& source_;
  Detection& detection_;
  AlertPolicy& policy_;
  std::vector<Attached> sinks_;
};

}  // namespace stackwatch
