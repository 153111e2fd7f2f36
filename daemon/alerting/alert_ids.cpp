// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <systemd/sd-id128.h>

#include "daemon/alerting/alert_policy.h"

namespace stackwatch {

AlertIds random_alert_ids() {
  return [] {
    // The last six bytes: a version 4 UUID has its fixed bits before them. Without random numbers (no getrandom())
    // all ids are zeros; the policy makes ids of its own of ids that are taken.
    sd_id128_t id{};
    if (sd_id128_randomize(&id) < 0) id = sd_id128_t{};
    std::string out;
    for (size_t i = 10; i < 16; ++i) out += fmt::format("{:02x}", id.bytes[i]);
    return out;
  };
}

AlertIds sequential_alert_ids() {
  return [next = uint64_t{0}]() mutable { return fmt::format("{:012x}", ++next); };
}

}  // namespace stackwatch
