// SPDX-License-Identifier: Apache-2.0
// The daemon's side of naming, with a worker that the test plays.
#include <gmock/gmock.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <algorithm>

#include <filesystem>
#include <fstream>

#include "fake_worker.h"
#include "namer_fixture.h"
#include "symbols/namer_impl.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class NamerTest : public NamerFixture {
 protected:
  std::unique_ptr<Namer> make(const std::string& proc_root = "/proc") {
    return std::make_unique<Namer>(functions, clock, UniqueFd(::epoll_create1(EPOLL_CLOEXEC)),
                                   std::make_unique<FakeSpawner>(workers), proc_root);
  }
  /// Answers everything that was asked so far: each offset is called `name`.
  void answer_all(const std::string& name) {
    while (auto request = workers.next()) {
      if (const auto* add = std::get_if<protocol::AddObject>(&request->first)) {
        added.push_back(add->object);
        workers.say(protocol::encode(protocol::ObjectInfo{add->sequence, add->object, protocol::ObjectStatus::kReadable,
                                                          protocol::Bytes(2, std::byte{0xab})}));
      } else if (const auto* resolve = std::get_if<protocol::Resolve>(&request->first)) {
        protocol::Names names{resolve->sequence, resolve->object, {}};
        for (size_t i = 0; i < resolve->offsets.size(); ++i) {
          names.names.push_back({static_cast<uint16_t>(i), protocol::NameKind::kSymbol, 0, name, ""});
        }
        asked += resolve->offsets.size();
        for (const auto& packet : protocol::encode(names)) workers.say(packet);
      } else {
        dropped.push_back(std::get<protocol::DropObject>(request->first).object);
      }
    }
  }
  bool wait_answering(Namer& namer, const std::string& name = "function") {
    return wait_until(namer, [&] {
      answer_all(name);
      return namer.pending() == 0;
    });
  }
  static uint64_t here() { return reinterpret_cast<uint64_t>(&here); }

  const ProcessKey self = key_of(::getpid());
  FakeWorkers workers;
  std::vector<uint32_t> added;
  std::vector<uint32_t> dropped;
  size_t asked = 0;
};

TEST_F(NamerTest, WithoutAWorkerNamesAreFallbackNamesInTheEnd) {
  workers.refuse = true;
  const auto namer = make();
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, user_stack({here()})));
  ASSERT_TRUE(wait_until(*namer, [&] { return namer->stats().objects > 2; })) << "maps read";
  EXPECT_EQ(namer->pending(), 1U);
  clock.advance_s(16);
  namer->dispatch();
  EXPECT_EQ(namer->pending(), 0U);
  EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("[unit_symbols]"));
  EXPECT_EQ(namer->stats().out_of_time, 1U);
  EXPECT_THAT(namer->take_events(), SizeIs(1));
  EXPECT_THAT(namer->take_events(), IsEmpty());
}

TEST_F(NamerTest, TooManyWaitingStacksAreRefusedAndCounted) {
  workers.refuse = true;
  const auto namer = make();
  for (size_t i = 0; i < kMaxPendingStacks; ++i) {
    ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{i}, user_stack({here()})));
  }
  EXPECT_FALSE(namer->request(self, ::getpid(), StackHash{9}, user_stack({here()})));
  EXPECT_EQ(namer->stats().refused, 1U);
  namer->forget(self);
  EXPECT_EQ(namer->pending(), 0U);
  EXPECT_TRUE(namer->request(self, ::getpid(), StackHash{9}, user_stack({here()})));
}

TEST_F(NamerTest, StacksOfAnEmptyStackAndOfEndlessOnesHaveNames) {
  const auto namer = make();
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, RawStack{}));
  EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("[unknown]"));
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{2}, user_stack(std::vector<uint64_t>(100'000, 1))));
  ASSERT_TRUE(wait_answering(*namer));
  EXPECT_THAT(namer->take_named().at(0).frames, SizeIs(kMaxFramesPerStack));
}

TEST_F(NamerTest, ProcessThatIsGoneIsUnknown) {
  const auto namer = make();
  ASSERT_TRUE(namer->request({self.pid, self.start_time_ns + 10'000'000}, ::getpid(), StackHash{1},
                             user_stack({here(), here()})));
  ASSERT_TRUE(wait_answering(*namer));
  EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("[unknown]", "[unknown]"));
  EXPECT_EQ(namer->stats().maps_read, 1U) << "there is nothing to read again";
}

