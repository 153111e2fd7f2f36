// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace stackwatch {

/// Blocks of 1, 3, 9, 27 and 81 ticks: more than a minute at a tick of 1 s. Correlation over longer times than that is
/// the business of the baseline's memory.
inline constexpr size_t kBlockScales = 5;
inline constexpr std::array<uint64_t, kBlockScales> kBlockTicks{1, 3, 9, 27, 81};
inline constexpr uint64_t kLongestBlock = kBlockTicks.back();

/// How much many streams vary around their own mean, at several time scales at once. For blocks of m ticks with count
/// x and exposure n it keeps sum(x^2/n), sum(x) and sum(n), from which the weighted sum of squares around any mean
/// follows exactly: nothing has to be known beforehand, and a tick without counts costs nothing.
class BlockMoments {
 public:
  struct Count {
    uint32_t stream = 0;
    float value = 0;
  };

  [[nodiscard]] size_t size() const { return streams_.size(); }
  size_t add() { return streams_.emplace_back(), streams_.size() - 1; }
  /// What the stream was is forgotten.
  void forget(size_t stream) { streams_[stream] = {}, known_.erase(stream); }
  /// The stream gets a (new) meaning: a share that was there before it was watched by itself. Its past counts as ticks
  /// of that share and of the given dispersion, so that the ticks in which nobody counted it are no variation.
  void begin(size_t stream, double share, const std::array<double, kBlockScales>& dispersion);
  /// The same for any series, with its mean per unit of exposure and its scatter() by length of block.
  void resume(size_t stream, double mean, const std::array<double, kBlockScales>& scatter);
  /// The stream's past counts as one around another share, in which it varied as much for its size: the dispersion
  /// stays. Where hardly anything was counted it is known(), else that of the process.
  void recentre(size_t stream, double share, const std::array<double, kBlockScales>& process);
  /// What a stream's dispersion was, by length of block, and the degrees of freedom that this rests on.
  struct Known {
    std::array<double, kBlockScales> dispersion{};
    std::array<double, kBlockScales> degrees{};
    double size = 0;  ///< share (1 - share) of when it was seen
  };
  /// Of a stream that is too small to show it around the share that it was given last. Null where nothing is known but
  /// what the stream shows. Valid until the stream is changed.
  [[nodiscard]] const Known* known(size_t stream) const;
  /// Everything is forgotten but the streams; the past then is so many blocks of each length, in so much exposure, of
  /// which resume() tells what the streams did in it.
  void inherit(const std::array<double, kBlockScales>& blocks, double exposure);
  /// Everything, of all streams; the streams stay.
  void clear();
  /// One tick; each stream at most once; exposure >= 0. Ticks without exposure count as time.
  void learn(std::span<const Count> counts, double exposure);
  /// Halves the weight of everything learned. Only where at_boundary().
  void halve();
  /// Whether no block is half full.
  [[nodiscard]] bool at_boundary() const { return ticks_ % kLongestBlock == 0; }

  /// Number of complete blocks of kBlockTicks[scale] ticks, decayed.
  [[nodiscard]] double blocks(size_t scale) const { return blocks_[scale]; }
  [[nodiscard]] const std::array<double, kBlockScales>& blocks() const { return blocks_; }
  /// sum over the complete blocks of n (x/n - mean)^2: over blocks - 1 degrees of freedom it estimates the variance
  /// per unit of exposure, long-run correlation up to the block's length included.
  [[nodiscard]] double scatter(size_t stream, size_t scale) const;
  /// Of all lengths.
  [[nodiscard]] std::array<double, kBlockScales> scatter(size_t stream) const;

 private:
  struct Stream {
    std::array<double, kBlockScales> squares{};  // sum of x^2/n over complete blocks
    double total = 0;
    std::array<float, kBlockScales - 1> open{};  // x of the block that is being filled; one tick never is open
    [[nodiscard]] double open_at(size_t scale) const { return scale > 0 ? static_cast<double>(open[scale - 1]) : 0; }
  };
  std::vector<Stream> streams_;
  std::unordered_map<size_t, Known> known_;  // of few streams: those that a change took away
  std::array<double, kBlockScales> open_exposure_{};
  std::array<double, kBlockScales> blocks_{};
  double exposure_ = 0;
  uint64_t ticks_ = 0;
};

/// The dispersion of shares: variance of a count over that of independent samples (n p q), never below 1. Samples of a
/// real program are correlated, within a tick (a call lasts for several samples) and over ticks (work comes in phases).
/// For each stream the largest of the estimates at the block lengths that have at least three blocks: only that keeps
/// a sum over many ticks honest. Each estimate is drawn towards that of the whole process, the more the less its
/// streams differ beyond chance (empirical Bayes, Morris 1983; how much they do by moments, DerSimonian and Laird
/// 1986), and that towards kPriorDispersion: the largest of many noisy numbers would be twice the truth. On top of that
/// a young baseline in which it still grows with the length of blocks expects that to go on, and a very young one takes
/// it for larger than it was: phases may be longer than what was seen.
/// Assumption: streams of a process that look alike are alike.
class ShareDispersion {
 public:
  struct Share {
    double share = 0;  ///< baseline share of the stream
    double count = 0;  ///< baseline count of the stream
  };

  /// `shares[i]` belongs to stream i of `moments`.
  void estimate(const BlockMoments& moments, std::span<const Share> shares);
  /// Of one stream; of the process where nothing is known about the stream.
  [[nodiscard]] double factor(const BlockMoments& moments, size_t stream, const Share& share) const;

  static constexpr double kPriorDispersion = 1.5;

  /// Begins with what was known about a predecessor of the process, by length of block, from so many ticks.
  void inherit(const std::array<double, kBlockScales>& process, double ticks);
  /// Of the whole process, by length of block.
  [[nodiscard]] const std::array<double, kBlockScales>& process() const { return process_; }
  [[nodiscard]] double ticks(const BlockMoments& moments) const { return moments.blocks(0) + inherited_ticks_; }

 private:
  [[nodiscard]] double blocks(const BlockMoments& moments, size_t scale) const {
    return moments.blocks(scale) + inherited_ticks_ / static_cast<double>(kBlockTicks[scale]);
  }
  /// What the blocks show, without anything else that is known.
  [[nodiscard]] static double observed(const BlockMoments& moments, size_t stream, double share, size_t scale);
  void estimate_process(const BlockMoments& moments, std::span<const Share> shares, size_t scale);
  struct Estimate {
    double dispersion = 1;
    double degrees = 0;  // of freedom, the process's not counted
  };
  [[nodiscard]] Estimate estimate_at(const BlockMoments& moments, size_t stream, const Share& share,
                                     size_t scale) const;

  std::array<double, kBlockScales> process_{};
  std::array<double, kBlockScales> inherited_{};
  std::array<double, kBlockScales> freedom_{1, 1, 1, 1, 1};  // of the process in the estimate of a stream
  double inherited_ticks_ = 0;
  double growth_ = 1;
};

}  // namespace stackwatch
