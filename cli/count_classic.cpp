// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "cli/count_format.h"
#include "cli/probe_table.h"
#include "core/kernel_entry.h"

namespace stackwatch {
namespace {

bool is_kernel(const Function& function) { return is_in_kernel(function.name); }

/// Rounds values so that their sum is right to one unit as well: ten thousand waits of 40 us must not print as nothing.
class Rounding {
 public:
  explicit Rounding(int64_t divisor) : divisor_(divisor) {}
  int64_t round(int64_t value) {
    sum_ += value;
    const int64_t printed = std::llround(static_cast<double>(sum_) / static_cast<double>(divisor_));
    return printed - std::exchange(printed_, printed);
  }

 private:
  int64_t divisor_;
  int64_t sum_ = 0;
  int64_t printed_ = 0;
};

class ClassicFormatter final : public CountFormatter {
 public:
  explicit ClassicFormatter(const std::vector<ProbeKind>& kinds) : groups_(groups_of(kinds)) {}

  void print(const CountReport& report, const CountNames& names, TextStream& out) override {
    for (const ProbeGroup& group : groups_) {
      out << "---------" << group.name << "---------\n";
      for (const CountReport::Process& process : report.processes) print_process(process, group, names, out);
    }
  }

 private:
  void print_process(const CountReport::Process& process, const ProbeGroup& group, const CountNames& names,
                     TextStream& out) {
    CountReport::Probe sum;
    for (const CountReport::Probe& probe : process.probes) {
      if (std::ranges::find(group.kinds, probe.kind) == group.kinds.end()) continue;
      for (const auto& [stack, value] : probe.values) sum.values[stack] += value;
    }
    const std::string pid = std::to_string(process.identity.pid_in_ns) + " (";
    Rounding rounding(units_of(group.kinds.front()).classic_divisor);
    for (const CountRow& row : sorted_rows(sum)) {
      const int64_t value = rounding.round(row.value);
      if (value == 0) continue;
      const StackPartIds::Ids ids = ids_.ids_of(row.stack, names);
      out << pid << std::to_string(ids.user) << "," << std::to_string(ids.kernel) << ") " << std::to_string(value)
          << "\n";
    }
  }

  std::vector<ProbeGroup> groups_;
  StackPartIds ids_;
};

}  // namespace

StackPartIds::Ids StackPartIds::ids_of(StackId stack, const CountNames& names) {
  const std::span<const FunctionId> frames = names.stacks[stack];
  const auto kernel =
      std::ranges::find_if(frames, [&names](FunctionId frame) { return is_kernel(names.functions[frame]); });
  const auto users = static_cast<size_t>(kernel - frames.begin());
  Ids ids;
  // "[unknown]" alone stands for a stack of which nothing could be read.
  const bool nothing = frames.size() == 1 && names.functions[frames[0]] == Function{"", "[unknown]"};
  if (nothing) return ids;
  if (users > 0) ids.user = id_of(frames.first(users));
  if (users < frames.size()) ids.kernel = id_of(frames.subspan(users));
  return ids;
}

int64_t StackPartIds::id_of(std::span<const FunctionId> part) {
  return ids_.try_emplace({part.begin(), part.end()}, static_cast<int64_t>(ids_.size())).first->second;
}

std::unique_ptr<CountFormatter> make_classic_formatter(const std::vector<ProbeKind>& kinds) {
  return std::make_unique<ClassicFormatter>(kinds);
}

std::unique_ptr<CountFormatter> make_count_formatter(CountFormat format, std::vector<ProbeKind> kinds) {
  switch (format) {
    case CountFormat::kClassic:
      return make_classic_formatter(std::move(kinds));
    case CountFormat::kTree:
      return make_tree_formatter(std::move(kinds));
    case CountFormat::kFolded:
      return make_folded_formatter(std::move(kinds));
    case CountFormat::kJson:
      return make_json_formatter();
  }
  return nullptr;
}

}  // namespace stackwatch
