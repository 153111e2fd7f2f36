// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/alert.h"
#include "core/result.h"

namespace stackwatch {

/// Where alerts go. Called on the loop's thread, so it must not block.
class Sink {
 public:
  virtual ~Sink() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  /// Called once when an alert begins to fire and once when it is resolved.
  [[nodiscard]] virtual Result<void> publish(const Alert& alert) = 0;
};

}  // namespace stackwatch
