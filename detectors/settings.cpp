// SPDX-License-Identifier: Apache-2.0
#include "detectors/settings.h"

#include <cmath>
#include <string>
#include <string_view>

namespace stackwatch {
namespace {

std::string text(double value) {
  std::string out = std::to_string(value);
  out.erase(out.find_last_not_of('0') + 1);
  if (out.ends_with('.')) out.pop_back();
  return out;
}

/// Collects the first key that is out of range.
class RangeCheck {
 public:
  explicit RangeCheck(std::string_view detector) : detector_(detector) {}

  RangeCheck& key(std::string_view name, double value, double least, double most) {
    if (result_ && !(value >= least && value <= most)) {
      result_ = fail(ErrorKind::kUsage, "[detectors." + std::string(detector_) + "] " + std::string(name),
                     text(value) + " is out of range", "between " + text(least) + " and " + text(most));
    }
    return *this;
  }
  [[nodiscard]] const Result<void>& result() const { return result_; }

 private:
  std::string_view detector_;
  Result<void> result_;
};

constexpr double kMonthS = 30 * 86400.0;

}  // namespace

Result<void> validate(const DetectorSettings& settings) {
  const CompositionSettings& c = settings.composition;
  const auto composition = RangeCheck("composition")
                               .key("learn", c.learn_s, 30, 86400)
                               .key("quarantine", c.quarantine_s, 0, 240)
                               .key("memory", c.memory_s, 300, kMonthS)
                               .key("persistence", c.persistence_s, 0, 240)
                               .key("adopt_after", c.adopt_after_s, 60, kMonthS)
                               .key("min_relative_change", c.min_relative_change, 0, 10)
                               .key("explains", c.explains, 0.5, 1)
                               .key("max_streams", c.max_streams, 16, 8192)
                               .result();
  if (!composition) return composition;
  const RateSettings& r = settings.rate;
  return RangeCheck("rate")
      .key("learn", r.learn_s, 30, 86400)
      .key("quarantine", r.quarantine_s, 0, 240)
      .key("memory", r.memory_s, 300, kMonthS)
      .key("persistence", r.persistence_s, 0, 240)
      .key("adopt_after", r.adopt_after_s, 60, kMonthS)
      .key("min_relative_change", r.min_relative_change, 0.1, 100)
      .key("min_change_cores", r.min_change_cores, 0, 4096)
      .result();
}

}  // namespace stackwatch
