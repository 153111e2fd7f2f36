// SPDX-License-Identifier: Apache-2.0
#include "config/glob.h"

#include <fnmatch.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

namespace stackwatch {
namespace {

bool matches_text(std::string_view pattern, std::string_view text) {
  return match_glob(pattern, text) == GlobMatch::kYes;
}

TEST(Glob, RefusesWhatIsNoPattern) {
  EXPECT_EQ(check_glob(""), "it is empty");
  EXPECT_EQ(check_glob("ab[cd"), "the [ at character 3 has no closing ]");
  EXPECT_EQ(check_glob("[]"), "the [ at character 1 has no closing ]");
  EXPECT_EQ(check_glob("[!]"), "the [ at character 1 has no closing ]");
  EXPECT_EQ(check_glob("x[a\\]"), "the [ at character 2 has no closing ]");
  EXPECT_EQ(check_glob("[z-a]"), "the [ at character 1 has a range that runs backwards");
  EXPECT_EQ(check_glob("a\\"), "it ends in a single backslash");
  EXPECT_EQ(check_glob(std::string_view("a\0b", 3)), "it contains a NUL byte");
  EXPECT_TRUE(check_glob("[[:digit:]]")->ends_with("not supported: write [0-9]"));
  EXPECT_EQ(check_glob(std::string(kMaxGlobBytes, 'a')), std::nullopt);
  EXPECT_EQ(check_glob(std::string(kMaxGlobBytes + 1, 'a')), "it is longer than 1024 bytes");
}

TEST(Glob, AcceptsWhatIsOne) {
  for (const char* pattern : {"a", "*", "a*b?c", "[a-z]", "[!a-z]", "[^a]", "[]a]", "[]-a]", "[a-]", "[a\\]]", "\\\\",
                              "\\*", "a\\x2db.service", "ünïcode"}) {
    EXPECT_EQ(check_glob(pattern), std::nullopt) << pattern;
  }
}

TEST(Glob, RefusedPatternsDoNoHarm) {
  for (const char* pattern : {"", "[", "[!", "[a-", "\\", "*[", "a\\", "[\\", "[a\\"}) {
    EXPECT_NE(check_glob(pattern), std::nullopt) << pattern;
    for (const char* text : {"", "a", "[", "\\", "[a-"}) (void)match_glob(pattern, text);
  }
}

TEST(Glob, ComparesTheWholeText) {
  EXPECT_TRUE(matches_text("redis-server", "redis-server"));
  EXPECT_FALSE(matches_text("redis", "redis-server"));
  EXPECT_FALSE(matches_text("server", "redis-server"));
  EXPECT_FALSE(matches_text("redis-server", "Redis-server"));
  EXPECT_TRUE(matches_text("", ""));
  EXPECT_FALSE(matches_text("", "a"));
}

TEST(Glob, StarCrossesSlashesAndLeadingDots) {
  EXPECT_TRUE(matches_text("/usr/*/server", "/usr/lib/a/b/server"));
  EXPECT_TRUE(matches_text("*", ""));
  EXPECT_TRUE(matches_text("*", ".hidden/x"));
  EXPECT_TRUE(matches_text("**a**", "xxaxx"));
  EXPECT_TRUE(matches_text("*ab*ab", "abcabab"));
  EXPECT_FALSE(matches_text("*ab*ab", "abcaba"));
}

TEST(Glob, SetsAndEscapes) {
  EXPECT_TRUE(matches_text("kworker/[0-9]*", "kworker/3:1"));
  EXPECT_FALSE(matches_text("kworker/[!0-9]*", "kworker/3:1"));
  EXPECT_TRUE(matches_text("[]]", "]"));
  EXPECT_TRUE(matches_text("[a-]", "-"));
  EXPECT_TRUE(matches_text("[\\]x]", "]"));
  EXPECT_TRUE(matches_text("a\\*b", "a*b"));
  EXPECT_FALSE(matches_text("a\\*b", "axb"));
  EXPECT_TRUE(matches_text("[\x80-\xff]", "\xc3"));
}

TEST(Glob, BytesThatAreNoTextAreBytes) {
  EXPECT_TRUE(matches_text("a?b*",
                           "a\xff"
                           "b\xfe\xfd"));
  EXPECT_FALSE(matches_text("a?b",
                            "a\xc3\xbc"
                            "b"));  // ü is two bytes
}

TEST(Glob, SystemdEscapesStandForThemselves) {
  EXPECT_TRUE(matches_text("app-my\\x2dtool@*.service", "app-my\\x2dtool@1.service"));
  EXPECT_FALSE(matches_text("app-my\\x2dtool.service", "app-my-tool.service"));
  EXPECT_TRUE(matches_text("\\x", "x"));  // no escape of systemd's: the backslash is one of the pattern
}

TEST(Glob, PrefixMeansThatMoreTextCouldMatch) {
  EXPECT_EQ(match_glob("systemd-journald", "systemd-journal"), GlobMatch::kPrefix);
  EXPECT_EQ(match_glob("systemd-*d", "systemd-journal"), GlobMatch::kPrefix);
  EXPECT_EQ(match_glob("systemd-logind", "systemd-journal"), GlobMatch::kNo);
  EXPECT_EQ(match_glob("s*", "systemd-journal"), GlobMatch::kYes);
  EXPECT_EQ(match_glob("a", ""), GlobMatch::kPrefix);
}

TEST(Glob, AgreesWithFnmatchOnRandomPatterns) {
  std::mt19937 random(4711);
  constexpr std::string_view kPatternBytes = "ab*?[]-!^/.";
  constexpr std::string_view kTextBytes = "ab-/.!]";
  const auto draw = [&](std::string_view from, size_t most) {
    std::string text(random() % (most + 1), ' ');
    for (char& c : text) c = from[random() % from.size()];
    return text;
  };
  int compared = 0;
  int hits = 0;
  for (int i = 0; i < 200000; ++i) {
    const std::string pattern = draw(kPatternBytes, 8);
    if (check_glob(pattern)) continue;
    const std::string text = draw(kTextBytes, 6);
    const bool expected = fnmatch(pattern.c_str(), text.c_str(), 0) == 0;
    ASSERT_EQ(matches_text(pattern, text), expected) << pattern << " on " << text;
    ++compared;
    hits += expected ? 1 : 0;
  }
  EXPECT_GT(compared, 50000);
  EXPECT_GT(hits, 2000);
}

TEST(Glob, ManyStarsTakeNoExponentialTime) {
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "*a";
  EXPECT_FALSE(matches_text(pattern + "*b", std::string(10000, 'a')));
}

}  // namespace
}  // namespace stackwatch
