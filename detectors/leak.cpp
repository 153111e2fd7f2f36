// SPDX-License-Identifier: Apache-2.0
#include "detectors/leak.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/kernel_entry.h"
#include "detectors/evidence.h"
#include "detectors/stack_counts.h"

namespace stackwatch {
namespace {

constexpr double kBytesPerMb = 1e6;
constexpr size_t kMaxContributors = 8;
// Resident memory is coarse: pages, file pages, and what the C library keeps. It must grow more before it is told.
constexpr double kResidentFactor = 4;
constexpr double kMaxBytes = 1e18;

// Functions that hand memory on. The first frames below them say who asked.
constexpr std::array<std::string_view, 13> kAllocators = {
    "malloc", "calloc", "realloc", "reallocarray", "memalign",     "aligned_alloc", "posix_memalign",
    "mmap",   "mmap64", "strdup",  "strndup",      "operator new", "operator new[]"};

bool is_allocator(std::string_view name) {
  if (is_in_kernel(name) || name.starts_with("std::") || name.starts_with("__gnu_cxx::")) return true;
  const size_t begin = name.find_first_not_of('_');
  if (begin == std::string_view::npos) return false;
  name = name.substr(begin);
  for (const std::string_view prefix : {"libc_", "GI___libc_", "GI_"}) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  }
  const std::string_view base = name.substr(0, name.find('('));
  return std::ranges::find(kAllocators, base) != kAllocators.end();
}

}  // namespace

LeakDetector::LeakDetector(ProbeKind probe, const DetectionPolicy& policy, const LeakSettings& settings)
    : probe_(probe), policy_(policy), settings_(settings) {}

Growth::Options LeakDetector::options(double time_s) const {
  Growth::Options out;
  out.settle_s = std::max(0.0, settings_.settle_s - (time_s - first_s_.value_or(time_s)));
  out.block_s = settings_.block_s;
  out.min_growth = settings_.min_growth_mb * kBytesPerMb;
  if (probe_ == ProbeKind::kCensus) {
    out.min_growth *= kResidentFactor;
    out.min_relative = settings_.min_relative;
  }
  return out;
}

std::optional<Finding> LeakDetector::observe_census(const CensusDelta& census) {
  if (probe_ != ProbeKind::kCensus) return std::nullopt;
  if (!resident_) resident_.emplace(options(census.time_s));
  if (census.rss_bytes >= 0 && census.rss_bytes <= kMaxBytes) resident_->observe(census.time_s, census.rss_bytes);
  const double threshold = log_threshold(policy_, 1);
  const auto claim = resident_->claim(threshold);
  if (!claim) return std::nullopt;
  Finding out;
  out.detector = kName;
  out.probe = probe_;
  out.before = claim->before;
  out.after = claim->after;
  out.unit_of_measure = "bytes of memory, growing";
  out.onset_s = claim->onset_s;
  out.score = claim->score;
  out.threshold = threshold;
  return out;
}

std::optional<Finding> LeakDetector::observe(const NamedDelta& delta) {
  const bool usable = probe_ == ProbeKind::kMemory && delta.stacks != nullptr && delta.functions != nullptr &&
                      std::isfinite(delta.time_s) && delta.time_s > last_end_s_;
  if (!usable) return standing_;
  last_end_s_ = delta.time_s;
  if (!first_s_) first_s_ = delta.time_s;
  if (table_ != delta.stacks) {
    streams_.clear();
    places_.clear();
    table_ = delta.stacks;
  }
  for (const NamedDelta::Value& value : delta.values) {
    // What has no name of its own is many things in one.
    if (value.stack == StackTable::kOther || value.stack.value >= table_->size()) continue;
    take(value.stack.value, static_cast<double>(value.value), delta.time_s);
  }
  for (Stream& stream : streams_) stream.growth.observe(delta.time_s, stream.bytes);
  standing_ = look(delta);
  return standing_;
}

