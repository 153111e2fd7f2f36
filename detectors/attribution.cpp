// SPDX-License-Identifier: Apache-2.0
#include "detectors/attribution.h"

#include <algorithm>
#include <cmath>

#include "core/kernel_entry.h"
#include "detectors/kernel_way.h"

namespace stackwatch {
namespace {

constexpr double kSignificant = 4;         // standard errors; the evidence itself is judged elsewhere
constexpr double kGrowthPreferred = 0.5;   // of the largest shrinkage
constexpr double kPassive = 0.25;          // a share whose cores moved less than this part of it only made room
constexpr double kKnown = 0.5;             // part of a change that [other] cannot hide
constexpr double kContributorPart = 0.25;  // of the cause's change; smaller ones are noise to a reader
constexpr size_t kMaxContributors = 8;

class Attribution {
 public:
  Attribution(StackIndex& index, const StackCounts& before, const StackCounts& after, const AttributionOptions& options)
      : index_(index), before_(before), after_(after), options_(options) {
    const uint32_t stacks = static_cast<uint32_t>(std::max(before.by_stack.size(), after.by_stack.size()));
    for (uint32_t stack = 0; stack < stacks; ++stack) {
      if (before.stack(stack) > 0 || after.stack(stack) > 0) stacks_.push_back(stack);
      (void)index.functions_of(stack < index.table().size() ? stack : 0);
    }
    if (const auto other = index.number_of(FunctionTable::kOther)) {
      unknown_change_ = after_.function_share(*other) - before_.function_share(*other);
    }
    joint_.resize(index.functions());
    depth_.resize(index.functions());
    position_.resize(index.functions());
    settled_.resize(index.functions());
  }

  std::optional<Cause> find() {
    const std::optional<uint32_t> top = options_.function ? options_.function : main_change();
    if (!top) return changed_stack();
    const Named cause = options_.function ? Named{*top, false} : deepest_of(*top);
    Cause out;
    out.function = cause.function;
    out.calls_kernel = cause.calls_kernel;
    out.before = before_.function_share(cause.function);
    out.after = after_.function_share(cause.function);
    out.stack = stack_of(cause.function);
    settle_relatives(cause.function);
    add_contributors(out);
    return out;
  }

 private:
  double change(uint32_t f) const { return after_.function_share(f) - before_.function_share(f); }
  double stack_change(uint32_t s) const { return after_.stack_share(s) - before_.stack_share(s); }

  bool significant(double count_before, double count_after) const {
    const double n0 = before_.total;
    const double n1 = after_.total;
    const double pooled = (count_before + count_after) / (n0 + n1);
    const double variance = options_.dispersion * pooled * std::max(0.0, 1 - pooled) * (1 / n0 + 1 / n1);
    const double difference = count_after / n1 - count_before / n0;
    return difference * difference > kSignificant * kSignificant * variance;
  }

  // Where the table of stacks is full, new stacks of known functions are [other]: what a function lost may lie there,
  // or what it gained have come from there. What goes beyond that is known to have changed.
  bool certain(double count_before, double count_after) const {
    const double difference = count_after / after_.total - count_before / before_.total;
    if (difference * unknown_change_ >= 0) return significant(count_before, count_after);
    if (std::abs(unknown_change_) > (1 - kKnown) * std::abs(difference)) return false;
    return significant(count_before, count_after + unknown_change_ * after_.total);
  }

  // Shares are relative: when one function stops, all others grow in share and do nothing more than before.
  bool passive(uint32_t f) const {
    if (before_.cpu_s <= 0 || after_.cpu_s <= 0) return false;
    const double cores = after_.function_share(f) * after_.cores() - before_.function_share(f) * before_.cores();
    return cores / (change(f) * std::max(before_.cores(), after_.cores())) < kPassive;
  }

