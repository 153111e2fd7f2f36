// SPDX-License-Identifier: Apache-2.0
#include "public_tables.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include "detectors/series.h"
#include "public_series.h"
#include "series_scorers.h"
#include "vus_pr.h"

namespace stackwatch {
namespace {

constexpr size_t kBuffer = 100;  // rows, of VUS-PR

std::vector<double> scores_of(const PublicSeries& series, SeriesScorer& scorer) {
  std::vector<double> out;
  std::vector<double> row(series.columns.size());
  for (size_t i = 0; i < series.rows(); ++i) {
    for (size_t k = 0; k < row.size(); ++k) row[k] = series.columns[k][i];
    out.push_back(scorer.observe(row));
  }
  return out;
}

std::vector<ScoredSeries> score_corpus(const std::vector<PublicSeries>& corpus, const NamedScorer& named) {
  std::vector<ScoredSeries> out;
  for (const PublicSeries& series : corpus) {
    const auto scorer = named.make(series.columns.size());
    out.push_back({series.name, scores_of(series, *scorer), series.windows});
  }
  return out;
}

double mean_vus_pr(const std::vector<ScoredSeries>& corpus) {
  double sum = 0;
  double count = 0;
  for (const ScoredSeries& series : corpus) {
    if (series.windows.empty()) continue;
    sum += vus_pr(series.scores, series.windows, kBuffer);
    ++count;
  }
  return count > 0 ? sum / count : 0;
}

/// Each series scored at the threshold that is best for the others: nothing of it has been looked at. Series without
/// windows count with their false detections.
double leave_one_out(const std::vector<ScoredSeries>& corpus, const NabProfile& profile) {
  // A window of its own for every series would change the norm: raw values are taken out of the difference of two
  // corpora, with and without the series.
  double raw = 0;
  double windows = 0;
  for (const ScoredSeries& series : corpus) windows += static_cast<double>(series.windows.size());
  for (size_t i = 0; i < corpus.size(); ++i) {
    std::vector<ScoredSeries> rest = corpus;
    rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
    const double threshold = nab_best(rest, profile).threshold;
    const double with = nab_score(corpus, profile, threshold).score * windows;
    const double without =
        nab_score(rest, profile, threshold).score * (windows - static_cast<double>(corpus[i].windows.size()));
    raw += with - without;
  }
  return windows > 0 ? raw / windows : 0;
}

void print_nab(const std::vector<PublicSeries>& corpus, const char* title, bool is_small) {
  std::printf("\n## %s\n\n%zu series. NAB scores at the best threshold that all series share.\n\n", title,
              corpus.size());
  std::printf("| detector | standard | low FP | low FN | found | false rows | leave one out | VUS-PR |\n");
  std::printf("|---|---|---|---|---|---|---|---|\n");
  std::vector<NamedScorer> all = baseline_scorers();
  all.insert(all.begin(), our_scorer());
  for (const NamedScorer& named : all) {
    const std::vector<ScoredSeries> scored = score_corpus(corpus, named);
    const NabResult standard = nab_best(scored, kNabProfiles[0]);
    std::printf("| %s | %.1f | %.1f | %.1f | %zu of %zu | %zu |", named.name.c_str(), standard.score,
                nab_best(scored, kNabProfiles[1]).score, nab_best(scored, kNabProfiles[2]).score, standard.found,
                standard.windows, standard.false_rows);
    if (is_small)
      std::printf(" %.1f |", leave_one_out(scored, kNabProfiles[0]));
    else
      std::printf(" |");
    std::printf(" %.3f |\n", mean_vus_pr(scored));
    std::fflush(stdout);
  }
}

void print_asd(const std::vector<PublicSeries>& corpus) {
  std::printf(
      "\n## Application Server Dataset\n\nAll columns of a server together; 30 days of learning, 15 days of test."
      " VUS-PR over the rows of the test.\n\n| detector |");
  for (const PublicSeries& series : corpus) std::printf(" %s |", series.name.c_str());
  std::printf(" mean |\n|---|");
  for (size_t i = 0; i <= corpus.size(); ++i) std::printf("---|");
  std::printf("\n");
  std::vector<NamedScorer> all = baseline_scorers();
  all.insert(all.begin(), our_scorer());
  for (const NamedScorer& named : all) {
    std::printf("| %s |", named.name.c_str());
    double sum = 0;
    for (const PublicSeries& series : corpus) {
      const auto scorer = named.make(series.columns.size());
      const std::vector<double> scores = scores_of(series, *scorer);
      std::vector<Window> windows = series.windows;
      for (Window& window : windows) window = {window.first - series.scored_from, window.last - series.scored_from};
      const double value = vus_pr(std::span(scores).subspan(series.scored_from), windows, kBuffer);
      sum += value;
      std::printf(" %.3f |", value);
      std::fflush(stdout);
    }
    std::printf(" %.3f |\n", sum / static_cast<double>(corpus.size()));
  }
}

class Variant final : public SeriesScorer {
 public:
  Variant(size_t columns, const SeriesSettings& settings) : detector_(columns, settings) {}
  double observe(std::span<const double> values) override { return detector_.observe(values); }

