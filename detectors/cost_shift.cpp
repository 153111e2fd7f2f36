// SPDX-License-Identifier: Apache-2.0
#include "detectors/cost_shift.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <utility>
#include <vector>

namespace stackwatch {
namespace {

// The onset is an estimate: a tick or two of the old state may be counted as new, of at least ten.
constexpr double kGone = 0.2;
constexpr double kNoise = 3;           // standard errors
constexpr double kOfSize = 0.5;        // what took part in a shift may differ by this part of its size
constexpr double kSameCores = 1.25;    // CPU time that counts as unchanged, as a factor
constexpr double kMainCaller = 0.8;    // part of a function's samples that its main caller has
constexpr double kCarried = 0.8;       // part of a move that the function that moved must carry
constexpr double kIdentifiable = 0.5;  // a loser's part of all that would lose by another one's growth
constexpr uint32_t kNone = 0xffffffff;

/// Both states, by function: with callees, and by itself.
struct Shares {
  std::vector<double> before, after;
  std::vector<double> own_before, own_after;

  explicit Shares(size_t functions)
      : before(functions), after(functions), own_before(functions), own_after(functions) {}
  [[nodiscard]] double change(uint32_t f) const { return after[f] - before[f]; }
};

class ShiftSearch {
 public:
  ShiftSearch(StackIndex& index, const StackCounts& before, const StackCounts& after, const ShiftOptions& options)
      : index_(index), before_(before), after_(after), options_(options) {
    const auto stacks = static_cast<uint32_t>(std::max(before.by_stack.size(), after.by_stack.size()));
    for (uint32_t stack = 0; stack < std::min<size_t>(stacks, index.table().size()); ++stack) {
      if (before.stack(stack) <= 0 && after.stack(stack) <= 0) continue;
      (void)index.functions_of(stack);
      stacks_.push_back(stack);
    }
    as_.resize(index.functions());
    for (uint32_t f = 0; f < as_.size(); ++f) as_[f] = f;
  }

  std::optional<CostShift> find() {
    const Shares plain = shares();
    if (auto renamed = find_renamed(plain)) return renamed;
    for (uint32_t f = 0; f < as_.size(); ++f) as_[f] = f;
    return find_moved(plain);
  }

 private:
  // The leaf is in the list of functions where there was room for it: kNone where not.
  uint32_t leaf_of(uint32_t stack, std::span<const uint32_t> functions) const {
    const auto frames = index_.table()[StackId{stack}];
    if (frames.empty()) return kNone;
    const auto found = std::ranges::find_if(functions, [&](uint32_t f) { return index_.function(f) == frames.back(); });
    return found == functions.end() ? kNone : *found;
  }

  /// Under the present reading: as_[f] is what f counts as, kNone a part of its caller.
  Shares shares() {
    Shares out(as_.size());
    std::vector<uint32_t> seen(as_.size(), kNone);
    for (const uint32_t stack : stacks_) {
      const double x = before_.stack(stack) / before_.total;
      const double y = after_.stack(stack) / after_.total;
      const auto functions = index_.functions_of(stack);
      const uint32_t leaf = leaf_of(stack, functions);
      uint32_t own = kNone;
      for (const uint32_t f : functions) {
        const uint32_t as = as_[f];
        if (as == kNone) continue;
        own = as;
        if (std::exchange(seen[as], stack) == stack) continue;
        out.before[as] += x;
        out.after[as] += y;
      }
      if (leaf != kNone && as_[leaf] != kNone) own = as_[leaf];  // of a recursion the leaf may stand higher, too
      if (own == kNone) continue;
      out.own_before[own] += x;
      out.own_after[own] += y;
    }
    return out;
  }

  double noise(double x, double y) const {
    const double n0 = before_.total;
    const double n1 = after_.total;
    const double pooled = std::clamp((x * n0 + y * n1) / (n0 + n1), 0.0, 1.0);
    return kNoise * std::sqrt(options_.dispersion * pooled * (1 - pooled) * (1 / n0 + 1 / n1));
  }
  double worth_telling(double share) const {
    return std::max(options_.min_change_share, options_.min_relative_change * share);
  }
  bool same(double x, double y) const {
    return std::abs(y - x) <= std::max(worth_telling(std::max(x, y)), noise(x, y));
  }
  bool same(double x, double y, double size) const { return same(x, y) && std::abs(y - x) <= kOfSize * size; }

  /// Something that did not change must be there to compare with.
  bool comparable(double size_before, double size_after) const {
    if (1 - std::max(size_before, size_after) >= kReference) return true;
    const double x = before_.cores();
    const double y = after_.cores();
    return x > 0 && y > 0 && std::max(x, y) <= kSameCores * std::min(x, y);
  }

