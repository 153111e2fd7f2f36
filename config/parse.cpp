// SPDX-License-Identifier: Apache-2.0
#include "config/parse.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/load.h"
#include "config/rule.h"
#include "config/table_reader.h"
#include "config/text.h"
#include "config/units.h"

namespace stackwatch {
namespace {

constexpr double kMinute = 60;
constexpr double kHour = 3600;
constexpr double kDay = 86400;
constexpr double kMebi = 1024 * 1024;
constexpr double kTebi = kMebi * kMebi;

// Under 100 ms a tick costs more than it tells; over a minute nobody would call it watching.
constexpr Range kTick{0.1, kMinute, "s"};
constexpr Range kRuleFrequency{kMinFrequencyHz, kMaxFrequencyHz, "Hz"};
// Of everybody, all the time: what is more belongs to rules.
constexpr Range kSurveyFrequency{1, 99, "Hz"};
constexpr Range kWeight{0, 1000};
// As many as attachments may be.
constexpr Range kSuspects{0, 4096};
constexpr Range kDwell{0, kDay};
constexpr Range kFloor{0, 1e6};
// More than one a minute is no budget; less than one in ten years cannot be calibrated.
constexpr Range kFalseAlarmsPerDay{1.0 / 3650, 1440};
constexpr Range kShare{0, 1};
// The largest machines.
constexpr Range kCores{0, 8192};
constexpr Range kCooldown{0, 30 * kDay};
constexpr Range kPersistence{0, kHour};
// The daemon alone takes 30 MiB and its maps up to 16.
constexpr Range kMemory{64 * kMebi, kTebi};
// Room for a thousand alerts beside the log.
constexpr Range kDisk{4 * kMebi, kTebi};
constexpr Range kPercent{0.1, 100, "%"};
// A nearly idle process may well take a hundred times of nearly nothing.
constexpr Range kOverhead{0.1, 10000, "%"};
// A stack is an entry in a kernel map that is as large as this times the attachments.
constexpr Range kStacks{64, 65536};
constexpr Range kAttachments{1, 4096};

void read_survey(const TreeTable& table, Position position, SurveyConfig& survey, Problems& problems) {
  TableReader reader(table, position, "[survey]", problems);
  reader.flag("enabled", survey.enabled);
  reader.number("frequency", survey.frequency_hz, kSurveyFrequency);
  reader.finish();
}

void read_ranking(const TreeTable& table, Position position, RankingConfig& ranking, Problems& problems) {
  TableReader reader(table, position, "[ranking]", problems);
  if (const TreeTable* weights_table = reader.table("weights")) {
    TableReader weights(*weights_table, reader.position_of("weights"), "[ranking.weights]", problems);
    weights.number("on_cpu", ranking.weights.on_cpu, kWeight);
    weights.number("entitlement", ranking.weights.entitlement, kWeight);
    weights.number("run_queue", ranking.weights.run_queue, kWeight);
    weights.number("switches", ranking.weights.switches, kWeight);
    weights.number("faults", ranking.weights.faults, kWeight);
    weights.number("rss", ranking.weights.rss, kWeight);
    weights.number("io", ranking.weights.io, kWeight);
    weights.finish();
  }
  reader.integer("max_suspects", ranking.max_suspects, kSuspects);
  reader.duration("min_dwell", ranking.min_dwell_s, kDwell);
  reader.number("floor", ranking.floor, kFloor);
  reader.finish();
}

void read_detector(const TreeTable& table, Position position, const DetectorSchema& schema, DetectorConfig& detector,
                   Problems& problems) {
  TableReader reader(table, position, "[detectors." + schema.name + "]", problems);
  reader.flag("enabled", detector.enabled);
  for (const DetectorSchema::Key& key : schema.keys) {
    double& value = detector.values[key.name];
    const Range range{key.min, key.max};
    bool flag = value != 0;
    auto whole = static_cast<size_t>(value);
    switch (key.kind) {
      case DetectorSchema::Kind::kNumber:
        reader.number(key.name, value, range);
        break;
      case DetectorSchema::Kind::kDuration:
        reader.duration(key.name, value, range);
        break;
      case DetectorSchema::Kind::kInteger:
        reader.integer(key.name, whole, range);
        value = static_cast<double>(whole);
        break;
      case DetectorSchema::Kind::kFlag:
        reader.flag(key.name, flag);
        value = flag ? 1 : 0;
        break;
    }
  }
  reader.finish();
}

void read_detectors(const TreeTable& table, Position position, std::span<const DetectorSchema> schemas,
                    DetectorsConfig& detectors, Problems& problems) {
  TableReader reader(table, position, "[detectors]", problems);
  for (const DetectorSchema& schema : schemas) {
    if (const TreeTable* own = reader.table(schema.name)) {
      read_detector(*own, reader.position_of(schema.name), schema, detectors[schema.name], problems);
    }
  }
  reader.finish();
}

void read_budget(TableReader& reader, AlertsConfig& alerts) {
  constexpr std::string_view kKey = "false_alarm_budget";
  std::optional<std::string> text;
  reader.text(kKey, text);
  if (!text) return;
  const Result<FalseAlarmBudget> budget = parse_false_alarm_budget(*text);
  if (!budget) {
    reader.problem(kKey, budget.error().what + ": " + budget.error().why, budget.error().hint);
    return;
  }
  const double per_day = budget->count / budget->period_s * kDay;
  if (per_day < kFalseAlarmsPerDay.min || per_day > kFalseAlarmsPerDay.max) {
    reader.problem(kKey, in_quotes(*text) + " is out of range", "from \"1 per 3650d\" to \"1 per 1m\"");
    return;
  }
  alerts.false_alarm_budget = *text;
  alerts.false_alarms = budget->count;
  alerts.false_alarm_period_s = budget->period_s;
}

void read_alerts(const TreeTable& table, Position position, AlertsConfig& alerts, Problems& problems) {
  TableReader reader(table, position, "[alerts]", problems);
  read_budget(reader, alerts);
  reader.number("min_change_cores", alerts.min_change_cores, kCores);
  reader.number("min_change_share", alerts.min_change_share, kShare);
  reader.duration("cooldown", alerts.cooldown_s, kCooldown);
  reader.duration("persistence", alerts.persistence_s, kPersistence);
  reader.finish();
}

void read_limits(const TreeTable& table, Position position, LimitsConfig& limits, Problems& problems) {
  TableReader reader(table, position, "[limits]", problems);
  reader.bytes("memory", limits.memory_bytes, kMemory);
  reader.number("cpu_percent", limits.cpu_percent, kPercent);
  reader.integer("stacks_per_process", limits.stacks_per_process, kStacks);
  reader.integer("attachments", limits.attachments, kAttachments);
  reader.number("overhead_percent_per_process", limits.overhead_percent_per_process, kOverhead);
  reader.bytes("disk", limits.disk_bytes, kDisk);
  reader.finish();
}

void read_probes(TableReader& reader, std::vector<ProbeKind>& probes) {
  std::optional<std::vector<std::string>> names;
  reader.texts("probes", names);
  if (!names) return;
  Result<std::vector<ProbeKind>> kinds = parse_probes(*names);
  if (kinds) {
    probes = *std::move(kinds);
  } else {
    reader.problem("probes", kinds.error().what + ": " + kinds.error().why, kinds.error().hint);
  }
}

WatchRule read_matchers(TableReader& reader) {
  WatchRule rule;
  reader.text("name", rule.name);
  reader.text("exe", rule.exe);
  reader.text("cmdline", rule.cmdline);
  reader.text("cgroup", rule.cgroup);
  reader.text("unit", rule.unit);
  reader.text("user", rule.user);
  std::optional<int64_t> pid;
  reader.whole("pid", pid);
  if (pid) rule.pid = static_cast<int32_t>(std::clamp<int64_t>(*pid, 0, std::numeric_limits<int32_t>::max()));
  return rule;
}

const WatchRule* find_rule(const Config& config, const std::string& id) {
  const auto found = std::find_if(config.watch.begin(), config.watch.end(), [&](const auto& r) { return r.id == id; });
  return found == config.watch.end() ? nullptr : &*found;
}

// An id that the user chose is his to keep unique. Two rules with the same matchers are odd, but each alone is right,
// and they may come from different packages.
void append_rule(WatchRule rule, bool own_id, TableReader& reader, Config& config) {
  if (const WatchRule* other = find_rule(config, rule.id)) {
    if (own_id) {
      reader.problem("id", in_quotes(rule.id) + " is the id of the rule at " + other->source + " too");
      return;
    }
    config.warnings.push_back(rule.source + ": the same processes (" + describe(rule) + ") as at " + other->source);
    const std::string base = rule.id;
    for (size_t n = 2; find_rule(config, rule.id) != nullptr; ++n) rule.id = base + "-" + std::to_string(n);
  }
  config.watch.push_back(std::move(rule));
}

void read_rule(const TreeValue& value, Config& config, Problems& problems) {
  TableReader reader(std::get<TreeTable>(value.data), value.position, "[[watch]]", problems);
  std::optional<std::string> id;
  reader.text("id", id);
  if (id && id->empty()) reader.problem("id", "it is empty");
  WatchRule rule = read_matchers(reader);
  read_probes(reader, rule.probes);
  reader.number("frequency", rule.frequency_hz, kRuleFrequency);
  reader.flag("children", rule.children);
  reader.flag("mmap", rule.mmap);
  reader.finish();
  if (!reader.ok()) return;  // what was wrong may have been meant as the only matcher
  rule.id = id.value_or("");
  rule.source = problems.place(value.position);
  Result<WatchRule> checked = checked_rule(std::move(rule));
  if (checked) {
    append_rule(*std::move(checked), id.has_value(), reader, config);
  } else if (checked.error().what.empty()) {
    problems.add(value.position, checked.error().why, checked.error().hint);
  } else {
    reader.problem(checked.error().what, checked.error().why, checked.error().hint);
  }
}

void read_rules(const std::vector<const TreeValue*>& tables, Config& config, Problems& problems) {
  for (const TreeValue* table : tables) {
    if (config.watch.size() >= kMaxWatchRules) {
      problems.add(table->position, "more than " + std::to_string(kMaxWatchRules) + " watch rules",
                   "let one glob stand for several names");
      return;
    }
    read_rule(*table, config, problems);
  }
}

}  // namespace

Config default_config(std::span<const DetectorSchema> detectors) {
  Config config;
  for (const DetectorSchema& schema : detectors) {
    DetectorConfig& detector = config.detectors[schema.name];
    detector.enabled = schema.enabled;
    for (const DetectorSchema::Key& key : schema.keys) detector.values[key.name] = key.default_value;
  }
  return config;
}

void apply(const TreeTable& root, std::span<const DetectorSchema> detectors, Config& config, Problems& problems) {
  TableReader reader(root, Position{1, 1}, "the top level", problems);
  reader.duration("tick", config.tick_s, kTick);
  read_rules(reader.tables("watch"), config, problems);
  if (const TreeTable* table = reader.table("survey")) {
    read_survey(*table, reader.position_of("survey"), config.survey, problems);
  }
  if (const TreeTable* table = reader.table("ranking")) {
    read_ranking(*table, reader.position_of("ranking"), config.ranking, problems);
  }
  if (const TreeTable* table = reader.table("detectors")) {
    read_detectors(*table, reader.position_of("detectors"), detectors, config.detectors, problems);
  }
  if (const TreeTable* table = reader.table("alerts")) {
    read_alerts(*table, reader.position_of("alerts"), config.alerts, problems);
  }
  if (const TreeTable* table = reader.table("limits")) {
    read_limits(*table, reader.position_of("limits"), config.limits, problems);
  }
  reader.finish();
}

void complete(Config& config) {
  if (config.ranking.max_suspects > config.limits.attachments) {
    config.warnings.push_back("[ranking] max_suspects is more than [limits] attachments, which is " +
                              std::to_string(config.limits.attachments) + ": the rest is never attached");
  }
}

}  // namespace stackwatch
