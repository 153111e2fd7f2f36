// SPDX-License-Identifier: Apache-2.0
#include "detectors/share_heritage.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace stackwatch {
namespace {

constexpr uint64_t kMagic = 0x3165726168737773;  // "swshare1": the last digit is the version
constexpr uint64_t kFnvBasis = 0xcbf29ce484222325;
constexpr uint64_t kFnvPrime = 0x100000001b3;
// Counts are sums of halved floating-point numbers: a share may exceed the whole by rounding.
constexpr double kRounding = 1e-6;

uint64_t hash(std::string_view text, uint64_t seed) {
  for (const char c : text) seed = (seed ^ static_cast<uint8_t>(c)) * kFnvPrime;
  return (seed ^ 0xff) * kFnvPrime;  // no name contains this byte: "ab" + "c" is not "a" + "bc"
}

void put(std::string& out, uint64_t value) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}
void put(std::string& out, double value) { put(out, std::bit_cast<uint64_t>(value)); }

/// Reads numbers one after the other; after the end it gives zeros and is not ok().
class Bytes {
 public:
  explicit Bytes(std::string_view bytes) : bytes_(bytes) {}
  uint64_t integer() {
    uint64_t value = 0;
    if (at_ + 8 > bytes_.size()) {
      ok_ = false;
      return 0;
    }
    for (size_t i = 0; i < 8; ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[at_ + i])) << (8 * i);
    at_ += 8;
    return value;
  }
  double amount() {
    const double value = std::bit_cast<double>(integer());
    if (!std::isfinite(value) || value < 0) ok_ = false;
    return value;
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool at_end() const { return at_ == bytes_.size(); }

 private:
  std::string_view bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

void keep_largest(std::vector<ShareHeritage::Entry>& entries) {
  std::ranges::sort(
      entries, [](const auto& a, const auto& b) { return a.count != b.count ? a.count > b.count : a.name < b.name; });
  if (entries.size() > ShareHeritage::kMaxEntries) entries.resize(ShareHeritage::kMaxEntries);
}

Result<ShareHeritage> refuse(std::string why) {
  return fail(ErrorKind::kFailed, "a saved baseline", std::move(why), "it is learned anew");
}

}  // namespace

void ShareHeritage::bound() {
  keep_largest(stacks);
  keep_largest(functions);
}

uint64_t name_of(FunctionId function, const FunctionTable& functions) {
  return hash(function.value < functions.size() ? std::string_view(functions[function].name) : "", kFnvBasis);
}

uint64_t name_of(std::span<const FunctionId> stack, const FunctionTable& functions) {
  uint64_t value = kFnvBasis;
  for (const FunctionId f : stack) value = hash(f.value < functions.size() ? functions[f].name : "", value);
  return value;
}

std::string encode(const ShareHeritage& heritage) {
  std::string out;
  put(out, kMagic);
  for (const double value : {heritage.total, heritage.squares, heritage.wall_s, heritage.cpu_s, heritage.ticks}) {
    put(out, value);
  }
  for (const double value : heritage.dispersion) put(out, value);
  for (const auto* entries : {&heritage.stacks, &heritage.functions}) {
    const size_t size = std::min(entries->size(), ShareHeritage::kMaxEntries);
    put(out, static_cast<uint64_t>(size));
    for (size_t i = 0; i < size; ++i) {
      put(out, (*entries)[i].name);
      put(out, (*entries)[i].count);
    }
  }
  return out;
}

Result<ShareHeritage> decode_share_heritage(std::string_view text) {
  Bytes bytes(text);
  if (bytes.integer() != kMagic) return refuse("it is of another version, or no baseline");
  ShareHeritage out;
  for (double* value : {&out.total, &out.squares, &out.wall_s, &out.cpu_s, &out.ticks}) *value = bytes.amount();
  for (double& value : out.dispersion) value = bytes.amount();
  for (auto* entries : {&out.stacks, &out.functions}) {
    const uint64_t size = bytes.integer();
    if (size > ShareHeritage::kMaxEntries) return refuse("it has too many entries");
    for (uint64_t i = 0; i < size && bytes.ok(); ++i) {
      const uint64_t name = bytes.integer();
      const double count = bytes.amount();
      if (count > out.total * (1 + kRounding)) return refuse("a part is larger than the whole");
      entries->push_back({name, count});
    }
  }
  if (!bytes.ok() || !bytes.at_end()) return refuse("it is damaged");
  return out;
}

void UnclaimedShares::take(const ShareHeritage& heritage) {
  clear();
  const auto sorted = [](const std::vector<ShareHeritage::Entry>& entries, Counts& counts) {
    for (const auto& entry : entries) counts[entry.name].push_back(entry.count);
    for (auto& [name, parts] : counts) std::ranges::sort(parts);
  };
  sorted(heritage.stacks, stacks_);
  sorted(heritage.functions, functions_);
}

double UnclaimedShares::claim(Counts& counts, uint64_t name) const {
  const auto found = counts.find(name);
  if (found == counts.end()) return 0;
  const double count = found->second.back() * scale_;
  found->second.pop_back();
  if (found->second.empty()) counts.erase(found);
  return count;
}

void UnclaimedShares::add_to(ShareHeritage& heritage) const {
  const auto add = [this](const Counts& counts, std::vector<ShareHeritage::Entry>& entries) {
    for (const auto& [name, parts] : counts) {
      for (const double count : parts) entries.push_back({name, count * scale_});
    }
  };
  add(stacks_, heritage.stacks);
  add(functions_, heritage.functions);
}

}  // namespace stackwatch
