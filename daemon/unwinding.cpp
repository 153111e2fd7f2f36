// SPDX-License-Identifier: Apache-2.0
#include "daemon/unwinding.h"

#include <poll.h>

#include <utility>

#include "core/unique_fd.h"

namespace stackwatch {

Result<std::shared_ptr<Unwinding>> Unwinding::create(const Clock& clock) {
  auto maps = UnwindMaps::create();
  if (!maps) return Failure(maps.error());
  auto finder = make_unwind_finder(clock);
  if (!finder) return Failure(finder.error());
  return std::shared_ptr<Unwinding>(new Unwinding(std::move(*maps), std::move(*finder)));
}

void Unwinding::dispatch() {
  for (const ProcessKey& process : maps_->take_released()) finder_->forget(process);
  for (const UnwindMaps::Wanted& wanted : maps_->take_wanted()) {
    finder_->watch(wanted.process, wanted.pid_in_ns, wanted.exec);
  }
  finder_->dispatch();
  UnwindFinder::Found found = finder_->take();
  for (UnwindFinder::FoundTable& table : found.tables) load(std::move(table));
  for (const UnwindFinder::Space& space : found.spaces) {
    std::vector<UnwindMapping> mappings;
    mappings.reserve(space.mappings.size());
    for (const UnwindFinder::Mapping& mapping : space.mappings) mappings.push_back(place(mapping));
    auto set = maps_->set_space(space.process, space.exec, mappings, space.code_bytes);
    if (!set) events_.push_back(set.error());
  }
  for (const uint32_t file : found.dropped) {
    const auto known = tables_.find(file);
    if (known == tables_.end()) continue;
    if (known->second.loaded) maps_->drop_table(known->second.number);
    tables_.erase(known);
  }
}

void Unwinding::load(UnwindFinder::FoundTable found) {
  Table& table = tables_[found.file];
  if (found.table.segments.empty() || found.table.rows.empty()) return;
  auto number = maps_->add_table(found.table.rows);
  if (!number) {
    table.refused = true;
    if (!std::exchange(told_full_, true)) events_.push_back(number.error());
    return;
  }
  table = {true, false, *number, std::move(found.table.segments)};
}

// Which address of the object is at the start of the mapping is told by the segment that the mapping shows.
UnwindMapping Unwinding::place(const UnwindFinder::Mapping& mapping) const {
  UnwindMapping placed{mapping.start, mapping.end, 0, 0, UnwindMapping::Kind::kByFrame};
  if (!mapping.settled) placed.kind = UnwindMapping::Kind::kPending;
  const auto known = tables_.find(mapping.file);
  if (mapping.file == UnwindFinder::kNoFile || known == tables_.end()) return placed;
  if (known->second.refused) placed.kind = UnwindMapping::Kind::kPending;
  if (!known->second.loaded) return placed;
  static constexpr uint64_t kPage = 4096;
  for (const UnwindSegment& segment : known->second.segments) {
    const uint64_t first_page = segment.offset - segment.offset % kPage;
    if (mapping.file_offset < first_page || mapping.file_offset >= segment.offset + segment.bytes) continue;
    placed.kind = UnwindMapping::Kind::kByTable;
    placed.table = known->second.number;
    placed.base = mapping.start - mapping.file_offset + segment.offset - segment.vaddr;
    return placed;
  }
  return placed;
}

std::vector<Error> Unwinding::take_events() {
  std::vector<Error> events = finder_->take_events();
  for (Error& event : events_) events.push_back(std::move(event));
  events_.clear();
  return events;
}

namespace {

class UnwindingEngine final : public ProbeEngine {
 public:
  UnwindingEngine(const Clock& clock, std::unique_ptr<ProbeEngine> inner, std::shared_ptr<Unwinding> unwinding)
      : clock_(clock), inner_(std::move(inner)), unwinding_(std::move(unwinding)) {}

  [[nodiscard]] std::span<const ProbeKind> kinds() const override { return inner_->kinds(); }
  [[nodiscard]] std::unique_ptr<Probe> make_probe(ProbeKind kind) override { return inner_->make_probe(kind); }
  [[nodiscard]] Result<void> prepare() override { return inner_->prepare(); }
  [[nodiscard]] bool load_beside() override { return inner_->load_beside(); }
  [[nodiscard]] int poll_fd() const override { return inner_->poll_fd(); }
  void drain() override {
    unwinding_->dispatch();
    inner_->drain();
  }
  [[nodiscard]] Result<void> collect() override {
    auto collected = inner_->collect();
    unwinding_->dispatch();
    return collected;
  }
  [[nodiscard]] std::vector<Adopted> take_adopted() override { return inner_->take_adopted(); }
  void forget(const ProcessKey& process) override { inner_->forget(process); }
  [[nodiscard]] Cost cost() const override {
    Cost cost = inner_->cost();
    cost.map_bytes += unwinding_->maps()->map_bytes();
    return cost;
  }
  [[nodiscard]] bool wants_restart() const override { return inner_->wants_restart(); }
  [[nodiscard]] std::vector<Error> take_events() override {
    std::vector<Error> events = inner_->take_events();
    for (Error& event : unwinding_->take_events()) events.push_back(std::move(event));
    return events;
  }
  [[nodiscard]] std::string note(const ProcessKey& process) const override { return inner_->note(process); }

  void wait_until_counting(double seconds) override {
    const uint64_t end_ns = clock_.monotonic_ns() + static_cast<uint64_t>(seconds * 1e9);
    for (unwinding_->dispatch(); unwinding_->pending() > 0 && clock_.monotonic_ns() < end_ns; unwinding_->dispatch()) {
      constexpr int kPatienceMs = 50;  // restarts of the worker are seen in dispatch() alone
      pollfd found{unwinding_->fd(), POLLIN, 0};
      static_cast<void>(::poll(&found, 1, kPatienceMs));
    }
    unwinding_->maps()->wait_until_written();
    inner_->wait_until_counting(seconds);
  }

 private:
  const Clock& clock_;
  std::unique_ptr<ProbeEngine> inner_;
  std::shared_ptr<Unwinding> unwinding_;
};

}  // namespace

std::unique_ptr<ProbeEngine> make_unwinding_engine(const Clock& clock, std::unique_ptr<ProbeEngine> inner,
                                                   std::shared_ptr<Unwinding> unwinding) {
  return std::make_unique<UnwindingEngine>(clock, std::move(inner), std::move(unwinding));
}

}  // namespace stackwatch
