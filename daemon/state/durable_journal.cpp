// SPDX-License-Identifier: Apache-2.0
#include "daemon/state/durable_journal.h"

#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "daemon/state/alert_from_json.h"

namespace stackwatch {
namespace {

/// Told between two looks into the outbox, which is 30 s; of more, some may be told twice, with the same id.
constexpr size_t kMaxTold = 1000;

}  // namespace

/// What the loop's, the store's and the journal's thread share; outlives whichever ends first.
struct DurableJournal::State : std::enable_shared_from_this<State> {
  struct Waiting {
    Alert alert;
    uint64_t until_ns = 0;
  };

  std::mutex mutex;
  JournalSink* journal = nullptr;          // null at the end
  std::function<void(int64_t)> mark_told;  // outlives the store
  std::map<uint64_t, Waiting> waiting;     // for the disk, in order; bounded by the store's queue
  std::set<int64_t> on_the_way;            // sequences that the journal has and has not written
  std::set<int64_t> told;                  // since the outbox was last read: those rows may still have them
  std::deque<Alert> untold;                // that neither disk nor journal took
  uint64_t lost = 0;                       // of them, since it was told last
  uint64_t tickets = 0;

  void stored(uint64_t ticket, std::optional<int64_t> sequence);
  void found(const std::vector<OutboxRow>& rows);
  void write(const Alert& alert, int64_t sequence);
  Result<void> write_or_keep(const Alert& alert);
  void keep(const Alert& alert);
  void written(int64_t sequence, bool sent);
};

// Nobody waits for it any more where it took too long: the next look into the outbox finds it then.
void DurableJournal::State::stored(uint64_t ticket, std::optional<int64_t> sequence) {
  const std::lock_guard lock(mutex);
  const auto found = waiting.find(ticket);
  if (found == waiting.end()) return;
  const Alert alert = std::move(found->second.alert);
  waiting.erase(found);
  if (journal == nullptr) return;
  if (sequence) {
    write(alert, *sequence);
  } else {
    static_cast<void>(write_or_keep(alert));
  }
}

// With the mutex held.
Result<void> DurableJournal::State::write_or_keep(const Alert& alert) {
  auto taken = journal->publish(alert, [self = shared_from_this(), alert](bool sent) {
    if (sent) return;
    const std::lock_guard lock(self->mutex);
    self->keep(alert);
  });
  if (!taken) keep(alert);
  return taken;
}

// With the mutex held.
void DurableJournal::State::keep(const Alert& alert) {
  if (untold.size() >= kMaxUntold) {
    untold.pop_front();
    ++lost;
  }
  untold.push_back(alert);
}

void DurableJournal::State::found(const std::vector<OutboxRow>& rows) {
  const std::lock_guard lock(mutex);
  if (journal == nullptr) return;
  for (const OutboxRow& row : rows) {
    if (on_the_way.contains(row.sequence) || told.contains(row.sequence)) continue;
    auto alert = alert_from_json(row.alert.evidence);
    if (alert) {
      alert->set_keys(row.alert.process);
      write(*alert, row.sequence);
    } else {
      mark_told(row.sequence);  // nobody will ever be able to tell it
    }
  }
  told.clear();  // their marks are before the next look
}

// With the mutex held.
void DurableJournal::State::write(const Alert& alert, int64_t sequence) {
  on_the_way.insert(sequence);
  const auto done = [self = shared_from_this(), sequence](bool sent) { self->written(sequence, sent); };
  if (!journal->publish(alert, done)) on_the_way.erase(sequence);
}

void DurableJournal::State::written(int64_t sequence, bool sent) {
  {
    const std::lock_guard lock(mutex);
    on_the_way.erase(sequence);
    if (told.size() >= kMaxTold) told.clear();
    if (sent) told.insert(sequence);
  }
  if (sent) mark_told(sequence);
}

DurableJournal::DurableJournal(Store& store, JournalSink& journal, const Clock& clock)
    : store_(store), journal_(journal), clock_(clock), state_(std::make_shared<State>()) {
  state_->journal = &journal;
  state_->mark_told = store.marker();
}

DurableJournal::~DurableJournal() {
  constexpr double kLastWordsS = 2;
  static_cast<void>(store_.flush(kLastWordsS));
  const std::lock_guard lock(state_->mutex);
  for (const auto& [ticket, waiting] : state_->waiting) static_cast<void>(journal_.publish(waiting.alert));
  state_->waiting.clear();
  state_->journal = nullptr;
}

Result<void> DurableJournal::publish(const Alert& alert) {
  uint64_t ticket = 0;
  {
    const std::lock_guard lock(state_->mutex);
    ticket = state_->tickets++;
    state_->waiting[ticket] = {alert, clock_.monotonic_ns() + static_cast<uint64_t>(kPatienceS * 1e9)};
  }
  const auto then = [state = state_, ticket](std::optional<int64_t> sequence) { state->stored(ticket, sequence); };
  if (store_.put_to_tell(alert, then)) {
    if (journal_.available()) return {};
    return fail(ErrorKind::kUnsupported, "write alert " + alert.id + " to the journal", "there is no journal",
                "it is kept and written when there is one");
  }
  const std::lock_guard lock(state_->mutex);
  state_->waiting.erase(ticket);
  return state_->write_or_keep(alert);
}

void DurableJournal::tick() {
  const uint64_t now_ns = clock_.monotonic_ns();
  {
    const std::lock_guard lock(state_->mutex);
    for (auto it = state_->waiting.begin(); it != state_->waiting.end() && it->second.until_ns <= now_ns;) {
      static_cast<void>(journal_.publish(it->second.alert));
      it = state_->waiting.erase(it);
    }
  }
  if (now_ns >= untold_at_ns_ && (journal_.available() || store_.storing())) {
    untold_at_ns_ = now_ns + static_cast<uint64_t>(kPatienceS * 1e9);
    tell_untold();
  }
  if (now_ns < read_at_ns_ || !journal_.available()) return;
  read_at_ns_ = now_ns + static_cast<uint64_t>(kRetryS * 1e9);
  read_outbox();
}

// What is refused again is kept again.
void DurableJournal::tell_untold() {
  std::deque<Alert> untold;
  {
    const std::lock_guard lock(state_->mutex);
    untold.swap(state_->untold);
  }
  for (const Alert& alert : untold) static_cast<void>(publish(alert));
}

std::optional<Error> DurableJournal::take_event() {
  const std::lock_guard lock(state_->mutex);
  const uint64_t lost = std::exchange(state_->lost, 0);
  if (lost == 0) return std::nullopt;
  return Error{ErrorKind::kFailed, "tell " + std::to_string(lost) + " changes of alerts",
               "there is neither a journal nor a state file, and " + std::to_string(kMaxUntold) + " newer ones wait",
               "`stackwatch alerts` shows the alerts"};
}

void DurableJournal::read_outbox() {
  static_cast<void>(
      store_.read_outbox(0, kRetryRows, [state = state_](const std::vector<OutboxRow>& rows) { state->found(rows); }));
}

}  // namespace stackwatch