  std::optional<uint32_t> largest(int direction) const {
    std::optional<uint32_t> best;
    for (uint32_t f = 0; f < settled_.size(); ++f) {
      if (settled_[f] || !index_.is_real(f) || change(f) * direction <= 0) continue;
      if (best && std::abs(change(f)) <= std::abs(change(*best))) continue;
      if (certain(before_.function(f), after_.function(f)) && !passive(f)) best = f;
    }
    return best;
  }

  std::optional<uint32_t> main_change() const {
    const auto grown = largest(+1);
    const auto shrunk = largest(-1);
    if (!grown || !shrunk) return grown ? grown : shrunk;
    return change(*grown) >= -change(*shrunk) * kGrowthPreferred ? grown : shrunk;
  }

  // For every function that shares stacks with `f`: the part of the change on common stacks (joint_) and how much
  // deeper than `f` it lies on average (depth_), weighted by what each stack changed in f's direction.
  void relate(uint32_t f) {
    std::fill(joint_.begin(), joint_.end(), 0.0);
    std::fill(depth_.begin(), depth_.end(), Depth{});
    const double direction = change(f) > 0 ? 1 : -1;
    for (const uint32_t stack : stacks_) {
      const auto functions = index_.functions_of(stack);
      if (std::find(functions.begin(), functions.end(), f) == functions.end()) continue;
      note_positions(stack, functions);
      const double moved = stack_change(stack) * direction;
      // The average of several stacks: also those that did not move have a say, so that a tie is none.
      const double weight = std::max(moved, 0.0) + 1e-9 * (after_.stack_share(stack) + before_.stack_share(stack));
      for (const uint32_t other : functions) {
        joint_[other] += moved;
        depth_[other].sum += weight * (position_[other] - position_[f]);
        depth_[other].weight += weight;
      }
    }
  }

  // The last occurrence: in a recursion main, f, f, f, leaf the depth of f is 3.
  void note_positions(uint32_t stack, std::span<const uint16_t> functions) {
    const auto frames = index_.table()[StackId{stack}];
    if (functions.size() == frames.size()) {
      for (size_t i = 0; i < functions.size(); ++i) position_[functions[i]] = static_cast<double>(i);
      return;
    }
    for (const uint32_t f : functions) {
      const auto last = std::find(frames.rbegin(), frames.rend(), index_.function(f));
      position_[f] = static_cast<double>(frames.rend() - last);
    }
  }

  double average_depth(uint32_t f) const { return depth_[f].weight > 0 ? depth_[f].sum / depth_[f].weight : 0; }

  struct Named {
    uint32_t function = 0;
    bool calls_kernel = false;
  };

  Named deepest_of(uint32_t top) {
    relate(top);
    const double needed = options_.explains * std::abs(change(top));
    const double direction = change(top) > 0 ? 1 : -1;
    uint32_t best = top;
    for (uint32_t f = 0; f < joint_.size(); ++f) {
      if (settled_[f] || !index_.is_real(f)) continue;
      if (joint_[f] < needed || change(f) * direction < needed) continue;
      if (average_depth(f) > average_depth(best)) best = f;
    }
    return caller_of(best, direction, needed).value_or(Named{best, false});
  }

  // Whoever called a way into the kernel for as much of the change as is needed; nobody where that are several, or
  // where `way` is none. What did not get into the kernel (a lock that was free) is the caller's own work.
  std::optional<Named> caller_of(uint32_t way, double direction, double needed) {
    if (options_.names == nullptr || !is_way_into_kernel((*options_.names)[index_.function(way)].name)) return {};
    std::vector<double> called(settled_.size());
    std::vector<double> in_kernel(settled_.size());
    for (const uint32_t stack : stacks_) {
      const auto frames = index_.table()[StackId{stack}];
      const auto last = std::find(frames.rbegin(), frames.rend(), index_.function(way));
      if (last == frames.rend()) continue;
      const auto caller = who_went(frames, static_cast<size_t>(frames.rend() - last) - 1, *options_.names);
      const auto number = caller ? index_.number_of(*caller) : std::nullopt;
      if (!number || *number >= called.size()) continue;
      const double moved = stack_change(stack) * direction;
      called[*number] += moved;
      if (is_in_kernel((*options_.names)[frames.back()].name)) in_kernel[*number] += moved;
    }
    const auto most = std::max_element(called.begin(), called.end());
    if (most == called.end() || *most < needed) return {};
    const auto caller = static_cast<uint32_t>(most - called.begin());
    if (caller == way || settled_[caller] || change(caller) * direction < needed) return {};
    return Named{caller, in_kernel[caller] >= needed};
  }

