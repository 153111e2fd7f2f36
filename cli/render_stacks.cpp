// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cli/render.h"
#include "cli/text.h"

namespace stackwatch {
namespace {

constexpr size_t kSeriesRows = 10;
constexpr size_t kSeriesSteps = 10;

std::string_view frame_of(const JsonValue& frame) {
  return frame.IsString() ? std::string_view(frame.GetString(), frame.GetStringLength()) : std::string_view("?");
}

std::string value_text(double value, std::string_view probe) {
  if (probe == "blocked" || probe == "run_queue" || probe == "off_cpu") return duration_text(value * 1e-9);
  if (probe == "memory") return bytes_text(value) + "B";
  return count_text(value) + (probe == "page_fault" ? " faults" : " samples");
}

/// A value of a table whose heading tells the unit.
std::string cell_text(double value, std::string_view probe) {
  const bool is_count = probe == "on_cpu" || probe == "page_fault";
  return is_count ? count_text(value) : value_text(value, probe);
}

std::string heading(const JsonValue& report) {
  const std::string_view probe = text_of(report, "probe");
  std::string waits;
  if (probe == "off_cpu") {
    waits = ", " + value_text(static_cast<double>(integer_of(report, "run_queue")), probe) + " of it waiting for a CPU";
  }
  std::string text = process_text(object_of(report, "process")) + " " + safe_text(probe, 16) + ": " +
                     value_text(static_cast<double>(integer_of(report, "total")), probe) + " in the last " +
                     duration_text(number_of(report, "window_s")) + waits +
                     "; lost: " + losses_text(object_of(report, "lost"));
  if (const int64_t omitted = integer_of(report, "omitted"); omitted > 0) {
    text += "; without " + std::to_string(omitted) + " small stacks";
  }
  return text + "\n";
}

/// One function below one caller. The values of memory may be negative: what a branch weighs is its absolute value.
struct Node {
  std::string_view frame;
  int64_t value = 0;
  std::unordered_map<std::string_view, Node*> children;
  [[nodiscard]] double weight() const { return std::abs(static_cast<double>(value)); }
};

class Tree {
 public:
  explicit Tree(const JsonValue& report) {
    for (const JsonValue& stack : array_of(report, "stacks").GetArray()) {
      const int64_t value = integer_of(stack, "value");
      total_ += std::abs(static_cast<double>(value));
      Node* node = &root_;
      for (const JsonValue& frame : array_of(stack, "frames").GetArray()) {
        Node*& child = node->children[frame_of(frame)];
        if (child == nullptr) child = &nodes_.emplace_back(Node{frame_of(frame), 0, {}});
        node = child;
        node->value += value;
      }
    }
    // The report's own total counts stacks too that the list had no room for.
    total_ = std::max(total_, std::abs(static_cast<double>(integer_of(report, "total"))));
  }

  /// Depth first with a stack of its own: a broken unwinder may give stacks as deep as it likes.
  [[nodiscard]] std::string text(double prune_share, std::string_view probe) const {
    struct Entry {
      const Node* node;
      size_t depth;
    };
    std::string lines;
    std::vector<Entry> waiting;
    size_t pruned = 0;
    const auto push_children = [&](const Node& node, size_t depth) {
      std::vector<const Node*> kept;
      for (const auto& [name, child] : node.children) {
        if (child->weight() < prune_share * total_) {
          ++pruned;
        } else {
          kept.push_back(child);
        }
      }
      // Smallest first, so that the largest is taken off the stack first.
      std::ranges::sort(kept, [](const Node* a, const Node* b) {
        return a->weight() != b->weight() ? a->weight() < b->weight() : a->frame > b->frame;
      });
      for (const Node* child : kept) waiting.push_back({child, depth});
    };
    push_children(root_, 0);
    while (!waiting.empty()) {
      const Entry entry = waiting.back();
      waiting.pop_back();
      lines += line(*entry.node, entry.depth, probe);
      push_children(*entry.node, entry.depth + 1);
    }
    if (pruned > 0) {
      lines += "(" + std::to_string(pruned) + " branches below " + percent_text(prune_share) + " are left out)\n";
    }
    return lines;
  }

