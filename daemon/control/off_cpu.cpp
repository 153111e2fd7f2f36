// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/off_cpu.h"

#include <algorithm>
#include <map>
#include <utility>

namespace stackwatch {
namespace {

using Row = StacksReport::Row;

// Both have as many steps, or none where nothing was counted.
void add_row(Row& sum, const Row& row) {
  sum.value += row.value;
  sum.series.resize(std::max(sum.series.size(), row.series.size()));
  for (size_t i = 0; i < row.series.size(); ++i) sum.series[i] += row.series[i];
}

}  // namespace

StacksReport off_cpu_report(StacksReport blocked, StacksReport run_queue) {
  std::map<std::vector<std::string>, size_t> index;
  for (size_t i = 0; i < blocked.rows.size(); ++i) index.emplace(blocked.rows[i].frames, i);
  for (Row& row : run_queue.rows) {
    const auto [place, is_new] = index.try_emplace(row.frames, blocked.rows.size());
    if (is_new) {
      blocked.rows.push_back(std::move(row));
    } else {
      add_row(blocked.rows[place->second], row);
    }
  }
  std::ranges::sort(blocked.rows, [](const Row& a, const Row& b) {
    return a.value != b.value ? a.value > b.value : a.frames < b.frames;
  });
  // The second was asked for some microseconds later.
  blocked.window_s = std::min(blocked.window_s, run_queue.window_s);
  blocked.step_s = std::min(blocked.step_s, run_queue.step_s);
  blocked.waits = StacksReport::Waits{run_queue.total};
  blocked.total += run_queue.total;
  blocked.lost += run_queue.lost;
  return blocked;
}

}  // namespace stackwatch
