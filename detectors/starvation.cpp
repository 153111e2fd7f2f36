// SPDX-License-Identifier: Apache-2.0
#include "detectors/starvation.h"

#include <algorithm>
#include <cmath>

#include "detectors/saved_bytes.h"

namespace stackwatch {
namespace {

constexpr uint64_t kMagic = 0x3176726174737773;  // "swstarv1": the last digit is the version
constexpr double kRecentHalfLifeS = 5;
constexpr double kUsualHalfLifeS = 600;
constexpr double kLeastUsualS = 60;    // of history, to call anything usual
constexpr double kUsualAfterS = 3600;  // what lasts so long is how it is: the detectors' adopt_after
constexpr double kOnsetErrorS = 30;    // onsets are estimates, and the mean of the last seconds comes late
constexpr double kGoesAwayS = 60;      // a finding ends at least ten ticks after its cause
constexpr double kWorksMore = 1.25;    // who has to wait does not get more of the CPU than before
constexpr double kIdle = 1e-3;         // of a core: below it waiting is noise
constexpr double kMostThreads = 1e6;   // more waiting is garbage

}  // namespace

void Starvation::Mean::add(const CensusDelta& census, double half_life_s) {
  const double keep = std::exp2(-census.interval_s / half_life_s);
  waited_s = waited_s * keep + census.run_queue_s;
  ran_s = ran_s * keep + census.on_cpu_s;
  weight_s = weight_s * keep + census.interval_s;
}

double Starvation::Mean::ratio() const {
  const double idle_s = kIdle * weight_s;
  return (waited_s + idle_s) / (ran_s + idle_s);
}

void Starvation::observe(const CensusDelta& census) {
  const double most_s = kMostThreads * census.interval_s;
  const bool usable = std::isfinite(census.time_s) && census.interval_s > 0 && census.on_cpu_s >= 0 &&
                      census.run_queue_s >= 0 && census.on_cpu_s <= most_s && census.run_queue_s <= most_s;
  if (!usable) return;
  last_s_ = census.time_s;
  recent_.add(census, kRecentHalfLifeS);
  if (usual_.weight_s >= kLeastUsualS) begin_or_end(census.time_s);
  if (!lasts_) usual_.add(census, kUsualHalfLifeS);
}

void Starvation::begin_or_end(double time_s) {
  const double now = recent_.ratio();
  const double before = usual_.ratio();
  const double less = std::min(now, before);
  const double more = std::max(now, before);
  const bool is_its_own =
      now > before && recent_.ran_s * usual_.weight_s > kWorksMore * usual_.ran_s * recent_.weight_s;
  const bool differs = more >= kStarved && more >= (lasts_ ? kStillMuch : kMuch) * less && (lasts_ || !is_its_own);
  if (differs && !lasts_) {
    began_s_ = time_s;
    was_any_ = true;
  }
  if (!differs && lasts_) ended_s_ = time_s;
  lasts_ = differs;
  if (lasts_ && time_s - began_s_ >= kUsualAfterS) {
    usual_ = recent_;
    lasts_ = false;
    ended_s_ = time_s;
  }
}

bool Starvation::explains(double onset_s, double now_s) const {
  if (!was_any_ || onset_s < began_s_ - kOnsetErrorS) return false;
  return lasts_ || (onset_s <= ended_s_ && now_s <= ended_s_ + kGoesAwayS);
}

std::string Starvation::save() const {
  if (usual_.weight_s < kLeastUsualS) return {};
  SavedWriter out;
  out.put(kMagic);
  for (const Mean& mean : {recent_, usual_}) {
    for (const double number : {mean.waited_s, mean.ran_s, mean.weight_s}) out.put(number);
  }
  out.put(static_cast<uint16_t>(lasts_ ? 1 : 0));
  out.put(lasts_ ? std::max(0.0, last_s_ - began_s_) : 0.0);
  return out.take();
}

Result<void> Starvation::restore(std::string_view saved, double now_s) {
  SavedReader in(saved);
  const bool is_known = in.integer() == kMagic;
  Starvation out;
  for (Mean* mean : {&out.recent_, &out.usual_}) {
    for (double* number : {&mean->waited_s, &mean->ran_s, &mean->weight_s}) *number = in.amount();
  }
  const uint16_t lasts = in.small();
  const double age_s = in.amount();
  if (!is_known || !in.ok() || !in.at_end() || lasts > 1) {
    return fail(ErrorKind::kFailed, "what a process waited", "it is of another version, or damaged", "it is seen anew");
  }
  out.lasts_ = out.was_any_ = lasts == 1;
  out.began_s_ = now_s - age_s;
  out.last_s_ = now_s;
  *this = out;
  return {};
}

}  // namespace stackwatch
