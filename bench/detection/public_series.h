// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "nab_score.h"

namespace stackwatch {

/// A series as it was published: rows of values, and where it is anomalous.
struct PublicSeries {
  std::string name;
  std::vector<double> times_s;               ///< one per row
  std::vector<std::vector<double>> columns;  ///< each with a value per row
  std::vector<Window> windows;
  size_t scored_from = 0;  ///< rows before this one are for learning alone

  [[nodiscard]] size_t rows() const { return times_s.size(); }
};

/// `DIR/nab`: a folder per kind with series in CSV, `windows.json` beside them. Those without a file are left out.
[[nodiscard]] Result<std::vector<PublicSeries>> read_nab(const std::string& directory);

/// `DIR/asd`: `server-N_train.csv`, `_test.csv`, `_test_label.csv`. Training rows come first and are not scored.
[[nodiscard]] Result<std::vector<PublicSeries>> read_asd(const std::string& directory);

/// Each column of the tests of `asd` by itself, with the events that `_culprits.txt` names it in: windows as in NAB,
/// a tenth of the rows divided over them. Beside the few series of NAB, a second corpus to check choices against.
[[nodiscard]] Result<std::vector<PublicSeries>> read_asd_columns(const std::string& directory);

}  // namespace stackwatch
