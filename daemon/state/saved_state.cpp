// SPDX-License-Identifier: Apache-2.0
#include "daemon/state/saved_state.h"

#include <unordered_set>
#include <utility>

#include "daemon/control/json.h"
#include "daemon/state/alert_from_json.h"
#include "daemon/state/baseline_keeper.h"
#include "daemon/state/durable_journal.h"

namespace stackwatch {

std::string boot_id_of(const Procfs& procfs) {
  constexpr size_t kLength = 36;  // of a UUID's text
  return read_small_file(procfs.root() + "/sys/kernel/random/boot_id", kLength).value_or("");
}

Result<std::unique_ptr<SavedState>> SavedState::open(const std::string& directory, const LimitsConfig& limits,
                                                     Parts parts) {
  StoreOptions options;
  options.directory = directory;
  options.bounds.bytes = limits.disk_bytes;
  options.baseline_bytes_at_start = Baselines::kMaxBytes;
  options.boot_id = boot_id_of(parts.procfs);
  options.to_json = [](const Alert& alert) { return alert_to_json(alert); };
  auto store = Store::open(std::move(options), parts.clock);
  if (!store) return Failure(store.error());
  std::unique_ptr<SavedState> state(new SavedState(std::move(parts), std::move(*store)));
  state->restore();
  state->baselines_->load(state->store_->take_baselines());
  return state;
}

SavedState::SavedState(Parts parts, std::unique_ptr<Store> store)
    : parts_(std::move(parts)),
      store_(std::move(store)),
      durable_(std::make_unique<DurableJournal>(*store_, parts_.journal, parts_.clock)),
      baselines_(std::make_unique<BaselineKeeper>(parts_.detection, *store_, parts_.clock)) {}

// In this order nothing that was told is told again: intents to the disk, entries to journald, marks to the disk. What
// was learned comes after what must not be lost.
SavedState::~SavedState() {
  constexpr double kLastWordsS = 2;
  put(parts_.policy.standing());  // who joined one since it was written last
  durable_.reset();
  static_cast<void>(parts_.journal.flush(kLastWordsS));
  baselines_->save_all();
}

Sink& SavedState::sink() { return *durable_; }

void SavedState::restore() {
  const std::string boot_id = boot_id_of(parts_.procfs);
  std::vector<Alert> alerts;
  std::unordered_set<std::string> of_other_boots;
  for (const StoredAlert& stored : store_->take_alerts()) {
    auto alert = alert_from_json(stored.evidence);
    if (!alert) continue;  // a row that no version of ours wrote
    alert->set_keys(stored.process);
    const bool this_boot = !boot_id.empty() && stored.boot_id == boot_id;
    if (!this_boot) of_other_boots.insert(alert->id);
    if (alert->is_firing() && this_boot) watch_again(*alert);
    alerts.push_back(std::move(*alert));
  }
  const uint64_t now_ns = parts_.clock.monotonic_ns();
  const auto offset_ns = static_cast<int64_t>(parts_.clock.realtime_ns() - now_ns);
  parts_.policy.restore(
      alerts, [&](const Alert& alert) { return !of_other_boots.contains(alert.id); },
      static_cast<double>(now_ns) * 1e-9, offset_ns);
}

void SavedState::watch_again(const Alert& alert) {
  to_watch_again_.push_back(alert.process.key);
  for (const Alert::Member& member : alert.processes) {
    const ProcessKey& key = member.process.key;
    if (member.stands && key.pid > 0 && key != alert.process.key) to_watch_again_.push_back(key);
  }
}

void SavedState::tick() {
  durable_->tick();
  const uint64_t now_ns = parts_.clock.monotonic_ns();
  const bool resumed = store_->take_resumed();
  if (resumed) baselines_->forget_written();
  baselines_->tick();
  if (!resumed && now_ns < save_at_ns_) return;
  save_at_ns_ = now_ns + static_cast<uint64_t>(kSaveS * 1e9);
  // After a time without storing all that is known, else how those that stand do now. A dropped one comes again.
  put(resumed ? parts_.policy.all() : parts_.policy.standing());
}

void SavedState::put(const std::vector<Alert>& alerts) {
  for (const Alert& alert : alerts) {
    if (alert.state != AlertState::kPending) static_cast<void>(store_->put(alert));
  }
}

std::vector<Error> SavedState::take_events() {
  std::vector<Error> events = store_->take_events();
  if (auto event = baselines_->take_event()) events.push_back(std::move(*event));
  if (auto event = durable_->take_event()) events.push_back(std::move(*event));
  return events;
}

void SavedState::configure(const LimitsConfig& limits) { store_->set_limit(limits.disk_bytes); }

}  // namespace stackwatch
