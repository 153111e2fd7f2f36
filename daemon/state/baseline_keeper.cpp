// SPDX-License-Identifier: Apache-2.0
#include "daemon/state/baseline_keeper.h"

#include <algorithm>
#include <functional>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>

#include "daemon/state/baseline_blob.h"

namespace stackwatch {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

size_t hash_of(std::span<const std::byte> blob) {
  return std::hash<std::string_view>{}({reinterpret_cast<const char*>(blob.data()), blob.size()});
}

Result<std::vector<LearnedPart>> parts_of(const Baseline& baseline) {
  if (baseline.version != kBaselineBlobVersion) {
    return fail("a stored baseline", "another version of stackwatchd wrote it", "it is learned anew");
  }
  return decode_learned(baseline.blob);
}

Error unreadable(size_t services, const std::string& why) {
  return {ErrorKind::kFailed, "use the stored baselines of " + std::to_string(services) + " services", why,
          "they are learned anew"};
}

}  // namespace

BaselineKeeper::BaselineKeeper(Detection& detection, BaselineStore& store, const Clock& clock)
    : detection_(detection), store_(store), clock_(clock) {}

// The oldest first: it is the first to go where all is too much.
void BaselineKeeper::load(const std::vector<Baseline>& newest_first) {
  size_t broken = 0;
  std::string why;
  for (auto next = newest_first.rbegin(); next != newest_first.rend(); ++next) {
    const Baseline& baseline = *next;
    const auto parts = parts_of(baseline);
    if (!parts) {
      ++broken;
      why = parts.error().why;
      continue;
    }
    for (const LearnedPart& part : *parts) {
      detection_.baselines().put({baseline.service, part.probe, std::string(part.detector)}, std::string(part.saved));
    }
    if (written_.size() < kMaxWritten) written_[baseline.service] = hash_of(baseline.blob);
  }
  written_age_ = detection_.baselines().next_age();
  if (broken > 0) unreadable_ = unreadable(broken, why);
}

void BaselineKeeper::tick() {
  if (!store_.storing()) return;
  remove_shared();
  keep_due();
  write_changed();
}

// The longest overdue first.
void BaselineKeeper::keep_due() {
  const uint64_t now_ns = clock_.monotonic_ns();
  std::vector<std::pair<uint64_t, ProcessKey>> due;
  decltype(saving_) saving;
  for (const ProcessKey& process : detection_.watched()) {
    const auto known = saving_.find(process);
    const Saving& of = saving[process] = known == saving_.end() ? Saving{now_ns, now_ns} : known->second;
    const uint64_t pause_ns =
        std::clamp((of.saved_ns - of.since_ns) / kSavePart, kSaveS * kSecond, kSaveAtMostS * kSecond);
    if (known == saving_.end() || now_ns >= of.saved_ns + pause_ns) due.emplace_back(of.saved_ns + pause_ns, process);
  }
  saving_ = std::move(saving);
  const size_t at_once = std::max(kPerTick, saving_.size() / kSaveS + 1);
  std::ranges::sort(due, {}, &decltype(due)::value_type::first);
  for (size_t i = 0; i < std::min(at_once, due.size()); ++i) {
    detection_.keep(due[i].second);
    saving_[due[i].second].saved_ns = now_ns;
  }
  if (!dropped_ || now_ns < retry_at_ns_) return;
  dropped_ = false;
  written_age_ = 0;
  retry_at_ns_ = now_ns + kSaveS * kSecond;
}

// In the same steps as in ticks: of more baselines than there is room for in memory, each is written before it goes.
void BaselineKeeper::save_all() {
  if (!store_.storing()) return;
  remove_shared();
  if (std::exchange(dropped_, false)) written_age_ = 0;
  size_t kept = 0;
  for (const ProcessKey& process : detection_.watched()) {
    detection_.keep(process);
    if (++kept % kPerTick == 0) write_changed();
  }
  write_changed();
}

void BaselineKeeper::forget_written() {
  written_.clear();
  written_age_ = 0;
  removed_.clear();
  shares_seen_ = 0;
}

// Or the first of several processes would inherit at the next start, before the others are seen.
void BaselineKeeper::remove_shared() {
  const Baselines& baselines = detection_.baselines();
  if (baselines.shares() == shares_seen_) return;
  if (removed_.size() >= Baselines::kMaxShared) removed_.clear();
  for (const std::string& service : baselines.shared()) {
    if (removed_.contains(service)) continue;
    if (!store_.remove(service)) return;  // the queue is full: at the next tick
    removed_.insert(service);
    written_.erase(service);
  }
  shares_seen_ = baselines.shares();
}

void BaselineKeeper::write_changed() {
  const Baselines& baselines = detection_.baselines();
  if (baselines.next_age() == written_age_) return;
  std::unordered_map<std::string_view, std::vector<const Baselines::Entries::value_type*>> changed;
  for (const auto& [key, entry] : baselines.all()) {
    if (entry.age >= written_age_) changed.try_emplace(key.service);
  }
  for (const auto& each : baselines.all()) {
    if (const auto of = changed.find(each.first.service); of != changed.end()) of->second.push_back(&each);
  }
  for (auto& [service, entries] : changed) {
    if (!write(std::string(service), entries)) dropped_ = true;
  }
  written_age_ = baselines.next_age();
}

bool BaselineKeeper::write(const std::string& service, std::vector<const Baselines::Entries::value_type*>& entries) {
  std::ranges::sort(entries, {}, [](const auto* each) { return std::tie(each->first.probe, each->first.detector); });
  std::vector<LearnedPart> parts;
  for (const auto* each : entries) parts.push_back({each->first.probe, each->first.detector, each->second.saved});
  auto blob = encode_learned(parts);
  const size_t hash = hash_of(blob);
  if (const auto known = written_.find(service); known != written_.end() && known->second == hash) return true;
  if (!store_.put(Baseline{service, kBaselineBlobVersion, clock_.realtime_ns(), std::move(blob)})) return false;
  if (written_.size() >= kMaxWritten) written_.clear();  // all is written once more
  written_[service] = hash;
  return true;
}

std::optional<Error> BaselineKeeper::take_event() {
  if (!unreadable_ && detection_.refused() > 0) {
    unreadable_ = unreadable(detection_.refused(), "another version of stackwatchd wrote them, or they are damaged");
  }
  if (!unreadable_ || std::exchange(told_, true)) return std::nullopt;
  return unreadable_;
}

}  // namespace stackwatch