 private:
  SeriesDetector detector_;
};

void print_ablation(const std::vector<PublicSeries>& nab, const std::vector<PublicSeries>& columns) {
  struct Row {
    std::string name;
    SeriesSettings settings;
  };
  std::vector<Row> rows{{"as it is", {}}};
  const auto variant = [&rows](std::string name, auto change) {
    rows.push_back({std::move(name), {}});
    change(rows.back().settings);
  };
  for (size_t i = 0; i < SeriesColumn::kLengths.size(); ++i) {
    variant("without the scale of " + std::to_string(SeriesColumn::kLengths[i]) + " rows",
            [i](SeriesSettings& s) { s.scales &= ~(1U << i); });
  }
  variant("without the refractory period", [](SeriesSettings& s) { s.refractory_rows = 0; });
  variant("ranks alone, without a tail", [](SeriesSettings& s) { s.tail = 0; });
  variant("a quarter of the history", [](SeriesSettings& s) { s.history_rows /= 4; });
  variant("a quarter of the calibration", [](SeriesSettings& s) { s.calibration_rows /= 4; });
  std::printf(
      "\n## What each part contributes\n\nNAB standard scores.\n\n| variant | NAB series | columns of ASD "
      "|\n|---|---|---|\n");
  for (const Row& row : rows) {
    const NamedScorer named{row.name, [&row](size_t count) -> std::unique_ptr<SeriesScorer> {
                              return std::make_unique<Variant>(count, row.settings);
                            }};
    std::printf("| %s | %.1f |", row.name.c_str(), nab_best(score_corpus(nab, named), kNabProfiles[0]).score);
    std::printf(" %.1f |\n", nab_best(score_corpus(columns, named), kNabProfiles[0]).score);
    std::fflush(stdout);
  }
}

/// Every third: columns of a server resemble each other.
std::vector<PublicSeries> thinned(std::vector<PublicSeries> all) {
  std::vector<PublicSeries> out;
  for (size_t i = 0; i < all.size(); i += 3) out.push_back(std::move(all[i]));
  return out;
}

}  // namespace

Result<void> print_public_tables(const std::string& directory) {
  namespace fs = std::filesystem;
  const std::string nab_directory = (fs::path(directory) / "nab").string();
  const std::string asd_directory = (fs::path(directory) / "asd").string();
  std::vector<PublicSeries> nab;
  std::vector<PublicSeries> columns;
  if (fs::exists(nab_directory)) {
    auto read = read_nab(nab_directory);
    if (!read) return Failure(read.error());
    nab = std::move(*read);
    print_nab(nab, "Numenta Anomaly Benchmark", true);
  }
  if (fs::exists(asd_directory)) {
    auto servers = read_asd(asd_directory);
    if (!servers) return Failure(servers.error());
    auto read = read_asd_columns(asd_directory);
    if (!read) return Failure(read.error());
    columns = thinned(std::move(*read));
    print_nab(columns, "Columns of the Application Server Dataset", false);
    print_asd(*servers);
  }
  if (nab.empty() && columns.empty()) {
    return fail("read " + directory, "it has neither nab/ nor asd/", "see docs/detection_proof.md");
  }
  print_ablation(nab, columns);
  return {};
}

}  // namespace stackwatch