  // ---- renamed, inlined, outlined

  /// The function that most of f's samples are called from; kNone where it is the root, or there is no such one.
  uint32_t caller_of(uint32_t f, const StackCounts& counts) {
    std::map<uint32_t, double> callers;
    double total = 0;
    for (const uint32_t stack : stacks_) {
      const double count = counts.stack(stack);
      if (count <= 0) continue;
      const auto functions = index_.functions_of(stack);
      const auto found = std::ranges::find(functions, f);
      if (found == functions.end()) continue;
      callers[found == functions.begin() ? kNone : *(found - 1)] += count;
      total += count;
    }
    for (const auto& [caller, count] : callers) {
      if (count >= kMainCaller * total) return caller;
    }
    return kNone;
  }

  struct Change {
    uint32_t function = kNone;
    uint32_t caller = kNone;
    double share = 0;
    uint32_t partner = kNone;
  };

  /// Callers before callees, as far as their share tells.
  bool gone_and_new(const Shares& plain, std::vector<Change>& gone, std::vector<Change>& fresh) {
    const double least = options_.min_change_share / 2;
    for (uint32_t f = 0; f < as_.size(); ++f) {
      if (!index_.is_real(f)) continue;
      const double x = plain.before[f];
      const double y = plain.after[f];
      if (x >= least && y <= kGone * x) gone.push_back({f, caller_of(f, before_), x});
      if (y >= least && x <= kGone * y) fresh.push_back({f, caller_of(f, after_), y});
      if (gone.size() > kMaxRenamed || fresh.size() > kMaxRenamed) return false;
    }
    std::ranges::stable_sort(gone, std::greater{}, &Change::share);
    std::ranges::stable_sort(fresh, std::greater{}, &Change::share);
    return !gone.empty() || !fresh.empty();
  }

  void pair_up(std::vector<Change>& gone, std::vector<Change>& fresh) {
    for (Change& old : gone) {
      Change* best = nullptr;
      for (Change& candidate : fresh) {
        const uint32_t caller = candidate.caller == kNone ? kNone : as_[candidate.caller];
        if (candidate.partner != kNone || caller != old.caller) continue;
        if (!same(old.share, candidate.share, std::max(old.share, candidate.share))) continue;
        if (best == nullptr || std::abs(candidate.share - old.share) < std::abs(best->share - old.share)) {
          best = &candidate;
        }
      }
      if (best == nullptr) continue;
      best->partner = old.function;
      old.partner = best->function;
      as_[best->function] = old.function;
    }
    for (const auto* side : {&gone, &fresh}) {
      for (const Change& each : *side) {
        if (each.partner == kNone) as_[each.function] = kNone;
      }
    }
  }

  bool nothing_else_changed(const std::vector<Change>& gone, const std::vector<Change>& fresh) {
    const Shares read = shares();
    for (uint32_t f = 0; f < as_.size(); ++f) {
      if (!same(read.before[f], read.after[f]) || !same(read.own_before[f], read.own_after[f])) return false;
    }
    // What took part must have stayed by itself, and not within the noise of larger things.
    for (const auto* side : {&gone, &fresh}) {
      for (const Change& each : *side) {
        const uint32_t f = each.partner != kNone ? as_[each.function] : each.caller;
        if (f == kNone || as_[f] == kNone) continue;
        if (std::abs(read.own_after[f] - read.own_before[f]) > kOfSize * each.share) return false;
        if (each.partner != kNone && std::abs(read.change(f)) > kOfSize * each.share) return false;
      }
    }
    return true;
  }

  std::optional<CostShift> find_renamed(const Shares& plain) {
    std::vector<Change> gone;
    std::vector<Change> fresh;
    if (!gone_and_new(plain, gone, fresh)) return std::nullopt;
    pair_up(gone, fresh);
    if (!nothing_else_changed(gone, fresh)) return std::nullopt;
    const Change* main = gone.empty() ? &fresh.front() : &gone.front();
    if (!gone.empty() && !fresh.empty() && fresh.front().share > gone.front().share) main = &fresh.front();
    if (!comparable(plain.before[main->function], plain.after[main->function])) return std::nullopt;
    const bool was_there = main == (gone.empty() ? nullptr : &gone.front());
    const auto id = [&](uint32_t f) { return f == kNone ? std::optional<FunctionId>() : index_.function(f); };
    CostShift shift;
    shift.under = id(main->caller);
    if (main->partner != kNone) {
      shift.kind = CostShift::Kind::kRenamed;
      shift.from = id(was_there ? main->function : main->partner);
      shift.to = id(was_there ? main->partner : main->function);
      const auto old = std::ranges::find(gone, was_there ? main->function : main->partner, &Change::function);
      shift.under = id(old->caller);
    } else if (main->caller == kNone) {
      return std::nullopt;  // a root has nobody to be a part of
    } else {
      shift.kind = was_there ? CostShift::Kind::kInlined : CostShift::Kind::kOutlined;
      shift.from = id(was_there ? main->function : main->caller);
      shift.to = id(was_there ? main->caller : main->function);
    }
    return shift;
  }

