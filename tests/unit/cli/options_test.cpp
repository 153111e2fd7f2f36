// SPDX-License-Identifier: Apache-2.0
#include "cli/options.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/fakes/fake_clock.h"

namespace stackwatch {
namespace {

Result<Invocation> parse(std::vector<const char*> arguments) {
  static const FakeClock clock;
  unsetenv("STACKWATCH_SOCKET");
  arguments.insert(arguments.begin(), "stackwatch");
  return parse_options(static_cast<int>(arguments.size()), arguments.data(), clock);
}

Options options(std::vector<const char*> arguments) {
  const auto parsed = parse(std::move(arguments));
  EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().message());
  return parsed && parsed->options ? *parsed->options : Options{};
}

TEST(OptionsTest, WrongUseIsOneLineWithAHint) {
  const std::vector<std::vector<const char*>> cases = {
      {},
      {"frobnicate"},
      {"--frobnicate"},
      {"status", "--frobnicate"},
      {"status", "extra"},
      {"top", "-n", "0"},
      {"top", "-n", "-1"},
      {"top", "-n", "many"},
      {"top", "--by", "colour"},
      {"stacks"},
      {"stacks", "0"},
      {"stacks", "redis"},
      {"stacks", "99999999999"},
      {"stacks", "1", "--probe", "on"},
      {"stacks", "1", "--since", "10"},
      {"stacks", "1", "--since", "-10m"},
      {"stacks", "1", "--format", "yaml"},
      {"stacks", "1", "--series", "--format", "folded"},
      {"alerts", "--since", "yesterday"},
      {"alerts", "--state", "burning"},
      {"show"},
      {"show", "a", "b"},
      {"status", "top"},
      {"watch"},
      {"watch", "change"},
      {"watch", "add"},
      {"watch", "add", "--name", "["},
      {"watch", "add", "--exe", "redis"},
      {"watch", "add", "--pid", "0"},
      {"watch", "add", "--name", "x", "--probe", "of_cpu"},
      {"watch", "add", "--name", "x", "-F", "5000"},
      {"watch", "add", "--name", "x", "--id", "a b"},
      {"watch", "remove"},
      {"watch", "list", "x"},
      {"run"},
      {"run", "--"},
      {"run", "--", ""},
      {"run", "ls", "-l"},
      {"run", "-F", "0", "--", "ls"},
      {"run", "--probe", "cpu", "--", "ls"},
  };
  for (const auto& arguments : cases) {
    const auto parsed = parse(arguments);
    const std::string shown = testing::PrintToString(arguments.size()) + (arguments.empty() ? "" : arguments.back());
    ASSERT_FALSE(parsed) << shown;
    EXPECT_EQ(parsed.error().kind, ErrorKind::kUsage) << shown;
    EXPECT_EQ(parsed.error().message().find('\n'), std::string::npos) << parsed.error().message();
    EXPECT_FALSE(parsed.error().hint.empty()) << parsed.error().message();
  }
}

TEST(OptionsTest, EveryVerbHelpsWithAnExample) {
  for (const char* verb : {"status", "top", "attachments", "stacks", "alerts", "show"}) {
    const auto parsed = parse({verb, "--help"});
    ASSERT_TRUE(parsed) << verb;
    EXPECT_FALSE(parsed->options);
    EXPECT_NE(parsed->text.find("Example:\n  stackwatch " + std::string(verb)), std::string::npos) << parsed->text;
    EXPECT_NE(parsed->text.find("--socket"), std::string::npos);
    EXPECT_NE(parsed->text.find("--json"), std::string::npos);
  }
  for (const char* verb : {"add", "remove", "list"}) {
    const auto parsed = parse({"watch", verb, "--help"});
    ASSERT_TRUE(parsed) << verb;
    EXPECT_NE(parsed->text.find("Example:\n  stackwatch watch " + std::string(verb)), std::string::npos)
        << parsed->text;
  }
  EXPECT_NE(parse({"watch", "--help"})->text.find("Example:\n  stackwatch watch add"), std::string::npos);
  EXPECT_NE(parse({"run", "--help"})->text.find("Example:\n  stackwatch run"), std::string::npos);
  EXPECT_NE(parse({"--help"})->text.find("attachments"), std::string::npos);
  EXPECT_TRUE(parse({"--version"})->text.starts_with("stackwatch "));
}

TEST(OptionsTest, TheSocketIsTheOptionsOrTheEnvironmentsOrTheDefault) {
  EXPECT_EQ(options({"status"}).socket, "/run/stackwatch/io.stackwatch");
  EXPECT_EQ(options({"status", "--socket", "/tmp/x"}).socket, "/tmp/x");
  setenv("STACKWATCH_SOCKET", "/tmp/env", 1);
  const FakeClock clock;
  const char* plain[] = {"stackwatch", "alerts"};
  EXPECT_EQ(parse_options(2, plain, clock)->options->socket, "/tmp/env");
  const char* given[] = {"stackwatch", "alerts", "--socket", "/tmp/x"};
  EXPECT_EQ(parse_options(4, given, clock)->options->socket, "/tmp/x");
  unsetenv("STACKWATCH_SOCKET");
}

TEST(OptionsTest, AreUnderstood) {
  const Options top = options({"top", "-n", "5", "--by", "rss", "--once", "--json"});
  EXPECT_EQ(top.verb, Verb::kTop);
  EXPECT_EQ(top.top_rows, 5U);
  EXPECT_EQ(top.top_by, "rss");
  EXPECT_TRUE(top.once && top.json);

  const Options stacks = options({"stacks", "4711", "--since", "10m", "--probe", "memory", "--series"});
  EXPECT_EQ(stacks.pid, 4711);
  EXPECT_DOUBLE_EQ(stacks.stacks_since_s, 600);
  EXPECT_EQ(stacks.probe, "memory");
  EXPECT_TRUE(stacks.series);
  EXPECT_EQ(stacks.format, StacksFormat::kTree);
  EXPECT_EQ(options({"stacks", "1", "--json"}).format, StacksFormat::kJson);
  EXPECT_EQ(options({"stacks", "1", "--format", "folded"}).format, StacksFormat::kFolded);

  EXPECT_EQ(options({"show", "abc-1"}).alert_id, "abc-1");
  EXPECT_EQ(options({"top", "--by", "stacks"}).top_by, "stacks");
  EXPECT_EQ(options({"stacks", "1", "--probe", "off_cpu"}).probe, "off_cpu");
}

TEST(OptionsTest, WatchRulesAreUnderstood) {
  const Options add = options({"watch", "add", "--name", "a*", "--user", "u", "--pid", "7", "--probe", "on_cpu,off_cpu",
                               "-F", "49", "--children", "--id", "mine", "--json"});
  EXPECT_EQ(add.verb, Verb::kWatchAdd);
  EXPECT_EQ(add.watch.name, "a*");
  EXPECT_EQ(add.watch.user, "u");
  EXPECT_EQ(add.watch.pid, 7);
  EXPECT_EQ(add.watch.probes, (std::vector<std::string>{"on_cpu", "off_cpu"}));
  EXPECT_EQ(add.watch.frequency_hz, 49);
  EXPECT_EQ(add.watch.id, "mine");
  EXPECT_TRUE(add.watch.children && add.json);
  EXPECT_FALSE(add.watch.exe || add.watch.cmdline || add.watch.cgroup || add.watch.unit);
  EXPECT_EQ(options({"watch", "remove", "mine"}).watch_id, "mine");
  EXPECT_EQ(options({"watch", "list"}).verb, Verb::kWatchList);
}

TEST(OptionsTest, WhatIsBehindTheDashesOfRunBelongsToTheCommand) {
  const Options run = options({"run", "--socket", "/tmp/x", "-F", "199", "--", "make", "--help", "--", "-F"});
  EXPECT_EQ(run.verb, Verb::kRun);
  EXPECT_EQ(run.socket, "/tmp/x");
  EXPECT_EQ(run.watch.frequency_hz, 199);
  EXPECT_EQ(run.command, (std::vector<std::string>{"make", "--help", "--", "-F"}));
}

TEST(OptionsTest, AlertsSinceIsADurationBeforeNowOrATime) {
  // The fake clock stands at 1,790,000,000 s: 2026-09-21T14:13:20Z.
  EXPECT_EQ(options({"alerts", "--since", "10m"}).alerts_since, "2026-09-21T14:03:20.000000Z");
  EXPECT_EQ(options({"alerts", "--since", "2026-09-21T01:02:03Z"}).alerts_since, "2026-09-21T01:02:03.000000Z");
  EXPECT_EQ(options({"alerts", "--since", "30000d"}).alerts_since, "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(options({"alerts"}).alerts_since, "");
}

}  // namespace
}  // namespace stackwatch
