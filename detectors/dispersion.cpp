// SPDX-License-Identifier: Apache-2.0
#include "detectors/dispersion.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace stackwatch {
namespace {

// Fewer counts say nothing about how much a stream varies.
constexpr double kMinCounts = 20;
// A share that is so many times smaller than it was is known by what it was.
constexpr double kMuchSmaller = 4;
// Fewer blocks say nothing about a variance; fewer than the second about how it grows.
constexpr double kMinBlocks = 3;
constexpr double kEnoughBlocks = 6;
// Weight of the prior in the process's estimate, in degrees of freedom.
constexpr double kPriorFreedom = 20;
// Weight of the process in a stream's estimate, in degrees of freedom: the more its streams are alike the larger.
constexpr double kLeastProcessFreedom = 12;
constexpr double kMostProcessFreedom = 100;
// Shares nearer to 0 or 1 have too few events to say anything about dispersion.
constexpr double kMinInformativeShare = 0.002;

// The largest of five noisy estimates is too large. In a baseline that has seen many ticks a longer block counts only
// where it has more dispersion than single ticks by three standard errors; in a young one it always does: there too
// small would be worse than too large.
constexpr double kDistinct = 3;
constexpr double kYoungTicks = 500;
constexpr double kOldTicks = 2000;

// Blocks three times as long have at most three times the dispersion. A young baseline expects what it saw at its
// longest blocks to go on up to blocks of a minute, which is how long a small change takes to be found. It is what is
// beyond independent samples that grows.
constexpr double kLargestStep = 3;
constexpr double kGrowsUntilTicks = 54;
// The first minutes of a process do not show its phases at all, however calm they are.
constexpr double kFirst = 1.2;
constexpr double kFirstTicks = 200;

// 0 for a young baseline, 1 for an old one.
double age(double ticks) { return std::clamp((ticks - kYoungTicks) / (kOldTicks - kYoungTicks), 0.0, 1.0); }

// Degrees of freedom of a stream's estimate: a stream with two samples in a thousand blocks has two, not a thousand.
double freedom(double blocks, const ShareDispersion::Share& share) {
  return std::max(0.0, std::min(blocks - 1, share.count * (1 - share.share)));
}

}  // namespace

void BlockMoments::clear() {
  std::fill(streams_.begin(), streams_.end(), Stream{});
  known_.clear();
  open_exposure_ = {};
  blocks_ = {};
  exposure_ = 0;
  ticks_ = 0;
}

void BlockMoments::learn(std::span<const Count> counts, double exposure) {
  ++ticks_;
  exposure_ += exposure;
  for (const Count& count : counts) {
    Stream& stream = streams_[count.stream];
    stream.total += count.value;
    if (exposure > 0) stream.squares[0] += static_cast<double>(count.value) * count.value / exposure;
    for (size_t scale = 1; scale < kBlockScales; ++scale) stream.open[scale - 1] += count.value;
  }
  if (exposure > 0) blocks_[0] += 1;
  for (size_t scale = 1; scale < kBlockScales; ++scale) {
    open_exposure_[scale] += exposure;
    if (ticks_ % kBlockTicks[scale] != 0) continue;
    if (open_exposure_[scale] > 0) {
      for (Stream& stream : streams_) {
        const double x = stream.open_at(scale);
        if (x == 0) continue;
        stream.squares[scale] += x * x / open_exposure_[scale];
        stream.open[scale - 1] = 0;
      }
      blocks_[scale] += 1;
    }
    open_exposure_[scale] = 0;
  }
}

void BlockMoments::begin(size_t stream, double share, const std::array<double, kBlockScales>& dispersion) {
  std::array<double, kBlockScales> scatter{};
  for (size_t scale = 0; scale < kBlockScales; ++scale) {
    scatter[scale] = blocks_[scale] * share * (1 - share) * std::max(1.0, dispersion[scale]);
  }
  resume(stream, share, scatter);
}

void BlockMoments::resume(size_t stream, double mean, const std::array<double, kBlockScales>& scatter) {
  known_.erase(stream);
  Stream& s = streams_[stream];
  s.total = mean * exposure_;
  for (size_t scale = 0; scale < kBlockScales; ++scale) {
    const double complete = exposure_ - open_exposure_[scale];
    s.squares[scale] = mean * mean * complete + scatter[scale];
    if (scale > 0) s.open[scale - 1] = static_cast<float>(mean * open_exposure_[scale]);
  }
}

