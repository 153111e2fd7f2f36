// SPDX-License-Identifier: Apache-2.0
// Whole and right stacks where they are hard to walk: tests/programs/frames.c tells where its functions are.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"
#include "tests/kernel/support/unwinding.h"

namespace stackwatch {
namespace {

struct Code {
  uint64_t start = 0;
  uint64_t end = 0;
  /// A return address may be the one after the function's last byte.
  [[nodiscard]] bool has(uint64_t address) const { return address >= start && address <= end; }
};
using Functions = std::map<std::string, Code>;

/// The last that was told of each.
Functions functions_of(const std::string& output) {
  Functions functions;
  std::istringstream lines(output);
  std::string word;
  while (lines >> word) {
    std::string name;
    Code code;
    if (word == "function" && lines >> name >> std::hex >> code.start >> code.end) functions[name] = code;
  }
  return functions;
}

/// Whether these functions follow each other somewhere in a stack, the innermost first.
bool has_in_order(const std::vector<uint64_t>& frames, const Functions& functions,
                  const std::vector<std::string>& names) {
  const auto is = [&](uint64_t frame, const std::string& name) { return functions.at(name).has(frame); };
  return std::search(frames.begin(), frames.end(), names.begin(), names.end(), is) != frames.end();
}

/// From `main` on: two functions of the C library, then the start.
bool reaches_start(const std::vector<uint64_t>& frames, const Functions& functions) {
  const size_t count = frames.size();
  return count >= 4 && functions.at("_start").has(frames[count - 1]) && functions.at("main").has(frames[count - 4]);
}

struct Tally {
  int64_t samples = 0;
  int64_t concerned = 0;  ///< of the samples: with what is looked for
  int64_t wrong = 0;
  int64_t lost = 0;
  std::string example;

  void add(const Tally& other) {
    samples += other.samples;
    concerned += other.concerned;
    wrong += other.wrong;
    lost += other.lost;
    if (example.empty()) example = other.example;
  }
};

/// The program, watched.
class Watched {
 public:
  explicit Watched(const std::vector<std::string>& arguments) : child_(command(arguments)) {}

  [[nodiscard]] bool attach() {
    if (!child_.wait_for("phase 1\n", 20)) return false;
    probe_ = live_.engine->make_probe(ProbeKind::kOnCpu);
    return probe_->attach(child_.key(), {.frequency_hz = 499}).has_value();
  }
  Child& child() { return child_; }

  /// What was sampled since the last call. Of the stacks with a frame in `where`, those are right that have `chain`.
  [[nodiscard]] Tally read(const Code& where, const std::vector<std::string>& chain) {
    Tally tally;
    const Functions functions = functions_of(child_.output());
    if (!live_.engine->collect()) return tally;
    const auto delta = probe_->read();
    if (!delta) return tally;
    for (const auto& stack : delta->new_stacks) frames_[stack.hash.value] = stack.stack.user_frames;
    tally.lost = static_cast<int64_t>(delta->lost[LossReason::kUnwindIncomplete]);
    for (const auto& value : delta->values) {
      const std::vector<uint64_t>& frames = frames_[value.stack.value];
      tally.samples += value.value;
      const bool concerned = std::ranges::any_of(frames, [&](uint64_t frame) { return where.has(frame); });
      if (concerned) tally.concerned += value.value;
      if (reaches_start(frames, functions) && (!concerned || has_in_order(frames, functions, chain))) continue;
      tally.wrong += value.value;
      if (tally.example.empty()) tally.example = print(frames, functions);
    }
    return tally;
  }

  /// Reads until stacks are whole: their tables are there. All that was read until then.
  [[nodiscard]] Tally until_whole(const Code& where, const std::vector<std::string>& chain, bool& whole) {
    Tally all;
    for (int turn = 0; turn < 60; ++turn) {
      pass(0.25);
      const Tally now = read(where, chain);
      all.add(now);
      whole = now.concerned >= 10 && now.lost == 0 && now.wrong == 0;
      if (whole) return all;
    }
    return all;
  }

