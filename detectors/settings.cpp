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

Result<void> validate_others(const DetectorSettings& settings) {
  const WaitSettings& w = settings.wait;
  const auto wait = RangeCheck("wait")
                        .key("learn", w.learn_s, 30, 86400)
                        .key("quarantine", w.quarantine_s, 0, 240)
                        .key("memory", w.memory_s, 300, kMonthS)
                        .key("persistence", w.persistence_s, 0, 240)
                        .key("adopt_after", w.adopt_after_s, 60, kMonthS)
                        .key("min_relative_change", w.min_relative_change, 0.1, 100)
                        .key("min_change_threads", w.min_change_threads, 0.001, 4096)
                        .key("max_streams", w.max_streams, 16, 8192)
                        .result();
  if (!wait) return wait;
  const LeakSettings& l = settings.leak;
  const auto leak = RangeCheck("leak")
                        .key("settle", l.settle_s, 0, 86400)
                        .key("block", l.block_s, 1, 3600)
                        .key("min_growth_mb", l.min_growth_mb, 0.001, 1e6)
                        .key("min_relative", l.min_relative, 0, 100)
                        .key("max_streams", l.max_streams, 16, 8192)
                        .result();
  if (!leak) return leak;
  const NoveltySettings& n = settings.novelty;
  const auto novelty = RangeCheck("novelty")
                           .key("learn", n.learn_s, 120, 86400)
                           .key("quarantine", n.quarantine_s, 30, 240)
                           .key("memory", n.memory_s, 300, kMonthS)
                           .key("persistence", n.persistence_s, 0, 240)
                           .key("adopt_after", n.adopt_after_s, 60, kMonthS)
                           .key("min_relative_change", n.min_relative_change, 0, 100)
                           .result();
  if (!novelty) return novelty;
  const SubspaceSettings& s = settings.subspace;
  const auto subspace = RangeCheck("subspace")
                            .key("learn", s.learn_s, 60, 86400)
                            .key("memory", s.memory_s, 300, kMonthS)
                            .key("persistence", s.persistence_s, 0, 240)
                            .key("adopt_after", s.adopt_after_s, 60, kMonthS)
                            .key("explained", s.explained, 0.5, 0.999)
                            .key("min_relative_change", s.min_relative_change, 0.1, 100)
                            .result();
  if (!subspace) return subspace;
  const PeersSettings& p = settings.peers;
  return RangeCheck("peers")
      .key("learn", p.learn_s, 30, 86400)
      .key("memory", p.memory_s, 300, kMonthS)
      .key("persistence", p.persistence_s, 0, 240)
      .key("adopt_after", p.adopt_after_s, 60, kMonthS)
      .key("min_change_cores", p.min_change_cores, 0.001, 4096)
      .key("min_siblings", p.min_siblings, 2, 1024)
      .result();
}

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
  const auto rate = RangeCheck("rate")
                        .key("learn", r.learn_s, 30, 86400)
                        .key("quarantine", r.quarantine_s, 0, 240)
                        .key("memory", r.memory_s, 300, kMonthS)
                        .key("persistence", r.persistence_s, 0, 240)
                        .key("adopt_after", r.adopt_after_s, 60, kMonthS)
                        .key("min_relative_change", r.min_relative_change, 0.1, 100)
                        .key("min_change_cores", r.min_change_cores, 0, 4096)
                        .key("min_starved_threads", r.min_starved_threads, 0.1, 4096)
                        .result();
  if (!rate) return rate;
  return validate_others(settings);
}

}  // namespace stackwatch
