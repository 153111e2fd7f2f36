// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "core/clock.h"
#include "daemon/alerting/journal_sink.h"
#include "daemon/sink.h"
#include "store/store.h"

namespace stackwatch {

/// Alerts to the journal, each at least once whatever happens in between: the intent is on the disk, then the entry is
/// written, then the disk knows that it was. What a kill leaves between two of these is written again, with the same
/// STACKWATCH_ALERT_ID, by the next daemon. Where the store does not store, entries go to the journal as they come;
/// where neither takes them they wait in memory for whichever is back first. publish() and tick() on the loop's thread.
class DurableJournal final : public Sink {
 public:
  /// A disk that takes longer must not keep an alert from people: it is told undurably then.
  static constexpr double kPatienceS = 5;
  /// What journald would not take is looked for so often, …
  static constexpr double kRetryS = 30;
  /// … so many at a time.
  static constexpr size_t kRetryRows = 100;
  /// Changes of alerts that wait in memory; of more the oldest are lost, which is told.
  static constexpr size_t kMaxUntold = 1000;

  /// `store`, `journal` and `clock` outlive it.
  DurableJournal(Store& store, JournalSink& journal, const Clock& clock);
  /// Gives the disk 2 s for what is on its way to it, then writes that to the journal as it is.
  ~DurableJournal() override;
  DurableJournal(const DurableJournal&) = delete;
  DurableJournal& operator=(const DurableJournal&) = delete;

  [[nodiscard]] std::string_view name() const override { return "journal"; }
  /// Error: there is no journal now. The alert is kept then and written when there is one.
  [[nodiscard]] Result<void> publish(const Alert& alert) override;
  /// Once per tick. The first one writes what earlier daemons left.
  void tick();
  /// What a person should know, each once.
  [[nodiscard]] std::optional<Error> take_event();

 private:
  struct State;
  void tell_untold();
  void read_outbox();

  Store& store_;
  JournalSink& journal_;
  const Clock& clock_;
  std::shared_ptr<State> state_;
  uint64_t read_at_ns_ = 0;
  uint64_t untold_at_ns_ = 0;
};

}  // namespace stackwatch
