// SPDX-License-Identifier: Apache-2.0
#include "cli/count_arguments.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace stackwatch {
namespace {

Result<CountInvocation> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"stackwatch", "count"});
  return parse_count(static_cast<int>(arguments.size()), arguments.data());
}

CountOptions options(std::vector<const char*> arguments) {
  const auto parsed = parse(std::move(arguments));
  EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().message());
  return parsed && parsed->options ? *parsed->options : CountOptions{};
}

TEST(CountArguments, WrongUseIsOneLineWithExitCodeTwo) {
  const std::vector<std::vector<const char*>> cases = {
      {},
      {"--"},
      {"--", ""},
      {"-p"},
      {"-p", "0"},
      {"-p", "-5"},
      {"-p", "redis"},
      {"-p", "12x"},
      {"-p", "99999999999"},
      {"-p", "1", "--", "ls"},
      {"ls"},
      {"-p", "1", "--probe", "cpu"},
      {"-p", "1", "--probe", ""},
      {"-p", "1", "-F", "0"},
      {"-p", "1", "-F", "4001"},
      {"-p", "1", "-F", "fast"},
      {"-p", "1", "-d", "0"},
      {"-p", "1", "-d", "-1"},
      {"-p", "1", "-d", "soon"},
      {"-p", "1", "-d", "nan"},
      {"-p", "1", "-d", "1e99"},
      {"-p", "1", "-i", "0.01"},
      {"-p", "1", "--format", "yaml"},
      {"-p", "1", "--children", "--no-children"},
      {"-p", "1", "--mmap"},
      {"-p", "1", "--frobnicate"},
  };
  for (const auto& arguments : cases) {
    const auto parsed = parse(arguments);
    const std::string shown = testing::PrintToString(arguments);
    ASSERT_FALSE(parsed) << shown;
    EXPECT_EQ(parsed.error().kind, ErrorKind::kUsage) << shown;
    EXPECT_EQ(parsed.error().message().find('\n'), std::string::npos) << parsed.error().message();
  }
}

TEST(CountArguments, WhatIsBehindTheDashesBelongsToTheCommand) {
  const CountOptions count = options({"-F", "49", "--", "make", "-j", "2", "--", "-p", "1"});
  EXPECT_EQ(count.target.command, (std::vector<std::string>{"make", "-j", "2", "--", "-p", "1"}));
  EXPECT_TRUE(count.target.pids.empty());
  EXPECT_DOUBLE_EQ(count.target.frequency_hz, 49);
  EXPECT_EQ(options({"--", "ls", "--help"}).target.command.back(), "--help");
}

TEST(CountArguments, ChildrenOfACommandAreCountedAndThoseOfAProcessWhereAsked) {
  EXPECT_TRUE(options({"--", "make"}).target.children);
  EXPECT_FALSE(options({"--no-children", "--", "make"}).target.children);
  EXPECT_FALSE(options({"-p", "1"}).target.children);
  EXPECT_TRUE(options({"-p", "1", "--children"}).target.children);
}

TEST(CountArguments, MappingsAreCountedWhereAskedFor) {
  EXPECT_TRUE(options({"-p", "1", "--probe", "memory", "--mmap"}).target.mmap);
  EXPECT_FALSE(options({"-p", "1", "--probe", "memory"}).target.mmap);
}

TEST(CountArguments, AreUnderstood) {
  const CountOptions count = options({"-p", "12", "34", "-p", "56,12", "--probe", "off_cpu,on_cpu", "-d", "2.5", "-i",
                                      "500ms", "--format", "classic", "-o", "out"});
  EXPECT_EQ(count.target.pids, (std::vector<int32_t>{12, 34, 56}));
  EXPECT_EQ(count.target.probes,
            (std::vector<ProbeKind>{ProbeKind::kOnCpu, ProbeKind::kBlocked, ProbeKind::kRunQueue}));
  EXPECT_DOUBLE_EQ(*count.target.duration_s, 2.5);
  EXPECT_DOUBLE_EQ(*count.interval_s, 0.5);
  EXPECT_EQ(count.format, CountFormat::kClassic);
  EXPECT_EQ(count.target.output, "out");
  EXPECT_EQ(options({"-p", "1", "--json"}).format, CountFormat::kJson);
  EXPECT_FALSE(options({"-p", "1"}).target.duration_s);
}

Result<RecordInvocation> parse_recording(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"stackwatch", "record"});
  return parse_record(static_cast<int>(arguments.size()), arguments.data());
}

TEST(RecordArguments, WrongUseHasExitCodeTwo) {
  const std::vector<std::vector<const char*>> cases = {{},
                                                       {"-o", "f"},
                                                       {"--all"},
                                                       {"-p", "1"},
                                                       {"--all", "-p", "1", "-o", "f"},
                                                       {"--all", "-o", "f", "--", "ls"},
                                                       {"--all", "-o", "f", "--probe", "off_cpu"},
                                                       {"-p", "1", "-o", "f", "--format", "tree"},
                                                       {"-p", "1", "-o", "f", "-i", "1"}};
  for (const auto& arguments : cases) {
    const auto parsed = parse_recording(arguments);
    ASSERT_FALSE(parsed) << testing::PrintToString(arguments);
    EXPECT_EQ(parsed.error().kind, ErrorKind::kUsage);
  }
}

TEST(RecordArguments, AreUnderstood) {
  const auto all = parse_recording({"--all", "-o", "f", "-d", "10m"});
  ASSERT_TRUE(all && all->options) << (all ? "" : all.error().message());
  EXPECT_TRUE(all->options->all);
  EXPECT_DOUBLE_EQ(all->options->frequency_hz, 19);
  EXPECT_DOUBLE_EQ(*all->options->duration_s, 600);
  const auto command = parse_recording({"-o", "f", "--", "make", "-o", "g"});
  ASSERT_TRUE(command && command->options);
  EXPECT_EQ(command->options->output, "f");
  EXPECT_EQ(command->options->command.size(), 3U);
  EXPECT_NE(parse_recording({"--help"})->text.find("Example:\n  stackwatch record"), std::string::npos);
}

TEST(CountArguments, HelpHasAnExample) {
  const auto help = parse({"--help"});
  ASSERT_TRUE(help);
  EXPECT_FALSE(help->options);
  EXPECT_NE(help->text.find("Example:\n  stackwatch count"), std::string::npos) << help->text;
}

}  // namespace
}  // namespace stackwatch
