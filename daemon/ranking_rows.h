// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "daemon/process_list.h"
#include "daemon/procfs.h"
#include "daemon/ranking.h"
#include "daemon/status.h"

namespace stackwatch {

/// The first `limit` processes by score, or by what they do `now` of the metric that `by` names ("" and "score": the
/// score). Error: there is no such metric.
[[nodiscard]] Result<std::vector<RankingRow>> ranking_rows(const Ranker& ranker, const ProcessList& processes,
                                                           const Procfs& procfs, size_t limit, const std::string& by);

}  // namespace stackwatch
