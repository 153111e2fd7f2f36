// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

namespace spdlog {
class logger;
}

namespace stackwatch {

/// The daemon's own log, on standard error: for people in the foreground, else with the priority prefixes that the
/// journal understands (sd-daemon(3)).
[[nodiscard]] std::shared_ptr<spdlog::logger> make_log(bool foreground);

}  // namespace stackwatch
