// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "store/records.h"

namespace stackwatch {

/// Where the pasts of services are kept over restarts of the daemon. None of the calls waits for a disk. One thread.
class BaselineStore {
 public:
  virtual ~BaselineStore() = default;
  /// False while nothing that is put would be kept.
  [[nodiscard]] virtual bool storing() const = 0;
  /// Takes the place of what the service had. False where it is dropped.
  virtual bool put(Baseline baseline) = 0;
  /// The service has no past any more. False where that is dropped.
  virtual bool remove(const std::string& service) = 0;
};

}  // namespace stackwatch
