// SPDX-License-Identifier: Apache-2.0
#include "detectors/cost_shift.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "detectors/share_heritage.h"

namespace stackwatch {
namespace {

// The onset is an estimate: a tick or two of the old state may be counted as new, of at least ten.
constexpr double kGone = 0.2;
constexpr double kNoise = 3.5;         // standard errors: dozens of functions are compared
constexpr double kOfSize = 0.5;        // what took part in a shift may differ by this part of its size
constexpr double kSameCores = 1.25;    // CPU time that counts as unchanged, as a factor
constexpr double kMainCaller = 0.8;    // part of a function's samples that its main caller has
constexpr double kIdentifiable = 0.5;  // a loser's part of all that would lose by another one's growth
constexpr double kOfMadeRoom = 0.5;    // of what others would have made room for cost that is new, or left by cost gone
// That vanished or appeared, the smallest of which may be noise; each is compared with each.
constexpr size_t kMaxCandidates = 4 * kMaxRenamed;
constexpr uint32_t kNone = 0xffffffff;

/// Both states, by function: with callees, and by itself.
struct Shares {
  std::vector<double> before, after;
  std::vector<double> own_before, own_after;

  explicit Shares(size_t functions)
      : before(functions), after(functions), own_before(functions), own_after(functions) {}
  [[nodiscard]] double change(uint32_t f) const { return after[f] - before[f]; }
};

/// One stack of either state.
struct Row {
  double before = 0, after = 0;     // counts
  std::vector<uint32_t> functions;  // each once, root first
  uint32_t leaf = kNone;
};

std::vector<uint32_t> each_once(const std::vector<uint32_t>& frames) {
  std::vector<uint32_t> out;
  for (const uint32_t f : frames) {
    if (std::ranges::find(out, f) == out.end()) out.push_back(f);
  }
  return out;
}

class ShiftSearch {
 public:
  ShiftSearch(StackIndex& index, const StackCounts& before, const StackCounts& after, const ShiftOptions& options,
              const PastStacks& past)
      : index_(index), before_(before), after_(after), options_(options), past_(past) {
    const auto stacks = static_cast<uint32_t>(std::max(before.by_stack.size(), after.by_stack.size()));
    for (uint32_t stack = 0; stack < std::min<size_t>(stacks, index.table().size()); ++stack) {
      if (before.stack(stack) <= 0 && after.stack(stack) <= 0) continue;
      const auto functions = index.functions_of(stack);
      rows_.push_back(
          {before.stack(stack), after.stack(stack), {functions.begin(), functions.end()}, leaf_of(stack, functions)});
    }
    for (const PastStacks::Stack& stack : past.stacks) {
      rows_.push_back({stack.count, 0, each_once(stack.frames), stack.frames.empty() ? kNone : stack.frames.back()});
    }
    as_.resize(index.functions() + past.names.size());
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
  uint32_t leaf_of(uint32_t stack, std::span<const uint16_t> functions) const {
    const auto frames = index_.table()[StackId{stack}];
    if (frames.empty()) return kNone;
    const auto found = std::ranges::find_if(functions, [&](uint32_t f) { return index_.function(f) == frames.back(); });
    return found == functions.end() ? kNone : *found;
  }

  [[nodiscard]] bool is_real(uint32_t f) const { return f >= index_.functions() || index_.is_real(f); }

  [[nodiscard]] std::optional<FunctionId> id(uint32_t f) const {
    if (f == kNone) return std::nullopt;
    if (f < index_.functions()) return index_.function(f);
    return past_.functions ? find_function(past_.names[f - index_.functions()], *past_.functions) : std::nullopt;
  }

  /// Under the present reading: as_[f] is what f counts as, kNone a part of its caller.
  Shares shares() {
    Shares out(as_.size());
    std::vector<uint32_t> seen(as_.size(), kNone);
    for (uint32_t row = 0; row < rows_.size(); ++row) {
      const double x = rows_[row].before / before_.total;
      const double y = rows_[row].after / after_.total;
      for (const uint32_t f : rows_[row].functions) {
        const uint32_t as = as_[f];
        if (as == kNone || std::exchange(seen[as], row) == row) continue;
        out.before[as] += x;
        out.after[as] += y;
      }
      const uint32_t own = own_of(rows_[row]);
      if (own == kNone) continue;
      out.own_before[own] += x;
      out.own_after[own] += y;
    }
    return out;
  }

  /// The function that a stack counts for by itself; kNone where there is none.
  [[nodiscard]] uint32_t own_of(const Row& row) const {
    if (row.leaf != kNone && as_[row.leaf] != kNone) return as_[row.leaf];  // of a recursion it may stand higher, too
    const auto real = std::ranges::find_if(row.functions.rbegin(), row.functions.rend(),
                                           [this](uint32_t f) { return as_[f] != kNone; });
    return real == row.functions.rend() ? kNone : as_[*real];
  }

  double noise(double x, double y) const {
    const double n0 = before_.total;
    const double n1 = after_.total;
    const double pooled = std::clamp((x * n0 + y * n1) / (n0 + n1), 0.0, 1.0);
    return kNoise * std::sqrt(options_.dispersion * pooled * (1 - pooled) * (1 / n0 + 1 / n1));
  }
  double worth_telling(double share) const {
    const double least = std::max(options_.min_change_share, options_.min_relative_change * share);
    return after_.cpu_s > 0 ? std::max(least, options_.min_change_cores / after_.cores()) : least;
  }
  bool same(double x, double y) const {
    return std::abs(y - x) <= std::max(worth_telling(std::max(x, y)), noise(x, y));
  }
  static bool close(double x, double y) { return std::abs(y - x) <= kOfSize * std::min(x, y); }
  /// Of what took part by itself, before and after: as much as before, as far as chance lets anybody see.
  bool stayed(double x, double y) const { return same(x, y) && (close(x, y) || std::abs(y - x) <= noise(x, y)); }

  /// Something that did not change must be there to compare with.
  bool comparable(double size_before, double size_after) const {
    if (1 - std::max(size_before, size_after) >= kReference) return true;
    const double x = before_.cores();
    const double y = after_.cores();
    return x > 0 && y > 0 && std::max(x, y) <= kSameCores * std::min(x, y);
  }

  // ---- renamed, inlined, outlined

  /// The function that most of f's samples are called from; kNone where it is the root, or there is no such one.
  [[nodiscard]] uint32_t caller_of(uint32_t f, double Row::*side) const {
    std::map<uint32_t, double> callers;
    double total = 0;
    for (const Row& row : rows_) {
      const double count = row.*side;
      if (count <= 0) continue;
      const auto& functions = row.functions;
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
      if (!is_real(f)) continue;
      const double x = plain.before[f];
      const double y = plain.after[f];
      if (x >= least && y <= kGone * x) gone.push_back({f, caller_of(f, &Row::before), x});
      if (y >= least && x <= kGone * y) fresh.push_back({f, caller_of(f, &Row::after), y});
      if (gone.size() > kMaxCandidates || fresh.size() > kMaxCandidates) return false;
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
        if (!stayed(old.share, candidate.share)) continue;
        if (best == nullptr || std::abs(candidate.share - old.share) < std::abs(best->share - old.share)) {
          best = &candidate;
        }
      }
      if (best == nullptr) continue;
      best->partner = old.function;
      old.partner = best->function;
      as_[best->function] = old.function;
    }
    for (auto* side : {&gone, &fresh}) {
      // Half of what is worth telling may be noise on a rare interrupt: it is no part of this, and no objection to it.
      std::erase_if(*side, [this](const Change& each) {
        return each.partner == kNone && each.share < worth_telling(each.share);
      });
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
        const bool is_pair = each.partner != kNone;
        if (!is_pair && !is_part_of_others(read, each, side == &fresh)) return false;
        const uint32_t f = is_pair ? as_[each.function] : each.caller == kNone ? kNone : as_[each.caller];
        if (f == kNone) continue;
        const double chance = is_pair ? noise(read.own_before[f], read.own_after[f]) : 0;
        const double own = std::abs(read.own_after[f] - read.own_before[f]);
        if (own > std::max(kOfSize * each.share, chance)) return false;
        if (is_pair && !stayed(read.before[f], read.after[f])) return false;
      }
    }
    return true;
  }

