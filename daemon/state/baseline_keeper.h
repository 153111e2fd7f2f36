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
/// Detection::baselines(). What ended processes leave goes there at once, what is known of those that run goes there in
/// rounds. Writes what has changed only. The loop's thread.
class BaselineKeeper {
 public:
  /// From round to round. What a crash may cost is so much of learning: a twelfth of the half-life of an hour that
  /// `composition` forgets with by default. Each round writes nearly all of it, since what runs goes on learning: some
  /// 5 kB for each service, which for a hundred services is 150 MB a day. (A clean end writes everything.)
  static constexpr double kRoundS = 300;
  /// Processes saved in one tick: the largest baselines, of 1024 stacks and as many functions, take 0.5 ms each.
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
  void begin_round();
  void keep_some();
  void remove_shared();
  void write_changed();
  bool write(const std::string& service, std::vector<const Baselines::Entries::value_type*>& entries);

  Detection& detection_;
  BaselineStore& store_;
  const Clock& clock_;
  std::vector<ProcessKey> round_;  // still to be saved in this round
  uint64_t round_at_ns_;
  uint64_t written_age_ = 0;                         // baselines put before this were written, …
  bool dropped_ = false;                             // … but for some that the store would not take
  std::unordered_map<std::string, size_t> written_;  // hash of what the store has, by service
  uint64_t shares_seen_ = 0;
  std::unordered_set<std::string> removed_;  // shared services that the store has nothing of
  std::optional<Error> unreadable_;
  bool told_ = false;
};

}  // namespace stackwatch
