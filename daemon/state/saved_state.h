// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/clock.h"
#include "core/process.h"
#include "core/result.h"
#include "daemon/alerting/alert_policy.h"
#include "daemon/alerting/journal_sink.h"
#include "daemon/detection.h"
#include "daemon/procfs.h"
#include "daemon/sink.h"
#include "store/store.h"

namespace stackwatch {

class BaselineKeeper;
class DurableJournal;

/// What the daemon keeps over its own restarts, and what it does about it in a tick. The loop's thread.
class SavedState {
 public:
  /// A power cut takes at most so much of how an alert stood.
  static constexpr double kSaveS = 10;

  struct Parts {
    const Clock& clock;
    AlertPolicy& policy;
    Detection& detection;
    JournalSink& journal;
    Procfs procfs;
  };
  /// Opens the store (problems are events, not errors), gives alerts of earlier runs to the policy and what they had
  /// learned to the detection. Error: no thread.
  [[nodiscard]] static Result<std::unique_ptr<SavedState>> open(const std::string& directory,
                                                                const LimitsConfig& limits, Parts parts);
  ~SavedState();

  /// Where alerts go on their way to the journal. Valid as long as this.
  [[nodiscard]] Sink& sink();
  /// Processes of alerts that stand from earlier runs, in this boot.
  [[nodiscard]] const std::vector<ProcessKey>& to_watch_again() const { return to_watch_again_; }
  [[nodiscard]] Store& store() { return *store_; }
  /// Once per tick, after the pipeline's.
  void tick();
  /// What a person should know, each once.
  [[nodiscard]] std::vector<Error> take_events();
  void configure(const LimitsConfig& limits);

 private:
  SavedState(Parts parts, std::unique_ptr<Store> store);
  void restore();
  void watch_again(const Alert& alert);
  void put(const std::vector<Alert>& alerts);

  Parts parts_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<DurableJournal> durable_;  // before the store at the end
  std::unique_ptr<BaselineKeeper> baselines_;
  std::vector<ProcessKey> to_watch_again_;
  uint64_t save_at_ns_ = 0;
};

/// Which boot of the machine this is; empty where the kernel does not tell.
[[nodiscard]] std::string boot_id_of(const Procfs& procfs);

}  // namespace stackwatch