  /// Whether what appeared without a partner was done by somebody before (of what vanished: is done since), and is not
  /// new (gone). Those whose own cost it is told to be would then have given it, and as much as before lies with them.
  /// New cost makes all functions smaller alike: with them lies more, by what the rest made room.
  [[nodiscard]] bool is_part_of_others(const Shares& read, const Change& change, bool is_fresh) const {
    std::vector<bool> takes_part(as_.size());
    for (const Row& row : rows_) {
      if ((is_fresh ? row.after : row.before) <= 0) continue;
      if (std::ranges::find(row.functions, change.function) == row.functions.end()) continue;
      if (const uint32_t own = own_of(row); own != kNone) takes_part[own] = true;
    }
    double before = 0;
    double after = 0;
    for (uint32_t f = 0; f < takes_part.size(); ++f) {
      before += takes_part[f] ? read.own_before[f] : 0;
      after += takes_part[f] ? read.own_after[f] : 0;
    }
    const double more = is_fresh ? after - before : before - after;
    const double rest = 1 - (is_fresh ? before : after);
    return comparable(before, after) && more <= kOfMadeRoom * change.share * rest;
  }

  std::optional<CostShift> find_renamed(const Shares& plain) {
    std::vector<Change> gone;
    std::vector<Change> fresh;
    if (!gone_and_new(plain, gone, fresh)) return std::nullopt;
    pair_up(gone, fresh);
    if ((gone.empty() && fresh.empty()) || gone.size() > kMaxRenamed || fresh.size() > kMaxRenamed) return std::nullopt;
    if (!nothing_else_changed(gone, fresh)) return std::nullopt;
    const Change* main = gone.empty() ? &fresh.front() : &gone.front();
    if (!gone.empty() && !fresh.empty() && fresh.front().share > gone.front().share) main = &fresh.front();
    if (!comparable(plain.before[main->function], plain.after[main->function])) return std::nullopt;
    const bool was_there = main == (gone.empty() ? nullptr : &gone.front());
    CostShift shift;
    shift.certain = std::ranges::all_of(
        gone, [&](const Change& old) { return old.partner == kNone || close(old.share, plain.after[old.partner]); });
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

  /// A function's samples by who calls it.
  struct Call {
    uint32_t caller = kNone;
    double before = 0, after = 0;  // shares
    [[nodiscard]] double change() const { return after - before; }
  };
  struct Move {
    uint32_t what = kNone;
    Call lost, gained;
    [[nodiscard]] double size() const { return std::min(-lost.change(), gained.change()); }
    /// Nobody calls it as before, nobody called it as now: no growth elsewhere does that.
    [[nodiscard]] bool is_whole() const {
      return lost.after <= kGone * lost.before && gained.before <= kGone * gained.after;
    }
  };

  /// The function that most went from one of its callers to another one.
  [[nodiscard]] Move largest_move() const {
    std::map<std::pair<uint32_t, uint32_t>, Call> calls;  // by callee and caller
    for (const Row& row : rows_) {
      for (size_t i = 1; i < row.functions.size(); ++i) {
        Call& call = calls[{row.functions[i], row.functions[i - 1]}];
        call.caller = row.functions[i - 1];
        call.before += row.before / before_.total;
        call.after += row.after / after_.total;
      }
    }
    Move best;
    Move move;
    for (const auto& [key, call] : calls) {
      if (key.first != move.what) move = {key.first, {}, {}};
      if (call.change() < move.lost.change()) move.lost = call;
      if (call.change() > move.gained.change()) move.gained = call;
      if (is_real(move.what) && move.size() > best.size()) best = move;
    }
    return best;
  }

  /// Whether every function that changed lies above what moved, where it was if it lost and where it is if it gained.
  bool explains_all(const Shares& plain, const Move& move) const {
    std::vector<bool> above_lost(as_.size());
    std::vector<bool> above_gained(as_.size());
    for (const Row& row : rows_) {
      const auto at = std::ranges::find(row.functions, move.what);
      if (at == row.functions.end() || at == row.functions.begin()) continue;
      const bool was_lost = *(at - 1) == move.lost.caller && row.before > 0;
      const bool was_gained = *(at - 1) == move.gained.caller && row.after > 0;
      for (auto it = row.functions.begin(); it != at; ++it) {
        if (was_lost) above_lost[*it] = true;
        if (was_gained) above_gained[*it] = true;
      }
    }
    for (uint32_t f = 0; f < as_.size(); ++f) {
      if (same(plain.before[f], plain.after[f])) continue;
      if (!is_real(f) || !(plain.change(f) > 0 ? above_gained[f] : above_lost[f])) return false;
    }
    return true;
  }

  std::optional<CostShift> find_moved(const Shares& plain) {
    for (uint32_t f = 0; f < as_.size(); ++f) {
      if (!same(plain.own_before[f], plain.own_after[f])) return std::nullopt;
    }
    const Move move = largest_move();
    const double size = move.size();
    if (move.what == kNone || size < options_.min_change_share / 2) return std::nullopt;
    const double lost = -move.lost.change();
    const double gained = move.gained.change();
    const double before = plain.before[move.what];
    const double after = plain.after[move.what];
    const auto stays = [&](double x, double y) {
      return move.is_whole() ? stayed(x, y) : same(x, y) && std::abs(y - x) <= kOfSize * size;
    };
    if (!stays(lost, gained) || !stays(before, after) || !explains_all(plain, move)) return std::nullopt;
    if (move.is_whole() ? !comparable(size, size) : !is_more_than_made_room(plain, move)) return std::nullopt;
    return CostShift{CostShift::Kind::kMoved, id(move.lost.caller),
                     id(move.gained.caller),  std::nullopt,
                     id(move.what),           close(lost, gained) && close(before, after)};
  }

  /// A part of its calls went: when one caller grows the others lose too.
  bool is_more_than_made_room(const Shares& plain, const Move& move) const {
    if (same(move.lost.before, move.lost.after) || same(move.gained.before, move.gained.after)) return false;
    const double others = 1 - plain.before[move.gained.caller];
    return others > 0 && plain.before[move.lost.caller] <= kIdentifiable * others;
  }

  StackIndex& index_;
  const StackCounts& before_;
  const StackCounts& after_;
  const ShiftOptions& options_;
  const PastStacks& past_;
  std::vector<Row> rows_;  // with any count before or after
  std::vector<uint32_t> as_;
};

}  // namespace

std::optional<CostShift> find_cost_shift(StackIndex& index, const StackCounts& before, const StackCounts& after,
                                         const ShiftOptions& options, const PastStacks& past) {
  if (before.total <= 0 || after.total <= 0) return std::nullopt;
  return ShiftSearch(index, before, after, options, past).find();
}

}  // namespace stackwatch
