// SPDX-License-Identifier: Apache-2.0
// Naming with debug information and JITs' maps: the real worker, real processes.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>

#include "debug_files.h"
#include "namer_fixture.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;

/// Both fixtures' parts are wanted.
class NamerDebugTest : public NamerFixture {
 protected:
  std::unique_ptr<StackNamer> make() { return std::move(*make_namer(functions, clock, {WORKER, "/proc"})); }
};

TEST_F(NamerDebugTest, InlinedCallsAreFramesAndPlacesAreKnown) {
  TargetProcess target(DEBUG_DWARF5);
  const auto namer = make();
  EXPECT_THAT(name(*namer, target.pid(), user_stack({target.where("place").address})),
              ElementsAre("deep::outer(int volatile&)", "between", "deep::Counter::innermost(int volatile&)"));
  ASSERT_EQ(last_.places.size(), 3U);
  EXPECT_THAT(std::string(namer->place(last_.places[0])), ::testing::HasSubstr("inlined.cpp:"));
  EXPECT_NE(last_.places[0], last_.places[1]);
}

TEST_F(NamerDebugTest, SeparateDebugFileBesideTheProgram) {
  const std::filesystem::path directory =
      std::filesystem::temp_directory_path() / ("names-" + std::to_string(::getpid()));
  std::filesystem::create_directories(directory / ".debug");
  const std::string program = directory / "stripped";
  const std::string debug = directory / ".debug" / "apart.debug";
  ASSERT_EQ(
      std::system(("objcopy --only-keep-debug " DEBUG_DWARF4 " " + debug + " && objcopy --strip-all " +
                   "--remove-section .note.gnu.build-id --add-gnu-debuglink=" + debug + " " DEBUG_DWARF4 " " + program)
                      .c_str()),
      0);
  TargetProcess target(program);
  const auto namer = make();
  EXPECT_THAT(name(*namer, target.pid(), user_stack({target.where("place").address})),
              ElementsAre("deep::outer(int volatile&)", "between", "deep::Counter::innermost(int volatile&)"));
  EXPECT_GE(namer->stats().debug_files, 1U);  // libraries may have theirs, too
  std::filesystem::remove_all(directory);
}

TEST_F(NamerDebugTest, ProcessThatHasEndedKeepsItsInlinedCalls) {
  TargetProcess target(DEBUG_DWARF5);
  const auto namer = make();
  const ProcessKey key = key_of(target.pid());
  const uint64_t place = target.where("place").address;
  const uint64_t outer = target.where("outer").address;
  namer->learn(key, target.pid(), ExecId{1});
  ASSERT_TRUE(wait_until(*namer, [&] { return namer->stats().objects > 2 && namer->worker_pid() > 0; }));
  const pid_t pid = target.pid();
  target.end();
  for (const uint64_t address : {place, outer}) {
    ASSERT_TRUE(namer->request(key, pid, StackHash{address}, user_stack({address})));
  }
  ASSERT_TRUE(wait_until(*namer, [&] { return namer->pending() == 0; }));
  const auto named = namer->take_named();
  ASSERT_EQ(named.size(), 2U);
  EXPECT_EQ(named[0].frames.size() + named[1].frames.size(), 4U);
}

/// Node itself: the place of a function as its map tells it, asked for by address.
TEST_F(NamerDebugTest, FunctionsOfNode) {
  if (std::system("command -v node >/dev/null 2>&1") != 0) GTEST_SKIP() << "REQUIRES node (package nodejs)";
  const std::string log = "/tmp/stackwatch-v8-" + std::to_string(::getpid()) + ".log";
  const pid_t child = ::fork();
  if (child == 0) {
    ::execlp("node", "node", "--perf-basic-prof", ("--logfile=" + log).c_str(), "--no-logfile-per-isolate", "-e",
             "function stackwatchSpin(n) { let s = 0; for (let i = 0; i < n; i++) s += Math.sqrt(i + s); return s; }"
             "for (let i = 0; i < 300; i++) stackwatchSpin(10000); setInterval(() => {}, 1000);",
             static_cast<char*>(nullptr));
    ::_exit(127);
  }
  const std::string map = "/tmp/perf-" + std::to_string(child) + ".map";
  uint64_t address = 0;
  const auto namer = make();
  // Some time after it was compiled the function is in the map; nothing tells when.
  wait_until(*namer, [&] {
    std::ifstream lines(map);
    for (std::string line; std::getline(lines, line);) {
      if (line.find("JS:*stackwatchSpin") != std::string::npos) address = std::stoull(line, nullptr, 16);
    }
    return address != 0;
  });
  const auto names = name(*namer, child, user_stack({address + 8}));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  std::filesystem::remove(map);
  std::filesystem::remove(log);
  ASSERT_EQ(names.size(), 1U);
  EXPECT_THAT(names[0], ::testing::StartsWith("JS:*stackwatchSpin"));
}

