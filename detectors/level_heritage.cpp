// SPDX-License-Identifier: Apache-2.0
#include "detectors/level_heritage.h"

namespace stackwatch {
namespace {

constexpr uint64_t kMagic = 0x316c6576656c7773;  // "swlevel1": the last digit is the version
// A second of anything is at most so much: rate.cpp believes no more.
constexpr double kMaxRate = 2e15;

template <class Heritage, class Action>
void for_each_number(Heritage& heritage, const Action& action) {
  for (auto* number : {&heritage.amount, &heritage.wanted, &heritage.exposure_s}) action(*number);
  for (auto& number : heritage.blocks) action(number);
  for (auto& number : heritage.scatter) action(number);
  action(heritage.usual_cores);
  action(heritage.usual_weight);
}

}  // namespace

std::string encode(const LevelHeritage& heritage) {
  SavedWriter out;
  out.put(kMagic);
  for_each_number(heritage, [&out](double number) { out.put(number); });
  heritage.day.save(out);
  return out.take();
}

Result<LevelHeritage> decode_level_heritage(std::string_view bytes) {
  const auto refuse = [](std::string why) {
    return fail(ErrorKind::kFailed, "a saved baseline", std::move(why), "it is learned anew");
  };
  SavedReader in(bytes);
  if (in.integer() != kMagic) return refuse("it is of another version, or no baseline");
  LevelHeritage out;
  for_each_number(out, [&in](double& number) { number = in.amount(); });
  out.day.restore(in);
  if (!in.ok() || !in.at_end()) return refuse("it is damaged");
  const double most = kMaxRate * out.exposure_s;
  if (out.amount > most || out.wanted > most) return refuse("it is more than there can be");
  return out;
}

}  // namespace stackwatch
