// SPDX-License-Identifier: Apache-2.0
#include "bpf/unwind_writer.h"

#include <bpf/bpf.h>

#include <utility>
#include <vector>

namespace stackwatch {
namespace {

// Those that come (or those that go) in one call. Kernels before 5.14 know no such call for maps of maps. What cannot
// be written (no memory) stays as it was: mappings are read again, and a stale place is seen by its generation.
void write(int outer, int vacant, const std::map<uint32_t, UniqueFd>& places, bool coming) {
  std::vector<uint32_t> numbers;
  std::vector<int> maps;
  for (const auto& [number, map] : places) {
    if (static_cast<bool>(map) != coming) continue;
    numbers.push_back(number);
    maps.push_back(coming ? map.get() : vacant);
  }
  if (numbers.empty()) return;
  auto count = static_cast<uint32_t>(numbers.size());
  if (bpf_map_update_batch(outer, numbers.data(), maps.data(), &count, nullptr) == 0) return;
  for (size_t i = 0; i < numbers.size(); ++i) bpf_map_update_elem(outer, &numbers[i], &maps[i], BPF_ANY);
}

}  // namespace

UnwindWriter::UnwindWriter(Outer spaces, Outer tables)
    : spaces_{std::move(spaces), {}}, tables_{std::move(tables), {}}, thread_(1) {}

void UnwindWriter::put(Pending& pending, uint32_t place, UniqueFd map) {
  const std::lock_guard lock(mutex_);
  pending[place] = std::move(map);
  if (std::exchange(asked_, true)) return;
  thread_.push_always([this] { write_pending(); });
}

void UnwindWriter::write_pending() {
  Pending spaces;
  Pending tables;
  {
    const std::lock_guard lock(mutex_);
    asked_ = false;
    spaces.swap(spaces_.pending);
    tables.swap(tables_.pending);
  }
  write(tables_.outer.map.get(), tables_.outer.vacant.get(), tables, true);
  write(spaces_.outer.map.get(), spaces_.outer.vacant.get(), spaces, true);
  write(spaces_.outer.map.get(), spaces_.outer.vacant.get(), spaces, false);
  write(tables_.outer.map.get(), tables_.outer.vacant.get(), tables, false);
}

}  // namespace stackwatch
