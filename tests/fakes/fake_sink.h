// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/sink.h"

namespace stackwatch {

/// Keeps what it is told, or fails.
class FakeSink final : public Sink {
 public:
  explicit FakeSink(std::string name) : name_(std::move(name)) {}

  void fail_with(std::optional<Error> error) { error_ = std::move(error); }
  [[nodiscard]] const std::vector<Alert>& alerts() const { return alerts_; }
  [[nodiscard]] int tries() const { return tries_; }

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] Result<void> publish(const Alert& alert) override {
    ++tries_;
    if (error_) return Failure(*error_);
    alerts_.push_back(alert);
    return {};
  }

 private:
  std::string name_;
  std::vector<Alert> alerts_;
  std::optional<Error> error_;
  int tries_ = 0;
};

}  // namespace stackwatch
