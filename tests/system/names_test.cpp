// SPDX-License-Identifier: Apache-2.0
// What stacks of real programs are called: a JIT's, a program's whose file is gone.
#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"
#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

/// Values of folded lines, those with a frame that begins so apart.
struct Shares {
  double all = 0;
  double with = 0;
};

Shares shares_of(const std::string& folded, const std::string& frame) {
  Shares shares;
  std::istringstream lines(folded);
  for (std::string line; std::getline(lines, line);) {
    const size_t value = line.rfind(' ');
    if (value == std::string::npos || line.find(';') == std::string::npos) continue;
    const double samples = std::atof(line.c_str() + value);
    shares.all += samples;
    if (line.find(";" + frame) != std::string::npos) shares.with += samples;
  }
  return shares;
}

std::string count_folded(const std::vector<std::string>& command) {
  std::vector<std::string> arguments{our_program("stackwatch"), "count", "-F", "499", "--format", "folded", "--"};
  arguments.insert(arguments.end(), command.begin(), command.end());
  return run(arguments).output;
}

TEST(Names, NodeWithItsPerfMap) {
  STACKWATCH_REQUIRE_BPF();
  if (std::system("command -v node >/dev/null 2>&1") != 0) GTEST_SKIP() << "REQUIRES node (package nodejs)";
  const TemporaryDirectory directory;
  const std::string script = directory.path() + "/spin.js";
  std::ofstream(script) << "function stackwatchSpin(n) { let s = 0; for (let i = 0; i < n; i++) s += Math.sqrt(i + s);"
                           " return s; }\n"
                           "const begin = Date.now();\n"
                           "while (Date.now() - begin < 3000) stackwatchSpin(200000);\n";
  const std::string folded = count_folded({"node", "--perf-basic-prof", "--logfile=" + directory.path() + "/v8.log",
                                           "--interpreted-frames-native-stack", script});
  // At first it is interpreted and V8 itself works; most of three seconds is compiled code. Until V8 10 (node 18,
  // Debian 12's) that is LazyCompile.
  for (const char* tier : {"JS:*", "JS:^", "LazyCompile:*"}) {
    const Shares shares = shares_of(folded, std::string(tier) + "stackwatchSpin");
    ASSERT_GT(shares.all, 300) << folded.substr(0, 2000);
    if (shares.with > 0.6 * shares.all) return;
  }
  FAIL() << "no compiled tier has the most samples:\n" << folded.substr(0, 4000);
}

TEST(Names, ProgramWhoseFileIsDeleted) {
  STACKWATCH_REQUIRE_BPF();
  const TemporaryDirectory directory;
  const std::string copy = directory.path() + "/gone";
  std::filesystem::copy_file(test_program("burn"), copy);
  const std::string folded =
      count_folded({"sh", "-c", copy + " --where main --seconds 2 --delay 0.5 & sleep 0.2; rm " + copy + "; wait"});
  const Shares main = shares_of(folded, "main");
  EXPECT_GT(main.all, 300) << folded.substr(0, 2000);
  const Shares nameless = shares_of(folded, "[gone");
  EXPECT_LT(nameless.with, 0.01 * main.all) << folded.substr(0, 2000);
}

}  // namespace
}  // namespace stackwatch
