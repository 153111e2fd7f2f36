// SPDX-License-Identifier: Apache-2.0
// The verbs that need no daemon, as programs: replay and import.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidjson/document.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

struct Finished {
  int exit_code = -1;
  std::string out;
  std::string err;
};

class OfflineVerbsTest : public testing::Test {
 protected:
  OfflineVerbsTest() {
    char name[] = "/tmp/stackwatch-offline-XXXXXX";
    dir_ = mkdtemp(name);
  }
  ~OfflineVerbsTest() override { std::filesystem::remove_all(dir_); }

  [[nodiscard]] std::string path(const std::string& name) const { return dir_ + "/" + name; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path(name)) << text; }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::stringstream text;
    text << std::ifstream(path(name)).rdbuf();
    return text.str();
  }
  /// `arguments` as a shell takes them, in the test's own folder.
  [[nodiscard]] Finished run(const std::string& arguments) const {
    const std::string command = "cd " + dir_ + " && NO_COLOR=1 " STACKWATCH_PROGRAM " " + arguments + " >out 2>err";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read("out"), read("err")};
  }
  /// A capture in which a process shifts its time from one function to another after 100 s.
  static std::string shifting_capture(int ticks = 160) {
    std::string text =
        R"({"type":"capture","version":1,"started":"2026-11-22T12:00:00Z","host":"h","tick_s":1.0})"
        "\n"
        R"({"type":"process","process":1,"pid":4711,"start_time_ns":10000000,"comm":"redis-server","exe":"/usr/bin/redis-server"})"
        "\n"
        R"({"type":"stack","stack":1,"frames":["main","parse"]})"
        "\n"
        R"({"type":"stack","stack":2,"frames":["main","render"]})"
        "\n";
    for (int t = 1; t <= ticks; ++t) {
      const int rendered = t > 100 ? 60 : 20;
      text += R"({"type":"delta","t":)" + std::to_string(t) +
              R"(,"process":1,"probe":"on_cpu","exposure_s":1,"frequency_hz":100,"values":[[1,)" +
              std::to_string(100 - rendered) + "],[2," + std::to_string(rendered) + "]]}\n";
    }
    return text;
  }
  static std::string perf_text(int samples = 300) {
    std::string text;
    for (int i = 0; i < samples; ++i) {
      text += "Web Content 10/11 [000] " + std::to_string(50 + i * 0.01) +
              ":   10000000 cpu-clock: \n\t7f72 render+0x1 (/bin/x)\n\t7f72 main (/bin/x)\n\n";
    }
    return text;
  }

  std::string dir_;
};

TEST_F(OfflineVerbsTest, WrongUseIsTwoAndWhatCannotBeReadIsOne) {
  for (const char* arguments :
       {"replay", "replay a b", "replay --json", "import", "import perf-script", "import perf-script a",
        "import gprof a -o b", "import perf-script a -o b -F 0", "import perf-script a -o b -F often",
        "import perf-script a -o b --tick 0s", "import perf-script a -o b --started soon"}) {
    const Finished wrong = run(arguments);
    EXPECT_EQ(wrong.exit_code, 2) << arguments;
    EXPECT_THAT(wrong.err, testing::StartsWith("stackwatch: ")) << arguments;
    EXPECT_EQ(std::count(wrong.err.begin(), wrong.err.end(), '\n'), 1) << wrong.err;
    EXPECT_EQ(wrong.out, "");
  }
  write("config.toml", "tick = \"never\"\n");
  write("capture", shifting_capture());
  EXPECT_EQ(run("replay --config config.toml capture").exit_code, 2);
  EXPECT_EQ(run("replay --config missing.toml capture").exit_code, 2);
  EXPECT_EQ(run("replay missing").exit_code, 1);
  EXPECT_EQ(run("import perf-script missing -o x").exit_code, 1);
  write("text", "hello\n");
  EXPECT_EQ(run("replay text").exit_code, 1);
  EXPECT_EQ(run("import perf-script text -o x").exit_code, 1);
}

