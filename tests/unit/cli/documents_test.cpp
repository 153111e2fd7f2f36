// SPDX-License-Identifier: Apache-2.0
// The manual pages and completions against the programs and the configuration: nothing is missing, nothing is made up.
#include <gmock/gmock.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "tests/unit/cli/program.h"

namespace stackwatch {
namespace {

using ::testing::ContainerEq;
using ::testing::IsEmpty;
using Names = std::set<std::string>;

std::string file(const std::string& path) {
  std::ifstream stream(std::string(STACKWATCH_SOURCE_DIR) + "/" + path);
  EXPECT_TRUE(stream) << path;
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

Names all_matches(const std::string& text, const std::string& expression) {
  Names names;
  const std::regex regex(expression);
  for (std::sregex_iterator match(text.begin(), text.end(), regex), end; match != end; ++match) {
    names.insert((*match)[1]);
  }
  return names;
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

/// The lines of a part of a help text ("Options:", "Subcommands:") that begin an entry.
std::vector<std::string> part_of(const std::string& help, const std::string& title) {
  std::vector<std::string> entries;
  std::string part;
  for (const std::string& line : lines_of(help)) {
    if (!line.empty() && line.front() != ' ') part = line;
    if (part == title && line.starts_with("  ") && !line.starts_with("   ")) entries.push_back(line.substr(2));
  }
  return entries;
}

std::string help_of(const std::string& verb) {
  std::vector<std::string> command = words_of(verb);
  command.emplace_back("--help");
  const Finished result = run(command);
  EXPECT_EQ(result.exit_code, 0) << verb << ": " << result.err;
  return result.out;
}

/// Options as --help tells them: each name by itself, "-F" and "--frequency".
Names options_of(const std::string& verb) {
  Names options;
  for (const std::string& entry : part_of(help_of(verb), "Options:")) {
    std::istringstream names(entry.substr(0, entry.find(' ')));
    for (std::string name; std::getline(names, name, ',');) options.insert(name);
  }
  return options;
}

/// All verbs that do something: those with verbs below them stand for these.
std::vector<std::string> verbs_below(const std::string& verb = "") {
  std::vector<std::string> verbs;
  for (const std::string& entry : part_of(help_of(verb), "Subcommands:")) {
    const std::string name = (verb.empty() ? "" : verb + " ") + entry.substr(0, entry.find(' '));
    const auto below = verbs_below(name);
    if (below.empty()) verbs.push_back(name);
    verbs.insert(verbs.end(), below.begin(), below.end());
  }
  return verbs;
}

/// A page by its headings (.SH and .SS); options in it are what stands in the line after a .TP.
std::map<std::string, Names> tags_of(const std::string& page) {
  std::map<std::string, Names> sections;
  std::string section;
  bool tag = false;
  for (const std::string& raw : lines_of(file(page))) {
    const std::string line = std::regex_replace(raw, std::regex(R"(\\-)"), "-");
    if (line.starts_with(".SH ") || line.starts_with(".SS ")) {
      section = line.substr(4);
      sections[section];
    } else if (tag) {
      for (const std::string& name : all_matches(line, R"((?:^|[ "])(--?[A-Za-z][A-Za-z-]*))")) {
        sections[section].insert(name);
      }
      const auto words = words_of(line);
      if (words.size() > 1 && words[1].front() != '-') sections[section].insert(words[1]);
    }
    tag = line == ".TP";
  }
  return sections;
}

TEST(ManualPage, OfStackwatchHasEveryVerbAndOption) {
  const auto sections = tags_of("man/stackwatch.1");
  const Names common = sections.at("COMMON OPTIONS");
  const auto verbs = verbs_below();
  ASSERT_GT(verbs.size(), 10U);
  for (const std::string& verb : verbs) {
    ASSERT_TRUE(sections.contains(verb)) << "stackwatch.1 has no part about `" << verb << "`";
    const Names documented = sections.at(verb);
    const Names real = options_of(verb);
    for (const std::string& option : real) {
      EXPECT_TRUE(documented.contains(option) || common.contains(option))
          << "stackwatch.1 does not tell " << option << " of `" << verb << "`";
    }
    for (const std::string& option : documented) {
      EXPECT_TRUE(real.contains(option)) << "stackwatch.1 tells " << option << " of `" << verb << "`, which has none";
    }
  }
}

TEST(ManualPage, OfStackwatchTellsNoVerbThatIsNotThere) {
  const auto verbs = verbs_below();
  for (const std::string& line : lines_of(file("man/stackwatch.1"))) {
    if (!line.starts_with(".SS ")) continue;
    EXPECT_EQ(std::ranges::count(verbs, line.substr(4)), 1) << line;
  }
}

TEST(ManualPage, OfTheDaemonHasEveryOption) {
  const Finished result = run({"--help"}, STACKWATCH_DAEMON);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  Names real;
  for (const std::string& entry : part_of(result.out, "Options:")) {
    std::istringstream names(entry.substr(0, entry.find(' ')));
    for (std::string name; std::getline(names, name, ',');) real.insert(name);
  }
  ASSERT_GT(real.size(), 5U);
  EXPECT_THAT(tags_of("man/stackwatchd.8").at("OPTIONS"), ContainerEq(real));
}

TEST(ManualPage, OfTheDaemonHasTheMessageIds) {
  const Names ids = all_matches(file("systemd/message_ids.h"), "\"([0-9a-f]{32})\"");
  ASSERT_EQ(ids.size(), 4U);
  EXPECT_THAT(all_matches(file("man/stackwatchd.8"), "MESSAGE_ID=([0-9a-f]{32})"), ContainerEq(ids));
}

/// The keys of a table with their defaults, as the default configuration file shows them: "name = value".
std::map<std::string, Names> keys_of_the_configuration() {
  std::map<std::string, Names> tables;
  std::string table = "General";
  for (const std::string& line : lines_of(file("config/stackwatch.toml"))) {
    std::smatch match;
    if (std::regex_match(line, match, std::regex(R"(#?(\[\[?[a-z_.]+\]\]?))"))) {
      table = match[1];
    } else if (std::regex_match(line, match, std::regex(R"(#?([a-z_]+) = (.*))"))) {
      tables[table].insert(match[1].str() + " = " + match[2].str());
    }
  }
  return tables;
}

/// The same as stackwatch.toml(5) tells it.
std::map<std::string, Names> keys_of_the_page() {
  std::map<std::string, Names> tables;
  std::string table;
  for (const std::string& raw : lines_of(file("man/stackwatch.toml.5"))) {
    std::string line = std::regex_replace(raw, std::regex(R"(\\-)"), "-");
    line = std::regex_replace(line, std::regex(R"(\\\(dq)"), "\"");
    std::smatch match;
    if (line.starts_with(".SS ")) table = line.substr(4);
    if (line.starts_with(".SH ")) table.clear();
    if (!table.empty() && std::regex_match(line, match, std::regex(R"re(\.BR ([a-z_]+) " \(" (.*) \))re"))) {
      tables[table].insert(match[1].str() + " = " + match[2].str());
    }
  }
  return tables;
}

TEST(ManualPage, OfTheConfigurationHasEveryKeyWithItsDefault) {
  auto real = keys_of_the_configuration();
  auto page = keys_of_the_page();
  // Entries of [[watch]] have no defaults but in the example of the file.
  real.erase("[[watch]]");
  page.erase("[[watch]]");
  ASSERT_GT(real.size(), 5U);
  EXPECT_THAT(page, ContainerEq(real));
}

TEST(ManualPage, OfTheConfigurationHasEveryKeyOfAWatchRule) {
  // The comment of the default file lists them, two blanks behind the mark of a comment.
  std::string text = file("config/stackwatch.toml");
  text.resize(text.find("#[[watch]]"));
  const Names real = all_matches(text, "\n#   ([a-z]+) +");
  ASSERT_EQ(real.size(), 12U);
  EXPECT_THAT(tags_of("man/stackwatch.toml.5").at("[[watch]]"), ContainerEq(real));
}

/// What bash offers at the end of a command line.
Names completed_by_bash(const std::vector<std::string>& words) {
  std::string script =
      "PATH='" + std::string(STACKWATCH_PROGRAM).substr(0, std::string(STACKWATCH_PROGRAM).rfind('/')) +
      "':$PATH; . '" + STACKWATCH_SOURCE_DIR + "/cli/completion/stackwatch.bash'; COMP_WORDS=(stackwatch";
  for (const std::string& word : words) script += " '" + word + "'";
  script += "); COMP_CWORD=" + std::to_string(words.size()) + "; _stackwatch; printf '%s\\n' \"${COMPREPLY[@]}\"";
  const Finished result = run({"--norc", "-c", script}, "/bin/bash");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const auto lines = lines_of(result.out);
  Names offered(lines.begin(), lines.end());
  offered.erase("");
  return offered;
}

TEST(BashCompletion, OffersEveryVerb) {
  Names first;
  for (const std::string& verb : verbs_below()) first.insert(verb.substr(0, verb.find(' ')));
  EXPECT_THAT(completed_by_bash({""}), ContainerEq(first));
  EXPECT_THAT(completed_by_bash({"watch", ""}), ContainerEq(Names{"add", "remove", "list"}));
  EXPECT_THAT(completed_by_bash({"watch", "re"}), ContainerEq(Names{"remove"}));
}

TEST(BashCompletion, OffersEveryOptionOfEveryVerb) {
  for (const std::string& verb : verbs_below()) {
    auto words = words_of(verb);
    words.emplace_back("-");
    EXPECT_THAT(completed_by_bash(words), ContainerEq(options_of(verb))) << verb;
  }
}

TEST(BashCompletion, OffersValues) {
  EXPECT_THAT(completed_by_bash({"stacks", "--format", ""}), ContainerEq(Names{"tree", "folded", "json"}));
  EXPECT_THAT(completed_by_bash({"alerts", "--state", "f"}), ContainerEq(Names{"firing"}));
  EXPECT_THAT(completed_by_bash({"watch", "add", "--probe", "on_cpu,m"}), ContainerEq(Names{"on_cpu,memory"}));
  EXPECT_THAT(completed_by_bash({"replay", "--config", "/etc/pass"}).count("/etc/passwd"), 1U);
  EXPECT_TRUE(completed_by_bash({"stacks", "1"}).contains("1"));
  EXPECT_THAT(completed_by_bash({"show", ""}), IsEmpty());
}

TEST(ZshCompletion, DescribesEveryOptionOfEveryVerb) {
  if (access("/bin/zsh", X_OK) != 0) GTEST_SKIP() << "REQUIRES zsh";
  const std::string load = "STACKWATCH_PROGRAM='" + std::string(STACKWATCH_PROGRAM) + "'; source '" +
                           STACKWATCH_SOURCE_DIR + "/cli/completion/_stackwatch'; ";
  for (const std::string& verb : verbs_below()) {
    // By the name that run() gives it, it would take itself for another shell.
    const Finished result = run({"--emulate", "zsh", "-f", "-c", load + "_stackwatch_specs " + verb}, "/bin/zsh");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    // (names that exclude each other)NAME[description]:value:action
    Names described;
    for (const std::string& line : lines_of(result.out)) {
      const size_t begin = line.find(')') + 1;
      described.insert(line.substr(begin, line.find('[') - begin));
    }
    EXPECT_THAT(described, ContainerEq(options_of(verb))) << verb << ":\n" << result.out;
  }
}

}  // namespace
}  // namespace stackwatch