TEST_F(NamerTest, CallersAreLookedUpBeforeTheirReturnAddress) {
  const auto namer = make();
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, user_stack({here(), here(), here() + 1})));
  ASSERT_TRUE(wait_answering(*namer));
  EXPECT_EQ(asked, 2U) << "the leaf and the third are one address, the second is one byte before it";
}

TEST_F(NamerTest, FramesOfTheProbeItselfAreLeftOut) {
  const auto namer = make();
  RawStack raw = user_stack({here()});
  raw.kernel_frames = {0xffffffff81000010, 0xffffffff81000020};
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, raw));
  ASSERT_TRUE(wait_answering(*namer, "bpf_trace_run4"));
  EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("bpf_trace_run4"))
      << "a function of the process may be called so, one of the kernel is ours";
}

TEST_F(NamerTest, WhatIsKnownIsNotAskedAgain) {
  const auto namer = make();
  for (uint64_t hash = 1; hash < 10; ++hash) {
    ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{hash}, user_stack({here()})));
    ASSERT_TRUE(wait_answering(*namer));
  }
  EXPECT_EQ(asked, 1U);
  EXPECT_EQ(namer->stats().cached_names, 1U);
  EXPECT_EQ(namer->stats().maps_read, 1U);
  const auto named = namer->take_named();
  EXPECT_THAT(named, SizeIs(9));
  EXPECT_EQ(functions[named[0].frames[0]].object, "abab") << "the build-id in hex";
}

TEST_F(NamerTest, NamesFromTheWorkerAreCleanedHere) {
  const auto namer = make();
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, user_stack({here()})));
  ASSERT_TRUE(wait_answering(*namer, "evil\n;\xff name"));
  EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("evil??? name"));
}

TEST_F(NamerTest, ObjectThatEndsTheWorkerIsNotGivenToTheNext) {
  const auto namer = make();
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, user_stack({here()})));
  uint32_t culprit = 0;
  ASSERT_TRUE(wait_until(*namer, [&] {
    if (const auto request = workers.next()) {
      if (const auto* add = std::get_if<protocol::AddObject>(&request->first)) culprit = add->object;
    }
    return culprit != 0;
  }));
  workers.socket.reset();  // dies at the first object that it was given
  ASSERT_TRUE(wait_until(*namer, [&] {
    answer_all("function");
    return namer->pending() == 0 && added.size() > 2;
  }));
  EXPECT_EQ(workers.spawned, 2);
  EXPECT_THAT(added, ::testing::Not(::testing::Contains(culprit)));
  EXPECT_EQ(namer->stats().bad_objects, 1U);
  EXPECT_EQ(namer->stats().worker_deaths, 1U);
  EXPECT_THAT(namer->take_events(), SizeIs(2));  // the death, and what it cost whom
}

TEST_F(NamerTest, DebugInformationThatEndsTheWorkerIsLeftAloneBeforeTheNames) {
  const auto namer = make();
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, user_stack({here()})));
  std::vector<protocol::FileKind> kinds;
  bool ended = false;
  ASSERT_TRUE(wait_until(*namer, [&] {
    while (auto request = workers.next()) {
      if (const auto* add = std::get_if<protocol::AddObject>(&request->first)) {
        kinds.push_back(add->kind);
        workers.say(protocol::encode(protocol::ObjectInfo{
            add->sequence, add->object, protocol::ObjectStatus::kReadable, {}, true, protocol::Wish::kNothing}));
      } else if (std::holds_alternative<protocol::Resolve>(request->first) && !ended) {
        ended = true;
        workers.socket.reset();
        break;
      } else if (const auto* resolve = std::get_if<protocol::Resolve>(&request->first)) {
        protocol::Names names{resolve->sequence, resolve->object, {}};
        for (size_t i = 0; i < resolve->offsets.size(); ++i) {
          names.names.push_back({static_cast<uint16_t>(i), protocol::NameKind::kSymbol, 0, "by symbol", ""});
        }
        for (const auto& packet : protocol::encode(names)) workers.say(packet);
      }
    }
    return namer->pending() == 0;
  }));
  EXPECT_EQ(std::ranges::count(kinds, protocol::FileKind::kElfSymbols), 1);
  EXPECT_EQ(namer->stats().bad_objects, 0U);
  const auto named = namer->take_named();
  ASSERT_THAT(named, SizeIs(1));
  EXPECT_EQ(functions[named[0].frames.at(0)].name, "by symbol");
}

