// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/clock.h"
#include "core/process.h"
#include "core/result.h"
#include "daemon/detection.h"
#include "store/baseline_store.h"

namespace stackwatch {

/// Keeps what the detectors have learned over restarts of the daemon: the store has, by service, a copy of
/// Detection::baselines(). What ended processes leave goes there at once, what is known of those that run the more
/// seldom the more is known. Writes what has changed only. The loop's thread.
class BaselineKeeper {
 public:
  /// What a crash or a power cut costs of a process: what was learned in the last 10 s (with the tick and the commit
  /// that follow), or a 32nd of all that was learned of it and 5 minutes at most, a twelfth of the half-life of an hour
  /// that `composition` forgets with by default. Saving all every 10 s would be 23 GB a day for 32 interpreters, whose
  /// baselines have 37 kB: docs/reliability.md.
  static constexpr uint64_t kSaveS = 8;
  static constexpr uint64_t kSavePart = 32;
  static constexpr uint64_t kSaveAtMostS = 300;
  /// Processes saved in one tick, or more where all that are due would not be in time.
  static constexpr size_t kPerTick = 8;
  /// Services that it knows the store's bytes of: twice as many as the store has.
  static constexpr size_t kMaxWritten = 4096;

  /// All outlive it.
  BaselineKeeper(Detection& detection, BaselineStore& store, const Clock& clock);

  /// What the store had at the start, the one written last first. An entry that cannot be read is left out.
  void load(const std::vector<Baseline>& newest_first);
  /// Once per tick.
  void tick();
  /// At the end: everything that was learned.
  void save_all();
  /// The store may lack what it was given: all is written again.
  void forget_written();
  /// What a person should know, at most once.
  [[nodiscard]] std::optional<Error> take_event();

 private:
  void keep_due();
  void remove_shared();
  void write_changed();
  bool write(const std::string& service, std::vector<const Baselines::Entries::value_type*>& entries);

  Detection& detection_;
  BaselineStore& store_;
  const Clock& clock_;
  struct Saving {
    uint64_t since_ns = 0;  // what was learned before is not known here
    uint64_t saved_ns = 0;
  };
  std::unordered_map<ProcessKey, Saving> saving_;
  uint64_t retry_at_ns_ = 0;
  uint64_t written_age_ = 0;                         // baselines put before this were written, …
  bool dropped_ = false;                             // … but for some that the store would not take
  std::unordered_map<std::string, size_t> written_;  // hash of what the store has, by service
  uint64_t shares_seen_ = 0;
  std::unordered_set<std::string> removed_;  // shared services that the store has nothing of
  std::optional<Error> unreadable_;
  bool told_ = false;
};

}  // namespace stackwatch