void BlockMoments::recentre(size_t stream, double share, const std::array<double, kBlockScales>& process) {
  const double count = streams_[stream].total;
  const double mean = exposure_ > 0 ? count / exposure_ : 0;
  std::optional<Known> own;
  if (count * (1 - mean) >= kMinCounts) {
    own.emplace();
    own->size = mean * (1 - mean);
    for (size_t scale = 0; scale < kBlockScales; ++scale) {
      if (blocks_[scale] <= 0) continue;
      own->dispersion[scale] = scatter(stream, scale) / (blocks_[scale] * mean * (1 - mean));
      own->degrees[scale] = freedom(blocks_[scale], {mean, count});
    }
  }
  // What it was known by holds until it shows more by itself.
  if (const Known* before = known(stream); before != nullptr && (!own || before->degrees[0] > own->degrees[0])) {
    own = *before;
  }
  if (!own) return begin(stream, share, process);
  std::array<double, kBlockScales> scatter{};
  for (size_t scale = 0; scale < kBlockScales; ++scale) {
    scatter[scale] = blocks_[scale] * share * (1 - share) * own->dispersion[scale];
  }
  resume(stream, share, scatter);
  // Of a share that is much smaller little is seen for long.
  const bool is_small = exposure_ * share * (1 - share) < kMinCounts;
  if (is_small || share * (1 - share) < own->size / kMuchSmaller) known_[stream] = *own;
}

const BlockMoments::Known* BlockMoments::known(size_t stream) const {
  const auto found = known_.find(stream);
  return found == known_.end() ? nullptr : &found->second;
}

void BlockMoments::inherit(const std::array<double, kBlockScales>& blocks, double exposure) {
  clear();
  blocks_ = blocks;
  exposure_ = exposure;
}

std::array<double, kBlockScales> BlockMoments::scatter(size_t stream) const {
  std::array<double, kBlockScales> out{};
  for (size_t scale = 0; scale < kBlockScales; ++scale) out[scale] = scatter(stream, scale);
  return out;
}

void BlockMoments::halve() {
  for (Stream& stream : streams_) {
    for (double& squares : stream.squares) squares /= 2;
    stream.total /= 2;
  }
  for (double& blocks : blocks_) blocks /= 2;
  exposure_ /= 2;
  for (auto& entry : known_) {
    for (double& degrees : entry.second.degrees) degrees /= 2;
  }
  std::erase_if(known_, [](const auto& entry) { return entry.second.degrees[0] < 1; });
}

double BlockMoments::scatter(size_t stream, size_t scale) const {
  const Stream& s = streams_[stream];
  const double x = s.total - s.open_at(scale);
  const double n = exposure_ - open_exposure_[scale];
  return n > 0 ? std::max(0.0, s.squares[scale] - x * x / n) : 0.0;
}

void ShareDispersion::inherit(const std::array<double, kBlockScales>& process, double ticks) {
  for (size_t scale = 0; scale < kBlockScales; ++scale) inherited_[scale] = std::max(1.0, process[scale]);
  inherited_ticks_ = ticks;
  process_ = inherited_;
  freedom_.fill(kLeastProcessFreedom);
  growth_ = 1;
}

double ShareDispersion::observed(const BlockMoments& moments, size_t stream, double share, size_t scale) {
  return moments.scatter(stream, scale) / (share * (1 - share)) / std::max(moments.blocks(scale) - 1, 1.0);
}

void ShareDispersion::estimate(const BlockMoments& moments, std::span<const Share> shares) {
  for (size_t scale = 0; scale < kBlockScales; ++scale) estimate_process(moments, shares, scale);
  // Where the dispersion still grows at the longest blocks, it would have gone on to grow at longer ones: phases are
  // longer than what a young baseline has seen.
  double step = 1;
  double steps = 0;
  for (size_t scale = 1; scale < kBlockScales && blocks(moments, scale) >= kEnoughBlocks; ++scale) {
    step = std::clamp(process_[scale] / process_[scale - 1], 1.0, kLargestStep);
    steps = std::max(0.0, std::log(kGrowsUntilTicks / static_cast<double>(kBlockTicks[scale])) / std::log(3.0));
  }
  growth_ = std::pow(step, steps * (1 - age(ticks(moments))));
}

