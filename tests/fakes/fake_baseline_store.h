// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "store/baseline_store.h"

namespace stackwatch {

/// A store in memory that may fail, and says how often it was asked to write.
class FakeBaselineStore final : public BaselineStore {
 public:
  bool works = true;    ///< storing()
  bool accepts = true;  ///< false: its queue is full
  std::map<std::string, Baseline> rows;
  std::vector<std::string> written;  ///< services, in order
  std::vector<std::string> removed;

  [[nodiscard]] bool storing() const override { return works; }
  bool put(Baseline baseline) override {
    if (!accepts) return false;
    written.push_back(baseline.service);
    std::string service = baseline.service;
    rows.insert_or_assign(std::move(service), std::move(baseline));
    return true;
  }
  bool remove(const std::string& service) override {
    if (!accepts) return false;
    removed.push_back(service);
    rows.erase(service);
    return true;
  }
  /// What a daemon reads at its start.
  [[nodiscard]] std::vector<Baseline> newest_first() const {
    std::vector<Baseline> all;
    for (auto service = written.rbegin(); service != written.rend(); ++service) {
      const auto row = rows.find(*service);
      const auto is_it = [&](const Baseline& baseline) { return baseline.service == *service; };
      if (row != rows.end() && std::ranges::none_of(all, is_it)) all.push_back(row->second);
    }
    return all;
  }
};

}  // namespace stackwatch
