// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "store/records.h"

namespace stackwatch {

/// Where the pasts of services are kept over restarts of a service and of the daemon. None of the calls waits for a
/// disk. One thread.
class BaselineStore {
 public:
  struct Answer {
    std::string service;
    std::optional<Baseline> baseline;  ///< nothing: there is none, or it could not be read
  };

  virtual ~BaselineStore() = default;
  /// Takes the place of what the service had. False where it is dropped.
  virtual bool put(Baseline baseline) = 0;
  /// The answer is in one of the next take()s, exactly one for each call.
  virtual void ask(const std::string& service) = 0;
  [[nodiscard]] virtual std::vector<Answer> take() = 0;
};

}  // namespace stackwatch