void ShareDispersion::estimate_process(const BlockMoments& moments, std::span<const Share> shares, size_t scale) {
  const double blocks = moments.blocks(scale);
  const auto for_each = [&](const auto& action) {
    for (size_t stream = 0; stream < shares.size() && blocks > 1; ++stream) {
      const double share = shares[stream].share;
      if (share < kMinInformativeShare || share > 1 - kMinInformativeShare) continue;
      action(observed(moments, stream, share, scale), freedom(blocks, shares[stream]));
    }
  };
  const double handed_on = inherited_ticks_ / static_cast<double>(kBlockTicks[scale]);
  double chi_squared = kPriorFreedom * kPriorDispersion + handed_on * inherited_[scale];
  double degrees = kPriorFreedom + handed_on;
  for_each([&](double dispersion, double own) {
    chi_squared += own * dispersion;
    degrees += own;
  });
  process_[scale] = chi_squared / degrees;

  // How much streams differ beyond chance: the relative variance of true dispersions, by the method of moments. A prior
  // of n degrees of freedom has one of 2/n.
  double excess = 0;
  double weight = 0;
  for_each([&](double dispersion, double own) {
    if (own < 1 || blocks < kMinBlocks) return;
    const double deviation = dispersion / process_[scale] - 1;
    excess += own / 2 * deviation * deviation - 1;
    weight += own / 2;
  });
  const double alike = excess > 0 ? 2 * weight / excess : kMostProcessFreedom;
  freedom_[scale] = weight > 0 ? std::clamp(alike, kLeastProcessFreedom, kMostProcessFreedom) : kLeastProcessFreedom;
}

ShareDispersion::Estimate ShareDispersion::estimate_at(const BlockMoments& moments, size_t stream, const Share& share,
                                                       size_t scale) const {
  // Of the blocks' degrees of freedom so many as are believed.
  const bool varies = share.share > 0 && share.share < 1;
  double degrees = varies ? freedom(moments.blocks(scale), share) : 0;
  double chi_squared = degrees > 0 ? degrees * observed(moments, stream, share.share, scale) : 0;
  // Until the stream itself says more.
  if (const auto* known = moments.known(stream); known != nullptr && known->degrees[scale] > degrees) {
    chi_squared += (known->degrees[scale] - degrees) * known->dispersion[scale];
    degrees = known->degrees[scale];
  }
  return {(chi_squared + freedom_[scale] * process_[scale]) / (degrees + freedom_[scale]), degrees};
}

double ShareDispersion::factor(const BlockMoments& moments, size_t stream, const Share& share) const {
  const double distinct = kDistinct * age(ticks(moments));
  double single = 1;
  double largest = 1;
  double shorter = 1;
  bool was_distinct = false;
  for (size_t scale = 0; scale < kBlockScales; ++scale) {
    if (blocks(moments, scale) < kMinBlocks && scale > 0) break;
    const Estimate found = estimate_at(moments, stream, share, scale);
    const double estimate = std::max(1.0, found.dispersion);
    // No smaller where it is drawn more: the process's estimate is made of the same samples.
    const double error = std::sqrt(2 / (found.degrees + kLeastProcessFreedom));
    if (scale == 0) single = estimate;
    const bool is_distinct = scale == 0 || estimate > single * (1 + distinct * error);
    if (is_distinct) {
      // Of phases that end, half of the last growth is still to come: each factor of three leaves a third of it. Phases
      // show at several lengths; what shows at one alone is more likely chance.
      const double to_come = scale > 0 && was_distinct ? std::max(0.0, estimate - shorter) / 2 : 0;
      largest = std::max(largest, estimate + to_come);
    }
    was_distinct = is_distinct && scale > 0;
    shorter = estimate;
  }
  const double first = kFirst * std::max(0.0, 1 - ticks(moments) / kFirstTicks);
  return (1 + (largest - 1) * growth_) * (1 + first);
}

}  // namespace stackwatch