TEST_F(OfflineVerbsTest, TheyHelpWithAnExample) {
  EXPECT_THAT(run("replay --help").out, HasSubstr("Example:\n  stackwatch replay"));
  EXPECT_THAT(run("import --help").out, HasSubstr("perf record -a -g -F 997"));
  const Finished perf = run("import perf-script --help");
  EXPECT_EQ(perf.exit_code, 0);
  EXPECT_THAT(perf.out, HasSubstr("stackwatch import perf-script"));
  EXPECT_THAT(perf.out, HasSubstr("--skip-bad-lines"));
}

TEST_F(OfflineVerbsTest, ReplayTellsWhatHasChangedTheSameEachTime) {
  write("capture", shifting_capture());
  const Finished table = run("replay capture");
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("redis-server[4711]"));
  EXPECT_THAT(table.out, HasSubstr("render"));
  const Finished lines = run("replay --json capture");
  EXPECT_EQ(lines.exit_code, 0);
  rapidjson::Document alert;
  alert.Parse(lines.out.substr(0, lines.out.find('\n')).c_str());
  ASSERT_TRUE(alert.IsObject()) << lines.out;
  EXPECT_STREQ(alert["id"].GetString(), "000000000001");
  EXPECT_STREQ(alert["state"].GetString(), "firing");
  EXPECT_STREQ(alert["frame"].GetString(), "render");
  EXPECT_THAT(alert["onset"].GetString(), testing::StartsWith("2026-11-22T12:01:4"));
  EXPECT_EQ(run("replay --json capture").out, lines.out);
  EXPECT_EQ(run("replay --json - < capture").out, lines.out) << "from standard input";
}

TEST_F(OfflineVerbsTest, ReplayObeysAConfiguration) {
  write("capture", shifting_capture());
  write("config.toml", "[alerts]\nmin_change_share = 0.9\n");
  const Finished quiet = run("replay --json --config config.toml capture");
  EXPECT_EQ(quiet.exit_code, 0) << quiet.err;
  EXPECT_EQ(quiet.out, "");
}

TEST_F(OfflineVerbsTest, ACaptureThatIsCutGivesItsAlertsAndTheError) {
  std::string text = shifting_capture();
  write("capture", text.substr(0, text.size() - 30));
  for (const char* verb : {"replay capture", "replay --json capture"}) {
    const Finished cut = run(verb);
    EXPECT_EQ(cut.exit_code, 1);
    EXPECT_THAT(cut.out, HasSubstr("render"));
    EXPECT_THAT(cut.err, HasSubstr("read capture: line 164"));
  }
}

TEST_F(OfflineVerbsTest, AFullDiskIsAnError) {
  write("perf.txt", perf_text());
  const Finished full = run("import perf-script perf.txt -o /dev/full");
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_THAT(full.err, HasSubstr("No space left"));
}

TEST_F(OfflineVerbsTest, AnImportIsReplayed) {
  write("perf.txt", perf_text());
  const Finished imported = run("import perf-script perf.txt -o capture --started 2026-11-22T12:00:00Z");
  EXPECT_EQ(imported.exit_code, 0) << imported.err;
  EXPECT_EQ(imported.out, "");
  EXPECT_THAT(imported.err, HasSubstr("300 samples of cpu-clock in 3 ticks of 1 processes, 100.0 Hz"));
  EXPECT_EQ(run("replay capture").exit_code, 0);
  const Finished piped = run("import perf-script - -o - < perf.txt");
  EXPECT_EQ(piped.exit_code, 0) << piped.err;
  EXPECT_EQ(piped.out.substr(0, 4), "\x28\xb5\x2f\xfd");
}

TEST_F(OfflineVerbsTest, BadLinesEndAnImportUnlessTheyAreToBeSkipped) {
  write("perf.txt", perf_text() + "garbage\n\n" + perf_text(5));
  const Finished failed = run("import perf-script perf.txt -o capture");
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_THAT(failed.err, HasSubstr("line 1201"));
  EXPECT_EQ(run("replay capture").exit_code, 0) << "what was complete is a whole capture";
  const Finished skipped = run("import perf-script perf.txt -o capture --skip-bad-lines");
  EXPECT_EQ(skipped.exit_code, 0);
  EXPECT_THAT(skipped.err, HasSubstr("left out 1 bad lines, the first is line 1201"));
}

}  // namespace
}  // namespace stackwatch
