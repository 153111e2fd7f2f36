// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "cli/count_format.h"
#include "cli/probe_table.h"
#include "cli/text.h"

namespace stackwatch {
namespace {

// A semicolon in a name would be read as two frames.
std::string folded_name(std::string_view name) {
  std::string safe = safe_text(name);
  std::ranges::replace(safe, ';', ':');
  return safe;
}

class FoldedFormatter final : public CountFormatter {
 public:
  explicit FoldedFormatter(const std::vector<ProbeKind>& kinds) : several_(kinds.size() > 1) {}

  void print(const CountReport& report, const CountNames& names, TextStream& out) override {
    if (!std::exchange(first_, false)) out << "\n";
    for (const CountReport::Process& process : report.processes) {
      for (const CountReport::Probe& probe : process.probes) {
        std::string prefix = folded_name(process.identity.comm);
        if (several_) prefix += ";[" + std::string(to_string(probe.kind)) + "]";
        print_probe(probe, prefix, names, out);
      }
    }
  }

 private:
  void print_probe(const CountReport::Probe& probe, const std::string& prefix, const CountNames& names,
                   TextStream& out) const {
    for (const CountRow& row : sorted_rows(probe)) {
      const int64_t value = value_of(probe, row.value);
      if (value == 0) continue;
      out << prefix;
      for (const FunctionId frame : names.stacks[row.stack]) out << ";" << folded_name(names.functions[frame].name);
      out << " " << std::to_string(value) << "\n";
    }
  }

  [[nodiscard]] int64_t value_of(const CountReport::Probe& probe, int64_t value) const {
    const bool in_time = units_of(probe.kind).is_time && (several_ || probe.kind != ProbeKind::kOnCpu);
    return in_time ? std::llround(milliseconds(probe, value) * 1e3) : value;
  }

  bool several_;
  bool first_ = true;
};

}  // namespace

std::unique_ptr<CountFormatter> make_folded_formatter(const std::vector<ProbeKind>& kinds) {
  return std::make_unique<FoldedFormatter>(kinds);
}

}  // namespace stackwatch