void LeakDetector::take(uint32_t stack, double bytes, double time_s) {
  if (places_.size() <= stack) places_.resize(stack + 1);
  uint32_t place = places_[stack];
  if (place == 0) {
    if (bytes <= 0) return;  // a free of what was allocated before it was followed
    if (streams_.size() < settings_.max_streams) {
      streams_.push_back({stack, 0, Growth(options(time_s))});
      place = static_cast<uint32_t>(streams_.size());
    } else {
      const auto least = std::ranges::min_element(streams_, {}, &Stream::bytes);
      if (least->bytes >= bytes) return;
      places_[least->stack] = 0;
      *least = {stack, 0, Growth(options(time_s))};
      place = static_cast<uint32_t>(least - streams_.begin()) + 1;
    }
    places_[stack] = place;
    // From nothing: what it holds at the end of this tick is growth already.
    streams_[place - 1].growth.observe(time_s - 1e-3, 0);
  }
  Stream& stream = streams_[place - 1];
  stream.bytes = std::clamp(stream.bytes + bytes, -kMaxBytes, kMaxBytes);
}

std::optional<Finding> LeakDetector::look(const NamedDelta& delta) {
  const double threshold = log_threshold(policy_, streams());
  std::vector<std::pair<const Stream*, GrowthClaim>> claims;
  for (Stream& stream : streams_) {
    if (const auto claim = stream.growth.claim(threshold)) claims.emplace_back(&stream, *claim);
  }
  if (claims.empty()) return std::nullopt;
  std::ranges::stable_sort(claims,
                           [](const auto& a, const auto& b) { return a.second.per_second > b.second.per_second; });
  // The one that is told goes on to be told while it grows, even if another grows faster now.
  if (standing_) {
    const auto same =
        std::ranges::find_if(claims, [&](const auto& c) { return StackId{c.first->stack} == standing_->stack; });
    if (same != claims.end()) std::rotate(claims.begin(), same, same + 1);
  }
  const auto& [main, claim] = claims.front();
  std::vector<uint32_t> growing;
  for (const auto& [stream, grows] : claims) growing.push_back(stream->stack);
  Finding out;
  out.detector = kName;
  out.probe = probe_;
  out.frame = function_of(main->stack, delta, growing);
  out.stack = StackId{main->stack};
  out.before = claim.before;
  out.after = claim.after;
  out.unit_of_measure = "bytes outstanding";
  out.onset_s = claim.onset_s;
  out.score = claim.score;
  out.threshold = threshold;
  for (size_t i = 1; i < claims.size() && out.contributors.size() < kMaxContributors; ++i) {
    if (const auto frame = function_of(claims[i].first->stack, delta, growing)) {
      out.contributors.push_back({*frame, claims[i].second.before, claims[i].second.after});
    }
  }
  return out;
}

// The function next to the allocator, unless it is a program's own allocator: then whoever called it.
std::optional<FunctionId> LeakDetector::function_of(uint32_t stack, const NamedDelta& delta,
                                                    std::span<const uint32_t> growing) const {
  const auto frames = (*delta.stacks)[StackId{stack}];
  std::optional<FunctionId> nearest;
  for (size_t i = frames.size(); i > 0; --i) {
    const FunctionId frame = frames[i - 1];
    if (frame == FunctionTable::kOther || frame == FunctionTable::kUnnamed || frame.value >= delta.functions->size()) {
      continue;
    }
    if (is_allocator((*delta.functions)[frame].name)) continue;
    if (!nearest) nearest = frame;
    if (i < 2 || !hands_on(frames, i - 1, delta, growing)) return i < 2 ? nearest : frame;
  }
  return nearest;
}

// Whether others allocate through this function too, in the same way but from another caller, and do not grow: then it
// is not to blame.
bool LeakDetector::hands_on(std::span<const FunctionId> frames, size_t frame, const NamedDelta& delta,
                            std::span<const uint32_t> growing) const {
  const auto way = frames.subspan(frame);
  return std::ranges::any_of(streams_, [&](const Stream& stream) {
    if (std::ranges::find(growing, stream.stack) != growing.end()) return false;
    const auto other = (*delta.stacks)[StackId{stream.stack}];
    return other.size() > way.size() && std::ranges::equal(other.last(way.size()), way) &&
           other[other.size() - way.size() - 1] != frames[frame - 1];
  });
}

}  // namespace stackwatch