 private:
  [[nodiscard]] std::string line(const Node& node, size_t depth, std::string_view probe) const {
    std::string share = percent_text(total_ > 0 ? static_cast<double>(node.value) / total_ : 0);
    share.insert(0, 8 - std::min<size_t>(8, share.size()), ' ');
    std::string value = value_text(static_cast<double>(node.value), probe);
    value.insert(0, 14 - std::min<size_t>(14, value.size()), ' ');
    return share + value + "  " + std::string(2 * depth, ' ') + safe_text(node.frame) + "\n";
  }

  Node root_;
  std::deque<Node> nodes_;  // a deque: nodes point at each other
  double total_ = 0;
};

void append_folded_name(std::string& line, std::string_view name) {
  std::string safe = safe_text(name);
  std::ranges::replace(safe, ';', ':');
  line += safe;
}

/// The report's steps summed to at most kSeriesSteps.
std::vector<double> sum_steps(const JsonValue& series, size_t steps_per_sum) {
  std::vector<double> sums;
  for (rapidjson::SizeType i = 0; i < series.Size(); ++i) {
    if (i % steps_per_sum == 0) sums.push_back(0);
    if (series[i].IsNumber()) sums.back() += series[i].GetDouble();
  }
  return sums;
}

std::string leaf_text(const JsonValue& stack) {
  const JsonValue& frames = array_of(stack, "frames");
  if (frames.Empty()) return "(no frames)";
  std::string text = safe_text(frame_of(frames[frames.Size() - 1]), 48);
  if (frames.Size() > 1) text += " < " + safe_text(frame_of(frames[frames.Size() - 2]), 32);
  return text;
}

}  // namespace

std::string render_stack_tree(const JsonValue& report, double prune_share) {
  return heading(report) + Tree(report).text(prune_share, text_of(report, "probe"));
}

std::string render_folded(const JsonValue& report) {
  std::string comm;
  append_folded_name(comm, text_of(object_of(report, "process"), "comm"));
  std::string text;
  for (const JsonValue& stack : array_of(report, "stacks").GetArray()) {
    text += comm;
    for (const JsonValue& frame : array_of(stack, "frames").GetArray()) {
      text += ';';
      append_folded_name(text, frame_of(frame));
    }
    text += " " + std::to_string(integer_of(stack, "value")) + "\n";
  }
  return text;
}

std::string render_series(const JsonValue& report, const Style& style) {
  const JsonValue& stacks = array_of(report, "stacks");
  size_t steps = 0;
  for (const JsonValue& stack : stacks.GetArray()) {
    steps = std::max<size_t>(steps, array_of(stack, "series").Size());
  }
  const size_t steps_per_sum = std::max<size_t>(1, (steps + kSeriesSteps - 1) / kSeriesSteps);
  const double step_s = number_of(report, "step_s").value_or(0);
  const std::string_view probe = text_of(report, "probe");

  std::vector<Table::Column> columns;
  for (size_t begin = 0; begin < steps; begin += steps_per_sum) {
    columns.push_back({"-" + duration_text(static_cast<double>(steps - begin) * step_s), Table::Align::kRight});
  }
  const size_t sums = columns.size();
  columns.push_back({"TOTAL", Table::Align::kRight});
  columns.push_back({"STACK (LEAF < ITS CALLER)"});
  Table table(std::move(columns));
  size_t rows = 0;
  for (const JsonValue& stack : stacks.GetArray()) {
    if (rows++ == kSeriesRows) break;
    std::vector<std::string> cells;
    for (const double sum : sum_steps(array_of(stack, "series"), steps_per_sum)) cells.push_back(cell_text(sum, probe));
    cells.resize(sums, "-");
    cells.push_back(cell_text(static_cast<double>(integer_of(stack, "value")), probe));
    cells.push_back(leaf_text(stack));
    table.add(std::move(cells));
  }
  return heading(report) + table.text(style);
}

}  // namespace stackwatch