  // ---- moved

  /// The deepest of those that changed in a direction, if all of them lie on its stacks; kNone where there is none.
  uint32_t end_of_chain(const Shares& plain, int direction) {
    uint32_t deepest = kNone;
    size_t depth = 0;
    std::vector<uint32_t> changed;
    for (uint32_t f = 0; f < as_.size(); ++f) {
      if (same(plain.before[f], plain.after[f])) continue;
      if (!index_.is_real(f)) return kNone;
      if (plain.change(f) * direction > 0) changed.push_back(f);
    }
    const StackCounts& counts = direction > 0 ? after_ : before_;
    for (const uint32_t stack : stacks_) {
      if (counts.stack(stack) <= 0) continue;
      const auto functions = index_.functions_of(stack);
      const auto holds = [&](uint32_t f) { return std::ranges::find(functions, f) != functions.end(); };
      if (!std::ranges::all_of(changed, holds)) continue;
      for (const uint32_t f : changed) {
        const auto at = static_cast<size_t>(std::ranges::find(functions, f) - functions.begin()) + 1;
        if (at > depth) std::tie(depth, deepest) = std::pair(at, f);
      }
    }
    return deepest;
  }

  /// The function that took the move with it: the one nearest to the two callers.
  uint32_t moved_between(const Shares& plain, uint32_t loser, uint32_t gainer, double size) {
    std::vector<double> lost(as_.size());
    std::vector<double> gained(as_.size());
    for (const uint32_t stack : stacks_) {
      const double moved = after_.stack_share(stack) - before_.stack_share(stack);
      const auto functions = index_.functions_of(stack);
      const auto below = [&](uint32_t caller, std::vector<double>& sum, double sign) {
        const auto at = std::ranges::find(functions, caller);
        for (auto it = at == functions.end() ? at : at + 1; it != functions.end(); ++it) sum[*it] += sign * moved;
      };
      below(loser, lost, -1);
      below(gainer, gained, +1);
    }
    uint32_t best = kNone;
    for (uint32_t f = 0; f < as_.size(); ++f) {
      if (!index_.is_real(f) || !same(plain.before[f], plain.after[f], size)) continue;
      if (std::min(lost[f], gained[f]) < kCarried * size) continue;
      // Its own callees carry as much: the largest share is the highest.
      if (best == kNone || plain.before[f] > plain.before[best]) best = f;
    }
    return best;
  }

  std::optional<CostShift> find_moved(const Shares& plain) {
    for (uint32_t f = 0; f < as_.size(); ++f) {
      if (!same(plain.own_before[f], plain.own_after[f])) return std::nullopt;
    }
    const uint32_t gainer = end_of_chain(plain, +1);
    const uint32_t loser = end_of_chain(plain, -1);
    if (gainer == kNone || loser == kNone) return std::nullopt;
    const double size = plain.change(gainer);
    if (!same(size, -plain.change(loser), size)) return std::nullopt;
    const double others = 1 - plain.before[gainer];
    if (others <= 0 || plain.before[loser] > kIdentifiable * others) return std::nullopt;
    const uint32_t moved = moved_between(plain, loser, gainer, size);
    if (moved == kNone) return std::nullopt;
    CostShift shift;
    shift.kind = CostShift::Kind::kMoved;
    shift.from = index_.function(loser);
    shift.to = index_.function(gainer);
    shift.what = index_.function(moved);
    return shift;
  }

  StackIndex& index_;
  const StackCounts& before_;
  const StackCounts& after_;
  const ShiftOptions& options_;
  std::vector<uint32_t> stacks_;  // with any count before or after
  std::vector<uint32_t> as_;
};

}  // namespace

std::optional<CostShift> find_cost_shift(StackIndex& index, const StackCounts& before, const StackCounts& after,
                                         const ShiftOptions& options) {
  if (before.total <= 0 || after.total <= 0) return std::nullopt;
  return ShiftSearch(index, before, after, options).find();
}

}  // namespace stackwatch