 private:
  static std::vector<std::string> command(const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {test_program("frames")};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return all;
  }
  static std::string print(const std::vector<uint64_t>& frames, const Functions& functions) {
    std::ostringstream text;
    for (const uint64_t frame : frames) {
      text << std::hex << frame;
      for (const auto& [name, code] : functions) text << (code.has(frame) ? "(" + name + ")" : "");
      text << ' ';
    }
    return text.str();
  }

  Child child_;
  UnwindingEngines live_;
  std::unique_ptr<Probe> probe_;
  std::map<uint64_t, std::vector<uint64_t>> frames_;
};

void expect_whole_and_right(Watched& watched, const Code& where, const std::vector<std::string>& chain) {
  bool whole = false;
  const Tally before = watched.until_whole(where, chain, whole);
  EXPECT_TRUE(whole) << before.example;
  pass(1.5);
  const Tally after = watched.read(where, chain);
  EXPECT_GT(after.concerned, 30) << "of " << after.samples;
  EXPECT_LE(after.wrong * 100, after.samples) << after.wrong << " of " << after.samples << ": " << after.example;
  EXPECT_LE(after.lost * 100, after.samples) << "of " << after.samples;
  testing::Test::RecordProperty("whole_and_right",
                                std::to_string(after.samples - after.wrong) + " of " + std::to_string(after.samples));
}

TEST(UnwindHard, FramesOfTheVdso) {
  STACKWATCH_REQUIRE_BPF();
  Watched watched({"vdso"});
  ASSERT_TRUE(watched.attach()) << watched.child().output();
  const Functions functions = functions_of(watched.child().output());
  // clock_gettime of the C library lies between the two: the chain's frames are those before and after.
  expect_whole_and_right(watched, functions.at("vdso"), {"ask_time", "main"});
}

class UnwindHandler : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Stacks, UnwindHandler, testing::Values("handler", "handler-elsewhere"),
                         [](const auto& tested) { return tested.param == "handler" ? "Same" : "Alternate"; });

TEST_P(UnwindHandler, LeadsToWhatItInterrupted) {
  STACKWATCH_REQUIRE_BPF();
  Watched watched({GetParam()});
  ASSERT_TRUE(watched.attach()) << watched.child().output();
  const Functions functions = functions_of(watched.child().output());
  expect_whole_and_right(watched, functions.at("on_alarm"), {"interrupted", "main"});
}

// A library is loaded, run in, unloaded, and another loaded, which the loader puts at the same place. While the new
// one's mapping or table is not known, stacks may be cut, but each of those must be counted.
TEST(UnwindHard, LibrariesThatComeAndGo) {
  STACKWATCH_REQUIRE_BPF();
  const std::string one = test_program("frameless_40.so");
  const std::string other = test_program("frameless_56.so");
  Watched watched({"plugins", one, other, one});
  ASSERT_TRUE(watched.attach()) << watched.child().output();
  for (int phase = 1; phase <= 3; ++phase) {
    SCOPED_TRACE("phase " + std::to_string(phase));
    ASSERT_TRUE(watched.child().wait_for("phase " + std::to_string(phase) + "\n", 20)) << watched.child().output();
    const Functions functions = functions_of(watched.child().output());
    static constexpr uint64_t kPage = 4096;
    const uint64_t first = functions.at("plugin_inner").start / kPage * kPage;
    const Code plugin{first, first + kPage};
    const std::vector<std::string> chain = {"plugin_inner", "plugin_middle", "plugin_work", "visit", "main"};
    bool whole = false;
    const Tally meanwhile = watched.until_whole(plugin, chain, whole);
    EXPECT_TRUE(whole) << meanwhile.example;
    RecordProperty("meanwhile_" + std::to_string(phase), std::to_string(meanwhile.wrong) + " wrong, " +
                                                             std::to_string(meanwhile.lost) + " counted of " +
                                                             std::to_string(meanwhile.samples));
    EXPECT_LE(meanwhile.wrong, meanwhile.lost) << "of " << meanwhile.samples << ": " << meanwhile.example;
    expect_whole_and_right(watched, plugin, chain);
    watched.child().signal(SIGUSR1);
  }
}

}  // namespace
}  // namespace stackwatch
