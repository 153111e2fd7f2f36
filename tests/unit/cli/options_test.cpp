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
