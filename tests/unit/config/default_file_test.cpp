// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "config/load.h"
#include "detectors/settings.h"

namespace stackwatch {
namespace {

// What the daemon hands in: the settings of the detectors, with the names that the file uses.
std::vector<DetectorSchema> schemas() {
  using Kind = DetectorSchema::Kind;
  const CompositionSettings composition;
  const RateSettings rate;
  const WaitSettings wait;
  const LeakSettings leak;
  const NoveltySettings novelty;
  const SubspaceSettings subspace;
  const PeersSettings peers;
  return {{"composition",
           composition.enabled,
           {{"learn", Kind::kDuration, composition.learn_s, 30, 86400},
            {"quarantine", Kind::kDuration, composition.quarantine_s, 0, 240},
            {"memory", Kind::kDuration, composition.memory_s, 300, 2592000},
            {"persistence", Kind::kDuration, composition.persistence_s, 0, 240},
            {"adopt_after", Kind::kDuration, composition.adopt_after_s, 60, 2592000},
            {"min_relative_change", Kind::kNumber, composition.min_relative_change, 0, 10},
            {"explains", Kind::kNumber, composition.explains, 0.5, 1},
            {"max_streams", Kind::kInteger, static_cast<double>(composition.max_streams), 16, 8192}}},
          {"rate",
           rate.enabled,
           {{"learn", Kind::kDuration, rate.learn_s, 30, 86400},
            {"quarantine", Kind::kDuration, rate.quarantine_s, 0, 240},
            {"memory", Kind::kDuration, rate.memory_s, 300, 2592000},
            {"persistence", Kind::kDuration, rate.persistence_s, 0, 240},
            {"adopt_after", Kind::kDuration, rate.adopt_after_s, 60, 2592000},
            {"min_relative_change", Kind::kNumber, rate.min_relative_change, 0.1, 100},
            {"min_change_cores", Kind::kNumber, rate.min_change_cores, 0, 4096},
            {"min_starved_threads", Kind::kNumber, rate.min_starved_threads, 0.1, 4096}}},
          {"wait",
           wait.enabled,
           {{"learn", Kind::kDuration, wait.learn_s, 30, 86400},
            {"quarantine", Kind::kDuration, wait.quarantine_s, 0, 240},
            {"memory", Kind::kDuration, wait.memory_s, 300, 2592000},
            {"persistence", Kind::kDuration, wait.persistence_s, 0, 240},
            {"adopt_after", Kind::kDuration, wait.adopt_after_s, 60, 2592000},
            {"min_relative_change", Kind::kNumber, wait.min_relative_change, 0.1, 100},
            {"min_change_threads", Kind::kNumber, wait.min_change_threads, 0.001, 4096},
            {"max_streams", Kind::kInteger, static_cast<double>(wait.max_streams), 16, 8192}}},
          {"leak",
           leak.enabled,
           {{"settle", Kind::kDuration, leak.settle_s, 0, 86400},
            {"block", Kind::kDuration, leak.block_s, 1, 3600},
            {"min_growth_mb", Kind::kNumber, leak.min_growth_mb, 0.001, 1e6},
            {"min_relative", Kind::kNumber, leak.min_relative, 0, 100},
            {"max_streams", Kind::kInteger, static_cast<double>(leak.max_streams), 16, 8192}}},
          {"novelty",
           novelty.enabled,
           {{"learn", Kind::kDuration, novelty.learn_s, 120, 86400},
            {"quarantine", Kind::kDuration, novelty.quarantine_s, 30, 240},
            {"memory", Kind::kDuration, novelty.memory_s, 300, 2592000},
            {"persistence", Kind::kDuration, novelty.persistence_s, 0, 240},
            {"adopt_after", Kind::kDuration, novelty.adopt_after_s, 60, 2592000},
            {"min_relative_change", Kind::kNumber, novelty.min_relative_change, 0, 100}}},
          {"subspace",
           subspace.enabled,
           {{"learn", Kind::kDuration, subspace.learn_s, 60, 86400},
            {"memory", Kind::kDuration, subspace.memory_s, 300, 2592000},
            {"persistence", Kind::kDuration, subspace.persistence_s, 0, 240},
            {"adopt_after", Kind::kDuration, subspace.adopt_after_s, 60, 2592000},
            {"explained", Kind::kNumber, subspace.explained, 0.5, 0.999},
            {"min_relative_change", Kind::kNumber, subspace.min_relative_change, 0.1, 100}}},
          {"peers",
           peers.enabled,
           {{"learn", Kind::kDuration, peers.learn_s, 30, 86400},
            {"memory", Kind::kDuration, peers.memory_s, 300, 2592000},
            {"persistence", Kind::kDuration, peers.persistence_s, 0, 240},
            {"adopt_after", Kind::kDuration, peers.adopt_after_s, 60, 2592000},
            {"min_change_cores", Kind::kNumber, peers.min_change_cores, 0.001, 4096},
            {"min_siblings", Kind::kInteger, static_cast<double>(peers.min_siblings), 2, 1024}}}};
}

std::string default_file() {
  std::ifstream file(STACKWATCH_DEFAULT_CONFIG);
  EXPECT_TRUE(file) << STACKWATCH_DEFAULT_CONFIG;
  return {std::istreambuf_iterator<char>(file), {}};
}

// `#key = value` or `#[[table]]`, as opposed to a sentence.
bool is_switched_off(const std::string& line) {
  if (!line.starts_with('#')) return false;
  const size_t key_end = line.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", 1);
  return line.starts_with("#[[") ||
         (key_end != std::string::npos && key_end > 1 && line.compare(key_end, 3, " = ") == 0);
}

// The file with every default switched on.
std::string uncommented() {
  std::istringstream lines(default_file());
  std::string text;
  for (std::string line; std::getline(lines, line);) text += line.substr(is_switched_off(line) ? 1 : 0) + "\n";
  return text;
}

TEST(DefaultFile, IsTheBuiltInDefaults) {
  const auto detectors = schemas();
  const Result<Config> config = parse_config(default_file(), "stackwatch.toml", detectors);
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(*config, parse_config("", "empty", detectors).value());
}

TEST(DefaultFile, ShowsTheBuiltInDefaultsInItsComments) {
  const auto detectors = schemas();
  Result<Config> config = parse_config(uncommented(), "stackwatch.toml", detectors);
  ASSERT_TRUE(config) << config.error().message();
  ASSERT_EQ(config->watch.size(), 1U);
  WatchRule example = config->watch[0];
  EXPECT_EQ(example.name, "redis-server");
  example.name.reset();
  example.id.clear();
  example.source.clear();
  EXPECT_EQ(example, WatchRule{});
  config->watch.clear();
  EXPECT_EQ(*config, parse_config("", "empty", detectors).value());
}

// A key with a wrong type must be noticed wherever it is: this tells which keys the file does not show.
TEST(DefaultFile, ShowsEveryKey) {
  const std::string text = uncommented();
  const auto shown = [&text](const std::string& table, const std::string& key) {
    const size_t begin = table.empty() ? 0 : text.find("\n" + table + "\n");
    if (begin == std::string::npos) return false;
    const size_t end = text.find("\n[", begin + 1);
    return text.substr(begin, end - begin).find("\n" + key + " = ") != std::string::npos;
  };
  const std::vector<std::pair<std::string, std::vector<std::string>>> keys = {
      {"", {"tick"}},
      {"[[watch]]", {"name", "probes", "frequency", "children"}},
      {"[survey]", {"enabled", "frequency"}},
      {"[ranking]", {"max_suspects", "min_dwell", "floor"}},
      {"[ranking.weights]", {"on_cpu", "entitlement", "run_queue", "switches", "faults", "rss", "io"}},
      {"[alerts]", {"false_alarm_budget", "min_change_cores", "min_change_share", "cooldown", "persistence"}},
      {"[limits]", {"memory", "cpu_percent", "stacks_per_process", "attachments", "overhead_percent_per_process"}}};
  for (const auto& [table, names] : keys) {
    for (const std::string& name : names) EXPECT_TRUE(shown(table, name)) << table << " " << name;
  }
  for (const DetectorSchema& detector : schemas()) {
    const std::string table = "[detectors." + detector.name + "]";
    EXPECT_TRUE(shown(table, "enabled")) << table;
    for (const auto& key : detector.keys) EXPECT_TRUE(shown(table, key.name)) << table << " " << key.name;
  }
}

}  // namespace
}  // namespace stackwatch