TEST_F(NamerTest, ObjectThatEndedTheWorkerIsRememberedWhenItComesBack) {
  const auto namer = make();
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, user_stack({here()})));
  ASSERT_TRUE(wait_until(*namer, [&] { return workers.next().has_value(); }));
  workers.socket.reset();
  ASSERT_TRUE(wait_answering(*namer));
  ASSERT_EQ(namer->stats().bad_objects, 1U);
  namer->forget(self);
  clock.advance_s(3600);
  namer->dispatch();
  EXPECT_EQ(namer->stats().objects, 3U) << "the kernel, the vDSO and the bad one";
  namer->learn(self, ::getpid(), ExecId{1});
  const auto given_before = added.size();
  ASSERT_TRUE(wait_until(*namer, [&] {
    answer_all("function");
    return namer->stats().objects > 3 && added.size() > given_before;
  }));
  EXPECT_EQ(namer->stats().bad_objects, 1U);
  EXPECT_EQ(namer->stats().worker_deaths, 1U);
}

TEST_F(NamerTest, WorkerThatAlwaysDiesHangsNothing) {
  const auto namer = make();
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, user_stack({here()})));
  ASSERT_TRUE(wait_until(*namer, [&] {
    if (workers.next()) workers.socket.reset();
    clock.advance_s(0.01);
    return namer->pending() == 0;
  }));
  EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("[unit_symbols]"));
}

TEST_F(NamerTest, MadeUpAddressesDoNotMakeUsReadMapsWithoutEnd) {
  const auto namer = make();
  for (uint64_t i = 1; i <= 200; ++i) {
    ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{i}, user_stack({i * 16})));
    ASSERT_TRUE(wait_answering(*namer));
  }
  EXPECT_LE(namer->stats().maps_read, 1 + static_cast<uint64_t>(kRereads));
  EXPECT_GT(namer->stats().maps_read, 1U);
  clock.advance_s(11);
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{999}, user_stack({32})));
  ASSERT_TRUE(wait_answering(*namer));
  EXPECT_EQ(namer->stats().maps_read, 2 + static_cast<uint64_t>(kRereads)) << "one more in ten seconds";
  for (const NamedStack& stack : namer->take_named()) EXPECT_THAT(names_of(stack), ElementsAre("[unknown]"));
}

TEST_F(NamerTest, CodeWithoutAFileIsAnonAndFoundThoughItIsNew) {
  const auto namer = make();
  namer->learn(self, ::getpid(), ExecId{1});
  ASSERT_TRUE(wait_until(*namer, [&] { return namer->stats().objects > 2; }));
  void* const code = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, user_stack({reinterpret_cast<uint64_t>(code) + 8})));
  ASSERT_TRUE(wait_answering(*namer));
  ::munmap(code, 4096);
  EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("[anon]"));
}

TEST_F(NamerTest, ForgottenProcessLeavesNothingAndItsObjectsGoAfterAWhile) {
  const auto namer = make();
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, user_stack({here()})));
  ASSERT_TRUE(wait_answering(*namer));
  ASSERT_GT(namer->stats().objects, 2U);
  namer->forget(self);
  EXPECT_THAT(namer->take_named(), IsEmpty()) << "not taken yet, so dropped";
  clock.advance_s(29);
  namer->dispatch();
  EXPECT_GT(namer->stats().objects, 2U) << "the next process may map them";
  clock.advance_s(2);
  namer->dispatch();
  EXPECT_EQ(namer->stats().objects, 2U) << "the kernel and the vDSO";
  EXPECT_EQ(namer->stats().cached_names, 0U);
  answer_all("");
  EXPECT_THAT(dropped, SizeIs(added.size()));
}

