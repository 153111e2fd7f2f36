// SPDX-License-Identifier: Apache-2.0
#include "core/alert.h"

#include <array>

namespace stackwatch {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"pending", "firing", "resolved"};

}  // namespace

std::string_view to_string(AlertState state) { return kNames[static_cast<size_t>(state)]; }

std::optional<AlertState> parse_alert_state(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<AlertState>(i);
  }
  return std::nullopt;
}

}  // namespace stackwatch
