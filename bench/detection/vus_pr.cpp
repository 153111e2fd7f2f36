// SPDX-License-Identifier: Apache-2.0
#include "vus_pr.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace stackwatch {
namespace {

constexpr size_t kWidths = 10;

std::vector<double> soft_labels(size_t rows, std::span<const Window> windows, size_t buffer) {
  std::vector<double> out(rows, 0);
  const auto raise = [&out](size_t row, double label) { out[row] = std::max(out[row], label); };
  for (const Window& window : windows) {
    for (size_t row = window.first; row <= window.last && row < rows; ++row) out[row] = 1;
    for (size_t away = 1; away <= buffer / 2; ++away) {
      const double label = std::sqrt(1 - static_cast<double>(away) / static_cast<double>(buffer));
      if (window.first >= away) raise(window.first - away, label);
      if (window.last + away < rows) raise(window.last + away, label);
    }
  }
  return out;
}

/// The window that a row belongs to, its buffer included; windows.size() for none.
std::vector<size_t> owners(size_t rows, std::span<const Window> windows, size_t buffer) {
  std::vector<size_t> out(rows, windows.size());
  for (size_t i = 0; i < windows.size(); ++i) {
    const size_t from = windows[i].first > buffer / 2 ? windows[i].first - buffer / 2 : 0;
    for (size_t row = from; row < rows && row <= windows[i].last + buffer / 2; ++row) out[row] = i;
  }
  return out;
}

double area(std::span<const double> scores, std::span<const Window> windows, size_t buffer,
            const std::vector<size_t>& order) {
  const std::vector<double> labels = soft_labels(scores.size(), windows, buffer);
  const std::vector<size_t> owner = owners(scores.size(), windows, buffer);
  double hard = 0;
  for (const Window& window : windows) hard += static_cast<double>(window.last - window.first + 1);
  const double positives = (hard + std::accumulate(labels.begin(), labels.end(), 0.0)) / 2;
  std::vector<bool> touched(windows.size() + 1, false);
  double touched_count = 0;
  double true_positives = 0;
  double last_recall = 0;
  double out = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const size_t row = order[i];
    true_positives += labels[row];
    if (owner[row] < windows.size() && !touched[owner[row]]) {
      touched[owner[row]] = true;
      ++touched_count;
    }
    if (i + 1 < order.size() && scores[order[i + 1]] == scores[row]) continue;
    const double recall =
        std::min(1.0, true_positives / positives) * touched_count / static_cast<double>(windows.size());
    out += (recall - last_recall) * true_positives / static_cast<double>(i + 1);
    last_recall = recall;
  }
  return out;
}

}  // namespace

double vus_pr(std::span<const double> scores, std::span<const Window> windows, size_t max_buffer) {
  if (windows.empty()) return 0;
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  double sum = 0;
  for (size_t i = 0; i <= kWidths; ++i) sum += area(scores, windows, max_buffer * i / kWidths, order);
  return sum / (kWidths + 1);
}

}  // namespace stackwatch
