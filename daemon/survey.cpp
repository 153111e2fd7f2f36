// SPDX-License-Identifier: Apache-2.0
#include "daemon/survey.h"

#include <algorithm>
#include <utility>

namespace stackwatch {

void Survey::configure(const SurveyConfig& config, size_t max_processes) {
  config_ = config;
  max_processes_ = max_processes;
}

std::vector<ProcessKey> Survey::choose(const std::vector<Ranked>& ranking) {
  std::vector<std::pair<double, ProcessKey>> candidates;  // weight, process
  if (config_.enabled) {
    for (const Ranked& ranked : ranking) {
      const double cores = ranked.past[static_cast<size_t>(Metric::kOnCpu)];
      const bool has_place = chosen_.contains(ranked.key);
      // Who was busy once stays while there is room: its past is worth keeping.
      if (!has_place && (ranked.age_s < kMinAgeS || cores < kMinCores)) continue;
      candidates.emplace_back(cores * (has_place ? kClearlyMore : 1), ranked.key);
    }
  }
  const auto more = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  const size_t places = std::min(max_processes_, candidates.size());
  std::ranges::partial_sort(candidates, candidates.begin() + static_cast<ptrdiff_t>(places), more);
  std::unordered_set<ProcessKey> now;
  std::vector<ProcessKey> fresh;
  for (size_t i = 0; i < places; ++i) {
    const ProcessKey& process = candidates[i].second;
    const bool is_new = !chosen_.contains(process);
    if (is_new && fresh.size() == kMaxNewPerTick) continue;  // next tick
    if (is_new) fresh.push_back(process);
    now.insert(process);
  }
  chosen_ = std::move(now);
  return fresh;
}

}  // namespace stackwatch