/// A child with code that has no file.
class NamerJitTest : public NamerDebugTest {
 protected:
  void SetUp() override {
    code_ = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(code_, MAP_FAILED);
    child_ = ::fork();
    if (child_ == 0) {
      for (;;) ::pause();
    }
    map_ = "/tmp/perf-" + std::to_string(child_) + ".map";
    std::filesystem::remove(map_);
  }
  void TearDown() override {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    ::munmap(code_, 4096);
    std::filesystem::remove(map_);
  }
  void append(uint64_t offset, const std::string& name) {
    char line[128];
    std::snprintf(line, sizeof line, "%lx 10 %s\n", static_cast<unsigned long>(address(offset)), name.c_str());
    std::ofstream(map_, std::ios::app) << line;
  }
  [[nodiscard]] uint64_t address(uint64_t offset) const { return reinterpret_cast<uint64_t>(code_) + offset; }

  void* code_ = nullptr;
  pid_t child_ = -1;
  std::string map_;
};

TEST_F(NamerJitTest, IsNamedByItsMapAndTheMapIsReadOn) {
  append(0, "JS:first");
  const auto namer = make();
  EXPECT_THAT(name(*namer, child_, user_stack({address(4)})), ElementsAre("JS:first"));
  EXPECT_THAT(name(*namer, child_, user_stack({address(0x104)})), ElementsAre("[jit]"));
  append(0x100, "JS:second");
  EXPECT_THAT(name(*namer, child_, user_stack({address(0x104)})), ElementsAre("JS:second"));
}

TEST_F(NamerJitTest, MapThatComesLaterIsFound) {
  const auto namer = make();
  EXPECT_THAT(name(*namer, child_, user_stack({address(4)})), ElementsAre("[anon]"));
  append(0, "late");
  clock.advance_s(11);
  EXPECT_THAT(name(*namer, child_, user_stack({address(5)})), ElementsAre("late"));
}

TEST_F(NamerJitTest, MapOfSomebodyElseIsNotRead) {
  if (::geteuid() != 0) GTEST_SKIP() << "REQUIRES root, to give a file away";
  append(0, "made up");
  ASSERT_EQ(::chown(map_.c_str(), 65534, 65534), 0);
  const auto namer = make();
  EXPECT_THAT(name(*namer, child_, user_stack({address(4)})), ElementsAre("[anon]"));
}

TEST_F(NamerJitTest, OnlyRegularFilesAreRead) {
  ASSERT_EQ(::mkfifo(map_.c_str(), 0600), 0);  // opening it for reading would wait for a writer
  const auto namer = make();
  EXPECT_THAT(name(*namer, child_, user_stack({address(4)})), ElementsAre("[anon]"));
}

TEST_F(NamerJitTest, WorkerThatDiedIsGivenTheMapAgain) {
  append(0, "JS:first");
  const auto namer = make();
  EXPECT_THAT(name(*namer, child_, user_stack({address(4)})), ElementsAre("JS:first"));
  const pid_t old = namer->worker_pid();
  ::kill(old, SIGKILL);
  ASSERT_TRUE(wait_until(*namer, [&] {
    clock.advance_s(1);
    return namer->worker_pid() > 0 && namer->worker_pid() != old;
  }));
  EXPECT_THAT(name(*namer, child_, user_stack({address(5)})), ElementsAre("JS:first"));
}

}  // namespace
}  // namespace stackwatch