  uint32_t stack_of(uint32_t f) const {
    const double direction = change(f) > 0 ? 1 : -1;
    uint32_t best = 0;
    double most = -1;
    for (const uint32_t stack : stacks_) {
      const double moved = stack_change(stack) * direction;
      if (moved <= most) continue;
      const auto functions = index_.functions_of(stack);
      if (std::find(functions.begin(), functions.end(), f) == functions.end()) continue;
      best = stack;
      most = moved;
    }
    return best;
  }

  // What lies above a function that was named, and what lies below and moved the same way, has been told with it.
  void settle_relatives(uint32_t f) {
    relate(f);
    settled_[f] = true;
    for (uint32_t other = 0; other < depth_.size(); ++other) {
      if (other == f || depth_[other].weight <= 0) continue;
      const bool above = average_depth(other) < 0;
      const bool follows = change(other) * change(f) > 0;
      if (above || follows) settled_[other] = true;
    }
  }

  void add_contributors(Cause& cause) {
    const double smallest = std::max(options_.min_change, kContributorPart * std::abs(cause.change()));
    while (cause.contributors.size() < kMaxContributors) {
      const auto grown = largest(+1);
      const auto shrunk = largest(-1);
      if (!grown && !shrunk) break;
      const bool up = grown && (!shrunk || change(*grown) >= -change(*shrunk));
      const uint32_t top = up ? *grown : *shrunk;
      if (std::abs(change(top)) < smallest) break;
      const uint32_t f = deepest_of(top).function;
      cause.contributors.push_back({index_.function(f), before_.function_share(f), after_.function_share(f)});
      settled_[top] = true;
      settle_relatives(f);
    }
  }

  // No function's inclusive share moved, but a stack's did: the same work is reached on another way.
  std::optional<Cause> changed_stack() const {
    std::optional<uint32_t> best;
    for (const uint32_t stack : stacks_) {
      const auto frames = index_.table()[StackId{stack}];
      if (frames.empty() || frames.back() == FunctionTable::kOther || frames.back() == FunctionTable::kUnnamed) {
        continue;
      }
      if (best && std::abs(stack_change(stack)) <= std::abs(stack_change(*best))) continue;
      if (certain(before_.stack(stack), after_.stack(stack))) best = stack;
    }
    if (!best) return std::nullopt;
    Cause out;
    out.stack = *best;
    out.before = before_.stack_share(*best);
    out.after = after_.stack_share(*best);
    return out;
  }

  struct Depth {
    double sum = 0;
    double weight = 0;
  };

  StackIndex& index_;
  const StackCounts& before_;
  const StackCounts& after_;
  const AttributionOptions& options_;
  std::vector<uint32_t> stacks_;  // with any count before or after
  double unknown_change_ = 0;     // of the share of [other]
  std::vector<double> joint_;
  std::vector<Depth> depth_;
  std::vector<double> position_;
  std::vector<bool> settled_;  // already told
};

}  // namespace

std::optional<Cause> find_cause(StackIndex& index, const StackCounts& before, const StackCounts& after,
                                const AttributionOptions& options) {
  if (before.total <= 0 || after.total <= 0) return std::nullopt;
  return Attribution(index, before, after, options).find();
}

}  // namespace stackwatch
