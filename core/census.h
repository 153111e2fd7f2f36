// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

#include "core/process.h"
#include "core/result.h"

namespace stackwatch {

/// One pass over all tasks of the machine, one sample per process.
class Census {
 public:
  virtual ~Census() = default;
  /// All processes that are alive, by ascending key; no two have the same pid. Those that end during the pass may be
  /// missing.
  [[nodiscard]] virtual Result<std::vector<ProcessSample>> take() = 0;
  /// How it is done, for `status`: "task iterator", "/proc", "fake".
  [[nodiscard]] virtual std::string_view method() const = 0;
};

}  // namespace stackwatch
