// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "config/glob.h"
#include "config/load.h"

// What must hold for any text: it is refused with one line of kind kUsage, or gives a configuration within its bounds.

namespace {

using stackwatch::Config;
using stackwatch::DetectorSchema;

void require(bool holds) {
  if (!holds) std::abort();
}

const std::vector<DetectorSchema>& schemas() {
  using Kind = DetectorSchema::Kind;
  static const std::vector<DetectorSchema> all = {{"rate",
                                                   true,
                                                   {{"learn", Kind::kDuration, 180, 30, 86400},
                                                    {"min_relative_change", Kind::kNumber, 0.5, 0.1, 100},
                                                    {"max_streams", Kind::kInteger, 512, 16, 8192},
                                                    {"strict", Kind::kFlag, 0, 0, 1}}}};
  return all;
}

void check_config(const Config& config, std::string_view text) {
  require(config.tick_s >= 0.1 && config.tick_s <= 60);
  require(config.watch.size() <= stackwatch::kMaxWatchRules);
  for (const stackwatch::WatchRule& rule : config.watch) {
    require(!rule.id.empty() && !rule.probes.empty());
    require(rule.frequency_hz >= 1 && rule.frequency_hz <= 1000);
    require(!rule.pid || *rule.pid > 0);
    if (rule.name) (void)stackwatch::match_glob(*rule.name, text.substr(0, 1024));
  }
  const double learn = config.detectors.at("rate").values.at("learn");
  require(learn >= 30 && learn <= 86400);
  require(config.alerts.false_alarms > 0 && config.alerts.false_alarm_period_s > 0);
  require(config.limits.attachments >= 1 && config.limits.attachments <= 4096);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = stackwatch::parse_config(text, "fuzz", schemas());
  if (config) {
    check_config(*config, text);
  } else {
    require(config.error().kind == stackwatch::ErrorKind::kUsage);
    const std::string message = config.error().message();
    require(message.starts_with("fuzz") && message.size() < 1000);
    require(message.find_first_of("\n\r\x1b") == std::string::npos);
  }
  return 0;
}
