// SPDX-License-Identifier: Apache-2.0
#include "detectors/wait_heritage.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "detectors/saved_bytes.h"
#include "detectors/share_heritage.h"
#include "detectors/wait.h"

namespace stackwatch {
namespace {

constexpr uint64_t kMagic = 0x3174696177737773;  // "swswait1": the last digit is the version
// More threads than wait anywhere, in milliseconds a second.
constexpr double kMaxRate = 1e9;

void keep_largest(std::vector<WaitHeritage::Entry>& entries) {
  std::ranges::sort(entries, [](const auto& a, const auto& b) {
    return a.amount != b.amount ? a.amount > b.amount : a.name < b.name;
  });
  if (entries.size() > WaitHeritage::kMaxEntries) entries.resize(WaitHeritage::kMaxEntries);
}

Failure refuse(std::string why) {
  return fail(ErrorKind::kFailed, "a saved baseline", std::move(why), "it is learned anew");
}

std::array<float, kBlockScales> shorten(const std::array<double, kBlockScales>& scatter) {
  std::array<float, kBlockScales> out{};
  std::ranges::transform(scatter, out.begin(), [](double of) { return static_cast<float>(of); });
  return out;
}

}  // namespace

std::string encode(WaitHeritage heritage) {
  SavedWriter out;
  out.put(kMagic);
  out.put(heritage.wall_s);
  out.put(heritage.usual_load);
  for (const double blocks : heritage.blocks) out.put(blocks);
  for (auto* entries : {&heritage.stacks, &heritage.functions}) {
    keep_largest(*entries);
    out.put(static_cast<uint64_t>(entries->size()));
    for (const auto& entry : *entries) {
      out.put(entry.name);
      out.put(entry.amount);
      for (const float of : entry.scatter) out.put(of);
    }
  }
  const size_t parked = std::min(heritage.parked.size(), WaitHeritage::kMaxEntries);
  out.put(static_cast<uint64_t>(parked));
  for (size_t i = 0; i < parked; ++i) out.put(heritage.parked[i]);
  return out.take();
}

Result<WaitHeritage> decode_wait_heritage(std::string_view bytes) {
  SavedReader in(bytes);
  if (in.integer() != kMagic) return refuse("it is of another version, or no baseline");
  WaitHeritage out;
  out.wall_s = in.amount();
  out.usual_load = in.amount();
  for (double& blocks : out.blocks) blocks = in.amount();
  for (auto* entries : {&out.stacks, &out.functions}) {
    const uint64_t size = in.integer();
    if (size > WaitHeritage::kMaxEntries) return refuse("it has too many entries");
    for (uint64_t i = 0; i < size && in.ok(); ++i) {
      WaitHeritage::Entry entry;
      entry.name = in.integer();
      entry.amount = in.amount();
      for (float& of : entry.scatter) of = in.brief_amount();
      if (entry.amount > kMaxRate * out.wall_s) return refuse("more was waited than there can be");
      entries->push_back(entry);
    }
  }
  const uint64_t parked = in.integer();
  if (parked > WaitHeritage::kMaxEntries) return refuse("it has too many entries");
  for (uint64_t i = 0; i < parked && in.ok(); ++i) out.parked.push_back(in.integer());
  if (!in.ok() || !in.at_end()) return refuse("it is damaged");
  return out;
}

void InheritedWaits::take(const std::vector<WaitHeritage::Entry>& entries) {
  entries_.clear();
  for (const auto& entry : entries) {
    Inherited& inherited = entries_[entry.name];
    if (entry.amount < inherited.amount) continue;
    inherited.amount = entry.amount;
    std::ranges::transform(entry.scatter, inherited.scatter.begin(), [](float of) { return static_cast<double>(of); });
  }
}

double InheritedWaits::claim(uint64_t name) {
  const auto found = entries_.find(name);
  return found == entries_.end() || std::exchange(found->second.claimed, true) ? 0 : found->second.amount;
}

const std::array<double, kBlockScales>* InheritedWaits::scatter(uint64_t name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second.scatter;
}

void InheritedWaits::halve() {
  for (auto& [name, entry] : entries_) {
    entry.amount /= 2;
    for (double& of : entry.scatter) of /= 2;
  }
}

void InheritedWaits::add_to(std::vector<WaitHeritage::Entry>& entries) const {
  for (const auto& [name, entry] : entries_) {
    if (!entry.claimed) entries.push_back({name, entry.amount, shorten(entry.scatter)});
  }
}

// ---- the detector's part

std::string WaitDetector::save() const {
  if (learning_) return {};
  WaitHeritage out{baseline_.wall_s, usual_load_, moments_.blocks(), {}, {}, {}};
  std::vector<std::array<float, kBlockScales>> of_stack(stack_names_.size());
  std::vector<std::array<float, kBlockScales>> of_function(function_names_.size());
  for (size_t stream = 0; stream < streams_.size() && !start_up_s_; ++stream) {
    const Item item = streams_[stream];
    auto& of = item.is_stack ? of_stack : of_function;
    if (item.used && item.index < of.size()) of[item.index] = shorten(moments_.scatter(stream));
  }
  for (uint32_t stack = 0; stack < stack_names_.size(); ++stack) {
    if (stack_names_[stack] == 0) continue;
    if (stack < left_out_.size() && left_out_[stack] != 0) {
      out.parked.push_back(stack_names_[stack]);
    } else if (baseline_.stack(stack) > 0) {
      out.stacks.push_back({stack_names_[stack], baseline_.stack(stack), of_stack[stack]});
    }
  }
  for (uint32_t f = 0; f < function_names_.size(); ++f) {
    if (baseline_.function(f) > 0) out.functions.push_back({function_names_[f], baseline_.function(f), of_function[f]});
  }
  inherited_stacks_.add_to(out.stacks);
  inherited_functions_.add_to(out.functions);
  out.parked.insert(out.parked.end(), parked_.begin(), parked_.end());
  std::ranges::sort(out.parked);
  out.parked.erase(std::unique(out.parked.begin(), out.parked.end()), out.parked.end());
  return encode(std::move(out));
}

Result<void> WaitDetector::restore(std::string_view saved) {
  const auto heritage = decode_wait_heritage(saved);
  if (!heritage) return Failure(heritage.error());
  forget_all();
  if (heritage->wall_s < settings_.learn_s) return {};
  baseline_.wall_s = heritage->wall_s;
  moments_.inherit(heritage->blocks, heritage->wall_s);
  inherited_stacks_.take(heritage->stacks);
  inherited_functions_.take(heritage->functions);
  parked_.insert(heritage->parked.begin(), heritage->parked.end());
  usual_load_ = load_ = heritage->usual_load;
  load_seen_s_ = std::min(heritage->wall_s, settings_.memory_s);
  learning_ = false;
  inherited_ = true;
  start_up_s_ = settings_.learn_s;
  return {};
}

// Of a stack or function that is seen for the first time; what a predecessor knew about it is claimed then, or at the
// end of the start-up.
void WaitDetector::learn_names(const Tick& tick) {
  for (const Tick::Entry& entry : tick.entries) {
    grow_to(stack_names_, size_t{entry.stack} + 1);
    if (stack_names_[entry.stack] != 0) continue;
    stack_names_[entry.stack] = name_of(index_.table()[StackId{entry.stack}], *functions_);
    (void)index_.functions_of(entry.stack);
    grow_to(baseline_.by_stack, size_t{entry.stack} + 1);
    if (!start_up_s_)
      baseline_.by_stack[entry.stack] += static_cast<float>(inherited_stacks_.claim(stack_names_[entry.stack]));
  }
  grow_to(baseline_.by_function, index_.functions());
  auto f = static_cast<uint32_t>(function_names_.size());
  for (grow_to(function_names_, index_.functions()); f < index_.functions(); ++f) {
    function_names_[f] = name_of(index_.function(f), *functions_);
    if (!start_up_s_) baseline_.by_function[f] += static_cast<float>(inherited_functions_.claim(function_names_[f]));
  }
}

// A process is a fork of somebody else's program before it is its own: what was left to a name goes to the function
// that has it and was waited in most.
void WaitDetector::end_start_up() {
  start_up_s_.reset();
  StackCounts seen;
  for (size_t i = 0; i < window_.size(); ++i) seen.add(window_[i], index_);
  StackCounts unknown = seen;
  for (uint32_t stack = 0; stack < stack_names_.size(); ++stack) {
    if (stack_names_[stack] == 0) continue;
    const double known = inherited_stacks_.claim(stack_names_[stack]);
    baseline_.by_stack[stack] += static_cast<float>(known);
    // What the predecessor counted is compared and not parked, however long it takes now.
    if (known > 0 && stack < unknown.by_stack.size()) unknown.by_stack[stack] = 0;
  }
  std::vector<uint32_t> order(function_names_.size());
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, [&seen](uint32_t a, uint32_t b) { return seen.function(a) > seen.function(b); });
  for (const uint32_t f : order)
    baseline_.by_function[f] += static_cast<float>(inherited_functions_.claim(function_names_[f]));
  leave_out_main_waits(unknown);
  evidence_.reset_all();
  for (uint32_t stream = 0; stream < streams_.size(); ++stream) {
    if (streams_[stream].used) begin_moments(stream);
  }
  calibrate_all();
}

// With the variation that a predecessor had there; what it had not is new, and nothing is known of it.
void WaitDetector::begin_moments(uint32_t stream) {
  moments_.forget(stream);
  const Item item = streams_[stream];
  const auto& names = item.is_stack ? stack_names_ : function_names_;
  if (!inherited_ || item.index >= names.size()) return;
  const auto* scatter = (item.is_stack ? inherited_stacks_ : inherited_functions_).scatter(names[item.index]);
  if (scatter != nullptr) moments_.resume(stream, level(item), *scatter);
}

}  // namespace stackwatch
