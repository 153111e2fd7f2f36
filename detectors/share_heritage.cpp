// SPDX-License-Identifier: Apache-2.0
#include "detectors/share_heritage.h"

#include <algorithm>
#include <utility>

#include "core/kernel_entry.h"
#include "detectors/saved_bytes.h"

namespace stackwatch {
namespace {

constexpr uint64_t kMagicV4 = 0x3465726168737773;  // "swshare4": the last digit is the version
constexpr uint64_t kMagicV3 = 0x3365726168737773;  // without calls of the kernel
constexpr uint64_t kMagicV2 = 0x3265726168737773;  // without changes that stand
constexpr uint64_t kMagicV1 = 0x3165726168737773;  // without frames, too
constexpr size_t kMaxDepth = 1024;                 // the probes give less than 256
constexpr uint16_t kUnknown = 0xffff;              // a frame whose function is not in the list
static_assert(ShareHeritage::kMaxEntries < kUnknown);
constexpr uint64_t kFnvBasis = 0xcbf29ce484222325;
constexpr uint64_t kFnvPrime = 0x100000001b3;
// Counts are sums of halved floating-point numbers: a share may exceed the whole by rounding.
constexpr double kRounding = 1e-4;

uint64_t hash(std::string_view text, uint64_t seed) {
  for (const char c : text) seed = (seed ^ static_cast<uint8_t>(c)) * kFnvPrime;
  return (seed ^ 0xff) * kFnvPrime;  // no name contains this byte: "ab" + "c" is not "a" + "bc"
}

template <class Entry>
void keep_largest(std::vector<Entry>& entries) {
  std::ranges::sort(
      entries, [](const auto& a, const auto& b) { return a.count != b.count ? a.count > b.count : a.name < b.name; });
  if (entries.size() > ShareHeritage::kMaxEntries) entries.resize(ShareHeritage::kMaxEntries);
}

template <class Entry>
bool take_entries(SavedReader& bytes, double total, std::vector<Entry>& entries) {
  const uint64_t size = bytes.integer();
  if (size > ShareHeritage::kMaxEntries) return false;
  for (uint64_t i = 0; i < size && bytes.ok(); ++i) {
    Entry entry;
    entry.name = bytes.integer();
    entry.count = bytes.amount();
    if (entry.count > total * (1 + kRounding)) return false;
    entries.push_back(std::move(entry));
  }
  return true;
}

bool take_frames(SavedReader& bytes, ShareHeritage& heritage) {
  FunctionKeys keys;
  std::vector<uint64_t> key_of;
  for (const auto& function : heritage.functions) key_of.push_back(keys.next(function.name));
  size_t left = ShareHeritage::kMaxFrames;
  for (ShareHeritage::Stack& stack : heritage.stacks) {
    const uint64_t size = bytes.small();
    if (size > std::min(left, kMaxDepth)) return false;
    left -= size;
    for (uint64_t i = 0; i < size && bytes.ok(); ++i) {
      const uint64_t place = bytes.small();
      if (place != kUnknown && place >= key_of.size()) return false;
      stack.frames.push_back(place == kUnknown ? 0 : key_of[place]);
    }
  }
  return true;
}

template <class Entry>
bool take_since(SavedReader& bytes, const std::vector<ShareHeritage::Standing>& standing, std::vector<Entry>& entries) {
  for (Entry& entry : entries) {
    for (const auto& change : standing) {
      entry.since.push_back(bytes.brief_amount());
      if (static_cast<double>(entry.since.back()) > change.total * (1 + kRounding)) return false;
    }
  }
  return true;
}

// Bits of what a change that stands is.
constexpr uint16_t kIsStack = 1;
constexpr uint16_t kCallsKernel = 2;

bool take_standing(SavedReader& bytes, uint16_t known_kinds, ShareHeritage& heritage) {
  const size_t size = bytes.small();
  if (size > ShareHeritage::kMaxStanding) return false;
  for (size_t i = 0; i < size && bytes.ok(); ++i) {
    ShareHeritage::Standing& change = heritage.standing.emplace_back();
    change.name = bytes.integer();
    const uint16_t kind = bytes.small();
    if ((kind & ~known_kinds) != 0) return false;
    change.is_stack = (kind & kIsStack) != 0;
    change.calls_kernel = (kind & kCallsKernel) != 0;
    for (double* value : {&change.dispersion, &change.total, &change.squares, &change.wall_s, &change.cpu_s}) {
      *value = bytes.amount();
    }
    if (change.dispersion < 1 || change.total <= 0) return false;
  }
  return take_since(bytes, heritage.standing, heritage.stacks) &&
         take_since(bytes, heritage.standing, heritage.functions);
}

Result<ShareHeritage> refuse(std::string why) {
  return fail(ErrorKind::kFailed, "a saved baseline", std::move(why), "it is learned anew");
}

}  // namespace

void ShareHeritage::bound() {
  keep_largest(stacks);
  keep_largest(functions);
  size_t left = kMaxFrames;
  for (Stack& stack : stacks) {
    if (stack.frames.size() > std::min(left, kMaxDepth)) stack.frames.clear();
    left -= stack.frames.size();
  }
}

uint64_t name_of(FunctionId function, const FunctionTable& functions) {
  return hash(function.value < functions.size() ? std::string_view(functions[function].name) : "", kFnvBasis);
}

uint64_t FunctionKeys::next(uint64_t name) {
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15;
  return name + kStep * used_[name]++;
}

std::optional<FunctionId> find_function(uint64_t name, const FunctionTable& functions) {
  for (uint32_t i = 0; i < functions.size(); ++i) {
    if (name_of(FunctionId{i}, functions) == name) return FunctionId{i};
  }
  return std::nullopt;
}

uint64_t name_of(std::span<const FunctionId> stack, const FunctionTable& functions) {
  uint64_t value = kFnvBasis;
  for (const FunctionId f : stack) value = hash(f.value < functions.size() ? functions[f].name : "", value);
  return value;
}

bool is_unknown(std::span<const FunctionId> stack, const FunctionTable& functions) {
  size_t known = 0;
  size_t unknown = 0;
  for (const FunctionId f : stack) {
    if (f.value >= functions.size()) continue;
    const std::string_view name = functions[f].name;
    if (!is_in_kernel(name)) ++(name == "[unknown]" ? unknown : known);
  }
  return unknown > known;
}

namespace {

void put_standing(const ShareHeritage& heritage, size_t stacks, size_t functions, SavedWriter& out) {
  const size_t changes = std::min(heritage.standing.size(), ShareHeritage::kMaxStanding);
  out.put(static_cast<uint16_t>(changes));
  for (size_t i = 0; i < changes; ++i) {
    const ShareHeritage::Standing& change = heritage.standing[i];
    out.put(change.name);
    out.put(static_cast<uint16_t>((change.is_stack ? kIsStack : 0) | (change.calls_kernel ? kCallsKernel : 0)));
    for (const double value : {change.dispersion, change.total, change.squares, change.wall_s, change.cpu_s}) {
      out.put(value);
    }
  }
  const auto put_since = [&](const std::vector<float>& since) {
    for (size_t i = 0; i < changes; ++i) out.put(i < since.size() ? since[i] : 0.0F);
  };
  for (size_t i = 0; i < stacks; ++i) put_since(heritage.stacks[i].since);
  for (size_t i = 0; i < functions; ++i) put_since(heritage.functions[i].since);
}

}  // namespace

std::string encode(const ShareHeritage& heritage) {
  SavedWriter out;
  out.put(heritage.standing.empty() ? kMagicV2 : kMagicV4);
  for (const double value : {heritage.total, heritage.squares, heritage.wall_s, heritage.cpu_s, heritage.ticks}) {
    out.put(value);
  }
  for (const double value : heritage.dispersion) out.put(value);
  const auto put_entries = [&out](const auto& entries) {
    const size_t size = std::min(entries.size(), ShareHeritage::kMaxEntries);
    out.put(static_cast<uint64_t>(size));
    for (size_t i = 0; i < size; ++i) {
      out.put(entries[i].name);
      out.put(entries[i].count);
    }
    return size;
  };
  const size_t stacks = put_entries(heritage.stacks);
  const size_t functions = put_entries(heritage.functions);
  std::unordered_map<uint64_t, uint16_t> places;
  FunctionKeys keys;
  for (size_t i = 0; i < functions; ++i)
    places.emplace(keys.next(heritage.functions[i].name), static_cast<uint16_t>(i));
  for (size_t i = 0; i < stacks; ++i) {
    const auto& frames = heritage.stacks[i].frames;
    out.put(static_cast<uint16_t>(frames.size()));
    for (const uint64_t key : frames) {
      const auto place = places.find(key);
      out.put(place == places.end() ? kUnknown : place->second);
    }
  }
  if (!heritage.standing.empty()) put_standing(heritage, stacks, functions, out);
  return out.take();
}

Result<ShareHeritage> decode_share_heritage(std::string_view text) {
  SavedReader bytes(text);
  const uint64_t magic = bytes.integer();
  const bool has_changes = magic == kMagicV4 || magic == kMagicV3;
  if (!has_changes && magic != kMagicV2 && magic != kMagicV1) return refuse("it is of another version, or no baseline");
  ShareHeritage out;
  for (double* value : {&out.total, &out.squares, &out.wall_s, &out.cpu_s, &out.ticks}) *value = bytes.amount();
  for (double& value : out.dispersion) value = bytes.amount();
  if (!take_entries(bytes, out.total, out.stacks) || !take_entries(bytes, out.total, out.functions)) {
    return refuse("it has too many entries, or a part is larger than the whole");
  }
  if (magic != kMagicV1 && !take_frames(bytes, out)) return refuse("its stacks make no sense");
  const uint16_t known_kinds = magic == kMagicV4 ? kIsStack | kCallsKernel : kIsStack;
  if (has_changes && !take_standing(bytes, known_kinds, out)) return refuse("the changes that stood make no sense");
  if (!bytes.ok() || !bytes.at_end()) return refuse("it is damaged");
  return out;
}

void UnclaimedShares::take(const ShareHeritage& heritage) {
  clear();
  for (const auto& stack : heritage.stacks) stacks_[stack.name].push_back({stack.count, stack.frames, stack.since});
  for (const auto& function : heritage.functions)
    functions_[function.name].push_back({function.count, {}, function.since});
  for (Counts* counts : {&stacks_, &functions_}) {
    for (auto& [name, parts] : *counts) std::ranges::stable_sort(parts, {}, &Part::at_last);
  }
}

UnclaimedShares::Claim UnclaimedShares::claim(Counts& counts, uint64_t name) const {
  const auto found = counts.find(name);
  if (found == counts.end()) return {};
  Part& part = found->second.back();
  Claim out{part.count * scale_, std::move(part.since)};
  found->second.pop_back();
  if (found->second.empty()) counts.erase(found);
  return out;
}

std::vector<ShareHeritage::Stack> UnclaimedShares::stacks() const {
  std::vector<ShareHeritage::Stack> out;
  for (const auto& [name, parts] : stacks_) {
    for (const Part& part : parts) {
      if (!part.frames.empty()) out.push_back({name, part.count * scale_, part.frames, {}});
    }
  }
  std::ranges::sort(out, {}, &ShareHeritage::Stack::name);  // the same order each time
  return out;
}

void UnclaimedShares::add_to(ShareHeritage& heritage) const {
  for (const auto& [name, parts] : stacks_) {
    for (const Part& part : parts) heritage.stacks.push_back({name, part.count * scale_, part.frames, {}});
  }
  for (const auto& [name, parts] : functions_) {
    for (const Part& part : parts) heritage.functions.push_back({name, part.count * scale_, {}});
  }
}

}  // namespace stackwatch