TEST_F(NamerTest, StacksOfTheImageBeforeAnExecKeepTheirNames) {
  TargetProcess target(TARGET_PIE);
  const ProcessKey key = key_of(target.pid());
  const uint64_t old_address = target.where("plain_function").address;
  const auto namer = make();
  namer->learn(key, target.pid(), ExecId{1});
  ASSERT_TRUE(wait_until(*namer, [&] { return namer->stats().objects > 2; }));
  target.exec(TARGET_FIXED);
  const uint64_t new_address = target.where("plain_function").address;
  namer->learn(key, target.pid(), ExecId{2});
  ASSERT_TRUE(namer->request(key, target.pid(), StackHash{2}, user_stack({new_address}, ExecId{2})));
  ASSERT_TRUE(namer->request(key, target.pid(), StackHash{1}, user_stack({old_address}, ExecId{1})));
  ASSERT_TRUE(wait_answering(*namer));
  for (const NamedStack& stack : namer->take_named()) EXPECT_THAT(names_of(stack), ElementsAre("function"));
  ASSERT_TRUE(namer->request(key, target.pid(), StackHash{3}, user_stack({old_address}, ExecId{2})));
  ASSERT_TRUE(wait_answering(*namer));
  EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("[unknown]")) << "the new image has nothing there";
}

TEST_F(NamerTest, StackOfBeforeTheExecThatComesLateTakesNothingFromTheNewProgram) {
  const auto namer = make();
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, user_stack({here()}, ExecId{2})));
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{2}, user_stack({here()}, ExecId{1})));
  ASSERT_TRUE(wait_answering(*namer));
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{3}, user_stack({here()}, ExecId{2})));
  ASSERT_TRUE(wait_answering(*namer));
  for (const NamedStack& stack : namer->take_named()) {
    EXPECT_THAT(names_of(stack), ElementsAre(stack.hash == StackHash{2} ? "[unknown]" : "function"))
        << stack.hash.value;
  }
}

TEST_F(NamerTest, KernelFramesComeBelowTheUserFramesAndSayThatTheyAre) {
  const auto namer = make();
  RawStack stack{ExecId{1}, {here(), here() + 4}, {0xffffffff81000010, 0xffffffff81000020}};
  ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{1}, stack));
  ASSERT_TRUE(wait_answering(*namer));
  const NamedStack named = namer->take_named().at(0);
  EXPECT_THAT(names_of(named), ElementsAre("function", "function", "function_[k]", "function_[k]"));
  EXPECT_EQ(functions[named.frames[3]].object, "kernel");
}

class NamerWithFakeProc : public NamerTest {
 protected:
  NamerWithFakeProc() {
    std::string pattern = std::filesystem::temp_directory_path() / "stackwatch-proc-XXXXXX";
    root = ::mkdtemp(pattern.data());
  }
  ~NamerWithFakeProc() override { std::filesystem::remove_all(root); }
  std::filesystem::path root;
};

TEST_F(NamerWithFakeProc, KernelWithoutAddressesIsToldOnce) {
  std::ofstream(root / "kallsyms") << "0000000000000000 T _text\n";
  const auto namer = make(root);
  for (uint64_t hash = 1; hash <= 3; ++hash) {
    ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{hash}, {ExecId{1}, {}, {0xffffffff81000010}}));
    ASSERT_TRUE(wait_until(*namer, [&] {
      while (auto request = workers.next()) {
        if (const auto* add = std::get_if<protocol::AddObject>(&request->first)) {
          EXPECT_TRUE(request->second) << "with the file";
          workers.say(
              protocol::encode(protocol::ObjectInfo{add->sequence, add->object, protocol::ObjectStatus::kHidden, {}}));
        } else if (const auto* resolve = std::get_if<protocol::Resolve>(&request->first)) {
          workers.say(protocol::encode(protocol::Names{resolve->sequence, resolve->object, {protocol::Name{}}}).at(0));
        }
      }
      return namer->pending() == 0;
    }));
    EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("[kernel]_[k]"));
  }
  const auto events = namer->take_events();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].message(),
            "name kernel functions: the kernel hides its addresses (give the daemon CAP_SYSLOG, or set "
            "kernel.kptr_restrict to 0 or 1)");
}

TEST_F(NamerWithFakeProc, NoKallsymsIsToldOnceToo) {
  const auto namer = make(root);
  for (uint64_t hash = 1; hash <= 3; ++hash) {
    ASSERT_TRUE(namer->request(self, ::getpid(), StackHash{hash}, {ExecId{1}, {}, {0xffffffff81000010}}));
    EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("[kernel]_[k]"));
  }
  EXPECT_THAT(namer->take_events(), SizeIs(1));
}

}  // namespace
}  // namespace stackwatch
