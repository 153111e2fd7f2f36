// SPDX-License-Identifier: Apache-2.0
#include "cli/render.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "daemon/control/json.h"
#include "tests/unit/control/fake_backend.h"

namespace stackwatch {
namespace {

constexpr const char* kHostile = "ev\x1b[2J;il\n\xFF";
const Style kPlain{};

rapidjson::Document parse(std::string_view text) {
  rapidjson::Document document;
  document.Parse(text.data(), text.size());
  EXPECT_FALSE(document.HasParseError()) << text;
  return document;
}

template <class Write>
rapidjson::Document made_by(Write write) {
  JsonWriter json;
  write(json);
  return parse(json.text());
}

rapidjson::Document listed(const char* name, auto write_list) {
  return made_by([&](JsonWriter& json) {
    json.begin_object();
    json.key(name);
    EXPECT_EQ(write_list(json), 0U);
    json.end_object();
  });
}

rapidjson::Document stacks_of(const FakeBackend& backend, ProbeKind probe = ProbeKind::kOnCpu, bool series = false) {
  return made_by(
      [&](JsonWriter& json) { write_stacks(json, *backend.stacks(FakeBackend::kAttachedPid, probe, 600, series)); });
}

bool has_control_characters(const std::string& text) {
  return std::ranges::any_of(text, [](char c) { return (c >= 0 && c < 0x20 && c != '\n') || c == 0x7F; });
}

TEST(Render, AnEmptyOrForeignReplyIsShownAsMissing) {
  for (
      const char* text :
      {"{}", R"({"ranking":1,"attachments":{},"watches":1,"alerts":null,"stacks":"x","process":[],"warnings":1})",
       R"({"ranking":[1,null],"attachments":["x"],"watches":[1,{"pid":"x","probes":[1]}],"alerts":[[]],"stacks":[{}],"lost":[]})"}) {
    const auto json = parse(text);
    EXPECT_FALSE(render_status(json, kPlain).empty());
    EXPECT_FALSE(render_ranking(json, kPlain).empty());
    EXPECT_FALSE(render_attachments(json, kPlain).empty());
    EXPECT_FALSE(render_unusual_stacks(json, kPlain).empty());
    EXPECT_FALSE(render_watches(json, kPlain).empty());
    EXPECT_FALSE(render_alerts(json, kPlain).empty());
    EXPECT_FALSE(render_alert(json, kPlain).empty());
    EXPECT_FALSE(render_alert_line(json, kPlain).empty());
    EXPECT_FALSE(render_stack_tree(json).empty());
    EXPECT_FALSE(render_series(json, kPlain).empty());
    EXPECT_EQ(render_folded(json).find('\0'), std::string::npos);
  }
}

TEST(Render, HostileNamesReachNoTerminal) {
  FakeBackend backend;
  backend.comm = kHostile;
  backend.warnings = {kHostile};
  backend.stacks_report.rows = {{{kHostile, "main"}, 1, {1}}};
  Alert alert = FakeBackend::make_alert(kHostile, AlertState::kResolved, 1);
  alert.process.comm = alert.process.exe = alert.frame = alert.detector = alert.unit_of_measure = kHostile;
  alert.resolution = alert.false_alarm_budget = kHostile;
  alert.stack = {kHostile};
  alert.contributors = {{kHostile, 1, 2}};

  const auto alert_json = parse(alert_to_json(alert));
  const auto stacks = stacks_of(backend, ProbeKind::kOnCpu, true);
  UnusualStack unusual;
  unusual.frames = {kHostile};
  unusual.processes = {{FakeBackend::process(1, kHostile), 0, 0}};
  WatchRow watch;
  watch.rule.id = watch.rule.source = kHostile;
  watch.rule.cmdline = kHostile;
  const std::string texts[] = {
      render_status(made_by([&](JsonWriter& json) { write_status(json, backend.status()); }), kPlain),
      render_ranking(
          listed("ranking", [&](JsonWriter& json) { return write_ranking_list(json, *backend.ranking(9, "")); }),
          kPlain),
      render_attachments(
          listed("attachments", [&](JsonWriter& json) { return write_attachment_list(json, backend.attachments()); }),
          kPlain),
      render_alerts(listed("alerts", [&](JsonWriter& json) { return write_alert_list(json, {alert}); }), kPlain),
      render_alert(alert_json, kPlain),
      render_alert_line(alert_json, kPlain),
      render_unusual_stacks(
          listed("stacks", [&](JsonWriter& json) { return write_unusual_stack_list(json, {unusual}); }), kPlain),
      render_watches(listed("watches", [&](JsonWriter& json) { return write_watch_list(json, {watch}); }), kPlain),
      render_stack_tree(stacks),
      render_folded(stacks),
      render_series(stacks, kPlain),
  };
  for (const std::string& text : texts) {
    EXPECT_FALSE(has_control_characters(text)) << text;
    EXPECT_NE(text.find("ev\\x1b[2J"), std::string::npos) << text;
  }
  EXPECT_EQ(std::ranges::count(render_alert_line(alert_json, kPlain), '\n'), 1);
}

TEST(Render, FoldedIsRootFirstAndASemicolonIsNoFrame) {
  FakeBackend backend;
  EXPECT_EQ(render_folded(stacks_of(backend)), "redis-server;main;work 70\nredis-server;main;idle 30\n");
  backend.comm = "a;b";
  backend.stacks_report.rows = {{{"operator;()", "x_[k]"}, 3, {}}, {{}, 2, {}}, {{"free"}, -5, {}}};
  EXPECT_EQ(render_folded(stacks_of(backend)), "a:b;operator:();x_[k] 3\na:b 2\na:b;free -5\n");
}

TEST(Render, TheTreeHasInclusiveSharesLargestFirst) {
  FakeBackend backend;
  backend.stacks_report.total = 1000;
  backend.stacks_report.rows = {{{"main", "small"}, 300, {}},
                                {{"main", "large", "leaf"}, 690, {}},
                                {{"main", "large", "dust"}, 4, {}},
                                {{"other"}, 6, {}}};
  EXPECT_EQ(render_stack_tree(stacks_of(backend)),
            "redis-server[4711] on_cpu: 1.0k samples in the last 10 m 0 s; lost: none\n"
            "  99.4 %   994 samples  main\n"
            "  69.4 %   694 samples    large\n"
            "  69.0 %   690 samples      leaf\n"
            "  30.0 %   300 samples    small\n"
            "   0.6 %     6 samples  other\n"
            "(1 branches below 0.5 % are left out)\n");
}

TEST(Render, SharesAreOfEverythingThatWasCountedThoughTheListLacksSome) {
  FakeBackend backend;
  backend.stacks_report.total = 200;
  backend.stacks_report.rows = {{{"main"}, 50, {}}};
  const std::string text = render_stack_tree(stacks_of(backend));
  EXPECT_NE(text.find("25.0 %"), std::string::npos) << text;
}

TEST(Render, ARecursionIsAChainAndNotACycle) {
  FakeBackend backend;
  backend.stacks_report.rows = {{{"f", "f", "f"}, 10, {}}};
  const std::string text = render_stack_tree(stacks_of(backend));
  EXPECT_EQ(std::ranges::count(text, '\n'), 4);
  EXPECT_NE(text.find("      f\n"), std::string::npos);
}

TEST(Render, AStackOfThousandsOfFramesIsNoHarm) {
  FakeBackend backend;
  backend.stacks_report.rows = {{std::vector<std::string>(3'000, "f"), 10, {}}};
  EXPECT_EQ(std::ranges::count(render_stack_tree(stacks_of(backend)), '\n'), 3'001);
}

TEST(Render, NegativeValuesWeighAsMuchAsPositiveOnes) {
  FakeBackend backend;
  backend.stacks_report.total = 0;
  backend.stacks_report.rows = {{{"alloc"}, 500, {}}, {{"free"}, -500, {}}};
  const std::string text = render_stack_tree(stacks_of(backend, ProbeKind::kMemory));
  EXPECT_NE(text.find("50.0 %"), std::string::npos) << text;
  EXPECT_NE(text.find("-50.0 %"), std::string::npos) << text;
}

TEST(Render, ASeriesIsSummedToTenSteps) {
  FakeBackend backend;
  backend.stacks_report.rows = {{{"main", "work"}, 25, std::vector<int64_t>(25, 1)}, {{"main"}, 0, {}}};
  const std::string text = render_series(stacks_of(backend, ProbeKind::kOnCpu, true), kPlain);
  EXPECT_NE(text.find("-25 s"), std::string::npos) << text;
  EXPECT_NE(text.find("work < main"), std::string::npos) << text;
  // 25 steps in sums of 3: eight of 3 and one of 1.
  EXPECT_NE(text.find("-1 s"), std::string::npos) << text;
}

TEST(Render, TheRankingMarksSuspectsAndShowsNothingWhereANumberIsNone) {
  const FakeBackend backend;
  auto rows = *backend.ranking(9, "");
  rows[1].score = std::numeric_limits<double>::quiet_NaN();
  const auto json = listed("ranking", [&](JsonWriter& writer) { return write_ranking_list(writer, rows); });
  const std::string text = render_ranking(json, kPlain);
  EXPECT_NE(text.find("4711  redis-server   7.50  0.93"), std::string::npos) << text;
  EXPECT_NE(text.find("* 3.1x its usual CPU"), std::string::npos) << text;
  EXPECT_NE(text.find("4712  redis-server      -  0.93"), std::string::npos) << text;
  for (size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    EXPECT_LE(end - begin, 400U);
  }
  const std::string narrow = render_ranking(json, kPlain, 20);
  for (size_t begin = 0, end = 0; (end = narrow.find('\n', begin)) != std::string::npos; begin = end + 1) {
    EXPECT_LE(end - begin, 20U);
  }
}

TEST(Render, AnAlertShowsItsEvidence) {
  const auto alert =
      parse(alert_to_json(FakeBackend::make_alert("a-1", AlertState::kFiring, 1'795'348'800'000'000'000)));
  const std::string text = render_alert(alert, kPlain);
  for (const char* part :
       {"redis-server[4711]", "dictFind: 1.1 % -> 4.3 %", "firing", "a-1", "1 per 30d", "score 21.4", "3 unwind_failed",
        "    aeMain\n    dictFind\n", "50.0 %", "60.0 %", "/usr/bin/redis-server"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

TEST(Render, AnAlertShowsWhatOtherProbesSawOfIt) {
  Alert told = FakeBackend::make_alert("a-1", AlertState::kFiring, 1'795'348'800'000'000'000);
  told.parts = {{ProbeKind::kCensus, "rate", "", told.onset_ns, 0.25, 0.75, "cores", true},
                {ProbeKind::kBlocked, "wait", "futex\x1b_wait", told.onset_ns, 0, 0.5, "threads waiting", false}};
  const std::string text = render_alert(parse(alert_to_json(told)), kPlain);
  for (const char* part : {"UNIT", "cores", "census", "(whole process)", "threads waiting", "blocked", "yes", "no"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST(Render, StatusShowsLossesAndWarnings) {
  FakeBackend backend;
  backend.warnings = {"no BTF: install a kernel with it"};
  Status status = backend.status();
  status.lost[LossReason::kMapFull] = 7;
  const std::string text = render_status(made_by([&](JsonWriter& json) { write_status(json, status); }), kPlain);
  EXPECT_NE(text.find("7 map_full"), std::string::npos) << text;
  EXPECT_NE(text.find("17 surveyed"), std::string::npos) << text;
  EXPECT_NE(text.find("no BTF"), std::string::npos) << text;
}

TEST(Render, AttachmentsShowWhatIsMissing) {
  const FakeBackend backend;
  const auto json =
      listed("attachments", [&](JsonWriter& writer) { return write_attachment_list(writer, backend.attachments()); });
  EXPECT_NE(render_attachments(json, kPlain).find("none  attach off_cpu: the map is full\n"), std::string::npos);
}

TEST(Render, AnUnusualStackIsLeafFirstAndShort) {
  UnusualStack deep;
  deep.frames = {"main", "a", "b", "c", "d", "leaf"};
  deep.score = -4.2;
  deep.before_cores = 0.5;
  deep.now_cores = 0.125;
  for (int32_t pid = 1; pid <= 5; ++pid) deep.processes.push_back({FakeBackend::process(pid, "p"), 0, 0});
  UnusualStack empty;
  const auto json = listed("stacks", [&](JsonWriter& writer) {
    return write_unusual_stack_list(writer, {deep, empty});
  });
  const std::string text = render_unusual_stacks(json, kPlain);
  EXPECT_NE(text.find(" -4.2       0.500  0.125  p[1],p[2],p[3] +2  leaf < d < c < b < 2 more\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("(no frames)"), std::string::npos) << text;
  EXPECT_NE(render_unusual_stacks(json, Style{true}).find("\x1b[33m"), std::string::npos) << "a drop strikes too";
  const std::string narrow = render_unusual_stacks(json, kPlain, 20);
  for (size_t begin = 0, end = 0; (end = narrow.find('\n', begin)) != std::string::npos; begin = end + 1) {
    EXPECT_LE(end - begin, 20U);
  }
}

TEST(Render, WatchesShowWhatTheyMatchAndWhereTheyComeFrom) {
  WatchRow file;
  file.rule.id = "db";
  file.rule.unit = "postgresql*";
  file.rule.user = "postgres";
  file.rule.children = true;
  file.rule.source = "/etc/x.toml:3";
  file.processes = 7;
  WatchRow added;
  added.rule.id = "added-1";
  added.rule.pid = 77;
  added.rule.probes = {ProbeKind::kOnCpu, ProbeKind::kBlocked};
  added.rule.source = "added at run time";
  const auto json = listed("watches", [&](JsonWriter& writer) { return write_watch_list(writer, {file, added}); });
  const std::string text = render_watches(json, kPlain);
  EXPECT_NE(
      text.find("db               7  on_cpu          99  yes       unit=postgresql* user=postgres  /etc/x.toml:3\n"),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("on_cpu,blocked  99  no        pid=77 "), std::string::npos) << text;
}

TEST(Render, OffCpuIsTimeAndTellsWhatWasWaitingForACpu) {
  FakeBackend backend;
  backend.stacks_report.total = 2'500'000'000;
  backend.stacks_report.waits = StacksReport::Waits{500'000'000};
  backend.stacks_report.rows = {{{"main", "read"}, 2'500'000'000, {1'000'000'000, 1'500'000'000}}};
  const std::string tree = render_stack_tree(stacks_of(backend));
  EXPECT_NE(tree.find("off_cpu: 2.5 s in the last 10 m 0 s, 500 ms of it waiting for a CPU"), std::string::npos)
      << tree;
  EXPECT_NE(tree.find("100.0 %         2.5 s  main"), std::string::npos) << tree;
  EXPECT_EQ(render_folded(stacks_of(backend)), "redis-server;main;read 2500000000\n");
  const std::string series = render_series(stacks_of(backend, ProbeKind::kOnCpu, true), kPlain);
  EXPECT_NE(series.find(" 1 s  1.5 s  2.5 s  read < main"), std::string::npos) << series;
}

TEST(Render, JsonIsWrittenAnewWithoutLoss) {
  const auto json = parse(R"({"a":[1,-2,18446744073709551615,0.1,null,true,"\u001b\u009b"],"b":{}})");
  EXPECT_EQ(*to_json_line(json), "{\"a\":[1,-2,18446744073709551615,0.1,null,true,\"\\u001b\\u009b\"],\"b\":{}}\n");
  std::string deep(100, '[');
  deep += std::string(100, ']');
  EXPECT_FALSE(to_json_line(parse(deep)));
}

}  // namespace
}  // namespace stackwatch
