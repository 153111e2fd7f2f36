// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>

#include "cli/count_format.h"
#include "cli/probe_table.h"
#include "cli/render.h"
#include "cli/text.h"

namespace stackwatch {
namespace {

constexpr size_t kMaxColumns = 3;  // on_cpu, blocked, run_queue
constexpr size_t kColumnWidth = 12;

/// One tree of a process: the kinds that are its columns, in one unit.
struct Layout {
  std::vector<ProbeKind> kinds;
  bool in_ms = false;
};

std::vector<Layout> layouts_of(const std::vector<ProbeKind>& kinds) {
  const auto waits = [](ProbeKind kind) { return kind == ProbeKind::kBlocked || kind == ProbeKind::kRunQueue; };
  const bool in_ms = std::ranges::any_of(kinds, waits);
  std::vector<Layout> layouts;
  for (const ProbeKind kind : kinds) {
    const bool joins = in_ms && units_of(kind).is_time;
    if (joins && !layouts.empty() && layouts.back().in_ms) {
      layouts.back().kinds.push_back(kind);
    } else {
      layouts.push_back({{kind}, joins});
    }
  }
  return layouts;
}

struct Node {
  FunctionId function;
  std::array<double, kMaxColumns> value{};  // inclusive
  std::unordered_map<FunctionId, Node*> children;
  // Of all stacks below, without signs: memory that grew here and shrank there is not nothing.
  double weight = 0;
};

std::string column_title(const Layout& layout, ProbeKind kind) {
  std::string title(to_string(kind));
  if (layout.in_ms) return title + " ms";
  if (kind == ProbeKind::kOnCpu) return "samples";
  return kind == ProbeKind::kMemory ? "bytes" : "faults";
}

std::string cell(const Layout& layout, double value) {
  if (value == 0) return "-";
  if (layout.in_ms) return fixed_text(value, 1);
  if (layout.kinds.front() == ProbeKind::kMemory) return bytes_text(value) + "B";
  return fixed_text(value, 0);
}

/// The stacks of one process and one layout as a tree of functions.
class Tree {
 public:
  Tree(const CountReport::Process& process, const Layout& layout, const CountNames& names)
      : layout_(layout), names_(names) {
    for (size_t column = 0; column < layout.kinds.size(); ++column) {
      for (const CountReport::Probe& probe : process.probes) {
        if (probe.kind == layout.kinds[column]) add(probe, column);
      }
    }
  }

  [[nodiscard]] bool empty() const { return root_.children.empty(); }

  /// Depth first with a stack of its own: a broken unwinder may give stacks as deep as it likes.
  void print(TextStream& out) const {
    for (const ProbeKind kind : layout_.kinds)
      out << fmt::format("{:>{}}", column_title(layout_, kind), kColumnWidth + 2);
    out << "     share  function\n";
    struct Entry {
      const Node* node;
      size_t depth;
    };
    std::vector<Entry> waiting;
    size_t pruned = 0;
    const auto push_children = [&](const Node& node, size_t depth) {
      const size_t begin = waiting.size();
      for (const auto& [function, child] : node.children) {
        if (child->weight < kPruneShare * total_) {
          ++pruned;
        } else {
          waiting.push_back({child, depth});
        }
      }
      // Smallest first, so that the largest is taken off the stack first.
      std::sort(waiting.begin() + static_cast<std::ptrdiff_t>(begin), waiting.end(),
                [this](const Entry& a, const Entry& b) { return is_smaller(*a.node, *b.node); });
    };
    push_children(root_, 0);
    while (!waiting.empty()) {
      const Entry entry = waiting.back();
      waiting.pop_back();
      print_line(*entry.node, entry.depth, out);
      push_children(*entry.node, entry.depth + 1);
    }
    if (pruned > 0) out << fmt::format("({} branches below {} are left out)\n", pruned, percent_text(kPruneShare));
  }

 private:
  void add(const CountReport::Probe& probe, size_t column) {
    for (const auto& [stack, value] : probe.values) {
      const double amount = layout_.in_ms ? milliseconds(probe, value) : static_cast<double>(value);
      total_ += std::abs(amount);
      Node* node = &root_;
      for (const FunctionId frame : names_.stacks[stack]) {
        Node*& child = node->children[frame];
        if (child == nullptr) {
          child = &nodes_.emplace_back();
          child->function = frame;
        }
        node = child;
        node->value[column] += amount;
        node->weight += std::abs(amount);
      }
    }
  }

  [[nodiscard]] bool is_smaller(const Node& a, const Node& b) const {
    if (a.weight != b.weight) return a.weight < b.weight;
    return names_.functions[a.function].name > names_.functions[b.function].name;
  }

  void print_line(const Node& node, size_t depth, TextStream& out) const {
    double sum = 0;
    for (size_t column = 0; column < layout_.kinds.size(); ++column) {
      sum += node.value[column];
      out << fmt::format("{:>{}}", cell(layout_, node.value[column]), kColumnWidth + 2);
    }
    out << fmt::format("{:>10}  ", percent_text(total_ > 0 ? sum / total_ : 0)) << std::string(2 * depth, ' ')
        << safe_text(names_.functions[node.function].name) << "\n";
  }

  const Layout& layout_;
  const CountNames& names_;
  Node root_;
  std::deque<Node> nodes_;  // a deque: nodes point at each other
  double total_ = 0;
};

std::string total_text(const CountReport::Probe& probe) {
  const std::string name(to_string(probe.kind));
  switch (probe.kind) {
    case ProbeKind::kOnCpu:
      return fmt::format("{} {} ms ({} samples at {:g} Hz)", name, fixed_text(milliseconds(probe, probe.total), 0),
                         probe.total, probe.frequency_hz);
    case ProbeKind::kBlocked:
    case ProbeKind::kRunQueue:
      return fmt::format("{} {} ms", name, fixed_text(milliseconds(probe, probe.total), 1));
    case ProbeKind::kMemory:
      return fmt::format("{} {}B", name, bytes_text(static_cast<double>(probe.total)));
    case ProbeKind::kPageFault:
      return fmt::format("{} {} faults", name, probe.total);
    case ProbeKind::kCensus:
      break;  // no stacks, nothing to count
  }
  return name;
}

class TreeFormatter final : public CountFormatter {
 public:
  explicit TreeFormatter(const std::vector<ProbeKind>& kinds) : layouts_(layouts_of(kinds)) {}

  void print(const CountReport& report, const CountNames& names, TextStream& out) override {
    for (const CountReport::Process& process : report.processes) {
      if (!std::exchange(first_, false)) out << "\n";
      out << heading(report, process);
      for (const Layout& layout : layouts_) {
        if (const Tree tree(process, layout, names); !tree.empty()) tree.print(out);
      }
    }
  }

 private:
  static std::string heading(const CountReport& report, const CountReport::Process& process) {
    std::string text = safe_text(process.identity.comm, 64) + "[" + std::to_string(process.identity.pid_in_ns) + "], " +
                       duration_text(report.seconds) + ":";
    Losses lost;
    const char* separator = " ";
    for (const CountReport::Probe& probe : process.probes) {
      text += separator + total_text(probe);
      separator = ", ";
      lost += probe.lost;
    }
    const std::string losses = losses_line(lost);
    return text + "; lost: " + (losses.empty() ? "none" : losses) + "\n";
  }

  std::vector<Layout> layouts_;
  bool first_ = true;
};

}  // namespace

std::unique_ptr<CountFormatter> make_tree_formatter(std::vector<ProbeKind> kinds) {
  return std::make_unique<TreeFormatter>(kinds);
}

}  // namespace stackwatch
