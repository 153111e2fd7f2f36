// SPDX-License-Identifier: Apache-2.0
#include "daemon/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>

namespace stackwatch {
namespace {

class PriorityPrefix final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm& /*time*/, spdlog::memory_buf_t& out) override {
    char digit = '7';  // debug
    if (message.level >= spdlog::level::info) digit = '6';
    if (message.level >= spdlog::level::warn) digit = '4';
    if (message.level >= spdlog::level::err) digit = '3';
    if (message.level >= spdlog::level::critical) digit = '2';
    out.push_back('<');
    out.push_back(digit);
    out.push_back('>');
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<PriorityPrefix>();
  }
};

}  // namespace

std::shared_ptr<spdlog::logger> make_log(bool foreground) {
  if (foreground) {
    // The colour mode "automatic" looks at the terminal alone.
    const bool no_colour = std::getenv("NO_COLOR") != nullptr;
    const auto colour = no_colour ? spdlog::color_mode::never : spdlog::color_mode::automatic;
    auto log = std::make_shared<spdlog::logger>("stackwatchd",
                                                std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>(colour));
    log->set_pattern("%H:%M:%S %^%l%$ %v");
    return log;
  }
  auto log = std::make_shared<spdlog::logger>("stackwatchd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<PriorityPrefix>('*').set_pattern("%*%v");
  log->set_formatter(std::move(formatter));
  return log;
}

}  // namespace stackwatch
