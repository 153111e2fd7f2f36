// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/result.h"
#include "core/stacks.h"
#include "detectors/dispersion.h"

namespace stackwatch {

/// What a process leaves to its successor: the shares of its stacks and functions by name, since ids, addresses and
/// build-ids are others after a restart or a new build. Names are kept as 64-bit hashes: among the 2048 of a process
/// two are the same with a probability of 1e-13.
struct ShareHeritage {
  /// Of each kind; the rarest are left out. 1024 stacks and functions are 32 kB.
  static constexpr size_t kMaxEntries = 1024;
  /// Of all stacks: another 32 kB. The rarest stacks have a name and a count, but no frames.
  static constexpr size_t kMaxFrames = 16384;

  /// Of changes that stand.
  static constexpr size_t kMaxStanding = 4;

  struct Entry {
    uint64_t name = 0;
    double count = 0;
    std::vector<float> since = {};  ///< its count in the mix since each change that stands
  };
  struct Stack {
    uint64_t name = 0;
    double count = 0;
    std::vector<uint64_t> frames = {};  ///< keys of functions (below), root first, 0: it is not known; may be empty
    std::vector<float> since = {};
  };
  /// A change that stood in the order in which they were found, and the mix from then until the next one. The counts
  /// above are what was before the first.
  struct Standing {
    uint64_t name = 0;  ///< key of the function, or name of the stack
    bool is_stack = false;
    bool calls_kernel = false;  ///< Cause::calls_kernel
    double dispersion = 1;
    double total = 0;  ///< of the mix since, as those below
    double squares = 0;
    double wall_s = 0;
    double cpu_s = 0;
  };
  double total = 0;    ///< samples in the baseline
  double squares = 0;  ///< sum of the squared totals of its ticks
  double wall_s = 0;
  double cpu_s = 0;
  double ticks = 0;                               ///< that the dispersion rests on
  std::array<double, kBlockScales> dispersion{};  ///< of the whole process, by length of block
  std::vector<Stack> stacks;
  std::vector<Entry> functions;         ///< inclusive counts
  std::vector<Standing> standing = {};  ///< at most kMaxStanding

  /// Keeps the kMaxEntries with most counts of each kind, and their first kMaxFrames frames.
  void bound();
};

[[nodiscard]] uint64_t name_of(FunctionId function, const FunctionTable& functions);
/// Two functions of one program may have one name (the C library's clock_gettime and the kernel's). In stacks the
/// larger one has its name as its key, the next one another key, and so on: call it with larger ones first.
class FunctionKeys {
 public:
  uint64_t next(uint64_t name);

 private:
  std::unordered_map<uint64_t, uint64_t> used_;
};

/// Some function of this name; it takes a pass over the table (30 ns a function).
[[nodiscard]] std::optional<FunctionId> find_function(uint64_t name, const FunctionTable& functions);
[[nodiscard]] uint64_t name_of(std::span<const FunctionId> stack, const FunctionTable& functions);
/// Whether most frames of a stack outside of the kernel are `[unknown]`: nothing was known of the memory they were in.
[[nodiscard]] bool is_unknown(std::span<const FunctionId> stack, const FunctionTable& functions);

/// Versioned and bounded: at most 68 kB, and 8 kB for each change that stands. Little-endian doubles and integers.
/// Version 2 where none stands, else 4.
[[nodiscard]] std::string encode(const ShareHeritage& heritage);
/// Of versions 1, which had no frames, and 3, which did not have `calls_kernel`, too. An error where the bytes are of
/// another one, cut off, or make no sense (shares above 1, numbers that are none).
[[nodiscard]] Result<ShareHeritage> decode_share_heritage(std::string_view bytes);

/// The heritage that nobody has claimed yet: a stack or function takes its part when the successor shows it first. Of
/// several with one name the first takes the part that was largest at last, in all mixes: what was one stays one.
class UnclaimedShares {
 public:
  struct Claim {
    double count = 0;          ///< before anything that stood
    std::vector<float> since;  ///< ShareHeritage::Entry::since; may be empty
  };

  void clear() { *this = {}; }
  void take(const ShareHeritage& heritage);
  [[nodiscard]] Claim claim_stack(uint64_t name) { return claim(stacks_, name); }
  [[nodiscard]] Claim claim_function(uint64_t name) { return claim(functions_, name); }
  /// As the baseline forgets, so does this.
  void halve() { scale_ /= 2; }
  [[nodiscard]] bool empty() const { return stacks_.empty() && functions_.empty(); }
  /// The stacks that are left, with frames.
  [[nodiscard]] std::vector<ShareHeritage::Stack> stacks() const;
  /// Adds what is left to what is handed on.
  void add_to(ShareHeritage& heritage) const;

 private:
  /// Of one name the smallest first.
  struct Part {
    double count = 0;
    std::vector<uint64_t> frames;
    std::vector<float> since;
    [[nodiscard]] double at_last() const { return since.empty() ? count : static_cast<double>(since.back()); }
  };
  using Counts = std::unordered_map<uint64_t, std::vector<Part>>;
  [[nodiscard]] Claim claim(Counts& counts, uint64_t name) const;

  Counts stacks_;
  Counts functions_;
  double scale_ = 1;
};

}  // namespace stackwatch
