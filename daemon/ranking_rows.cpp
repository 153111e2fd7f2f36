// SPDX-License-Identifier: Apache-2.0
#include "daemon/ranking_rows.h"

#include <algorithm>
#include <tuple>

#include "daemon/process_identity.h"

namespace stackwatch {
namespace {

RankingRow row_of(const Ranked& ranked, const ProcessSample& sample, const Procfs& procfs) {
  const auto now = [&ranked](Metric metric) { return ranked.now[static_cast<size_t>(metric)]; };
  RankingRow row;
  row.process = identity_of(sample, procfs);
  row.score = ranked.score;
  row.suspect = ranked.suspect;
  row.reason = ranked.reason();
  row.on_cpu_cores = now(Metric::kOnCpu);
  row.entitled_cores = ranked.entitled_cores;
  row.run_queue_s = now(Metric::kRunQueue);
  row.switches = now(Metric::kSwitches);
  row.faults = now(Metric::kFaults);
  row.io_bytes = now(Metric::kIo);
  row.rss_bytes = sample.rss_bytes;
  row.threads = sample.threads;
  row.nice = sample.nice;  // NOLINT(bugprone-signed-char-misuse): a number, and no character
  return row;
}

}  // namespace

Result<std::vector<RankingRow>> ranking_rows(const Ranker& ranker, const ProcessList& processes, const Procfs& procfs,
                                             size_t limit, const std::string& by) {
  size_t metric = 0;
  const bool by_score = by.empty() || by == "score";
  while (!by_score && metric < kMetrics && to_string(static_cast<Metric>(metric)) != by) ++metric;
  if (metric == kMetrics) {
    return fail(ErrorKind::kUsage, "rank processes", "there is no metric \"" + by + "\"",
                "one of score, on_cpu, run_queue, switches, faults, rss, io");
  }
  std::vector<const Ranked*> order;
  for (const Ranked& ranked : ranker.ranking()) order.push_back(&ranked);
  constexpr size_t kMayHaveEnded = 64;  // since the last tick
  const size_t wanted = std::min(order.size(), std::min(limit, order.size()) + kMayHaveEnded);
  std::ranges::partial_sort(order, order.begin() + static_cast<std::ptrdiff_t>(wanted), {}, [&](const Ranked* each) {
    return std::tuple(by_score ? 0 : -each->now[metric], -each->score, each->key);
  });
  order.resize(wanted);
  std::vector<RankingRow> rows;
  for (const Ranked* ranked : order) {
    if (rows.size() >= limit) break;
    if (const ProcessSample* sample = processes.find(ranked->key)) rows.push_back(row_of(*ranked, *sample, procfs));
  }
  return rows;
}

}  // namespace stackwatch
