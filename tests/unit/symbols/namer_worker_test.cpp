// SPDX-License-Identifier: Apache-2.0
// Naming as a whole: the real worker program, real processes.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "namer_fixture.h"

namespace stackwatch {

// Not in the unnamed namespace: a symbol that every linker keeps, with a name that shows demangling.
namespace namer_test_functions {
[[gnu::noinline]] int leaf(int value) { return value * 5 + 1; }
[[gnu::noinline]] int middle(int value) { return leaf(value + 1) * 2; }
[[gnu::noinline]] int root(int value) { return middle(value + 2) * 3; }
}  // namespace namer_test_functions

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

uint64_t address_of(int (*function)(int)) { return reinterpret_cast<uint64_t>(function); }

class NamerWorkerTest : public NamerFixture {
 protected:
  std::unique_ptr<StackNamer> make() {
    auto made = make_namer(functions, clock, {WORKER, "/proc"});
    EXPECT_TRUE(made);
    return std::move(*made);
  }
  static std::string status_line(pid_t pid, const std::string& field) {
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with(field + ":")) return line.substr(field.size() + 2);
    }
    return {};
  }
};

TEST_F(NamerWorkerTest, ItsOwnFunctionsRootFirst) {
  const auto namer = make();
  using namespace namer_test_functions;
  EXPECT_THAT(
      name(*namer, ::getpid(), user_stack({address_of(leaf), address_of(middle) + 5, address_of(root) + 5})),
      ElementsAre("stackwatch::namer_test_functions::root(int)", "stackwatch::namer_test_functions::middle(int)",
                  "stackwatch::namer_test_functions::leaf(int)"));
  EXPECT_THAT(namer->take_events(), IsEmpty());
}

TEST_F(NamerWorkerTest, LibcAndVdsoAndItsBuildId) {
  const auto namer = make();
  const auto sorter = reinterpret_cast<uint64_t>(::dlsym(RTLD_DEFAULT, "qsort_r"));
  void* const vdso = ::dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
  const auto clock_function = vdso != nullptr ? reinterpret_cast<uint64_t>(::dlsym(vdso, "__vdso_gettimeofday")) : 0;
  ASSERT_NE(clock_function, 0U);
  EXPECT_THAT(name(*namer, ::getpid(), user_stack({clock_function + 1, sorter + 8})),
              ElementsAre("qsort_r", "gettimeofday"));
  EXPECT_THAT(functions[last_.frames[0]].object, SizeIs(40)) << "SHA-1 in hex";
  EXPECT_EQ(functions[last_.frames[1]].object, "[vdso]");
}

TEST_F(NamerWorkerTest, KernelFunctionsFromKallsyms) {
  std::ifstream kallsyms("/proc/kallsyms");
  std::string name_of_one;
  uint64_t address = 0;
  for (std::string line; std::getline(kallsyms, line);) {
    std::istringstream fields(line);
    std::string type;
    fields >> std::hex >> address >> type >> name_of_one;
    if (name_of_one == "vfs_read") break;
  }
  if (address == 0 || name_of_one != "vfs_read") GTEST_SKIP() << "kallsyms shows no address (needs CAP_SYSLOG)";
  const auto namer = make();
  using namespace namer_test_functions;
  RawStack stack{ExecId{1}, {address_of(leaf)}, {address, address + 1}};
  EXPECT_THAT(name(*namer, ::getpid(), stack),
              ElementsAre("stackwatch::namer_test_functions::leaf(int)", "vfs_read_[k]", "vfs_read_[k]"));
  EXPECT_EQ(functions[last_.frames[2]].object, "kernel");
}

TEST_F(NamerWorkerTest, StrippedProgramsKeepTheirFunctionsApart) {
  for (const std::string program : {TARGET_PIE, TARGET_FIXED}) {
    const TargetProcess whole(program);
    const TargetProcess stripped(program + "_stripped");
    const auto namer = make();
    EXPECT_THAT(name(*namer, whole.pid(), user_stack({whole.where("turn").address + 1})),
                ElementsAre("shapes::Widget::turn(int, double)"));
    const auto turn = name(*namer, stripped.pid(), user_stack({stripped.where("turn").address + 1}));
    const auto plain = name(*namer, stripped.pid(), user_stack({stripped.where("plain_function").address + 1}));
    ASSERT_THAT(turn, SizeIs(1));
    EXPECT_TRUE(turn[0].starts_with("[" + std::filesystem::path(program).filename().string() + "_stripped]+0x"))
        << turn[0];
    EXPECT_NE(turn, plain);
  }
}

TEST_F(NamerWorkerTest, NamesSurviveTheEndOfAProcessThatWasLearned) {
  TargetProcess target(TARGET_PIE);
  const ProcessKey key = key_of(target.pid());
  const pid_t pid = target.pid();
  const uint64_t address = target.where("plain_function").address;
  const auto namer = make();
  namer->learn(key, pid, ExecId{1});
  ASSERT_TRUE(wait_until(*namer, [&] { return namer->stats().objects > 2; }));
  target.end();
  ASSERT_TRUE(namer->request(key, pid, StackHash{1}, user_stack({address})));
  ASSERT_TRUE(wait_until(*namer, [&] { return namer->pending() == 0; }));
  EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("plain_function"));
}

TEST_F(NamerWorkerTest, LibraryLoadedLaterIsFound) {
  const auto namer = make();
  EXPECT_THAT(name(*namer, ::getpid(), user_stack({address_of(namer_test_functions::leaf)})), SizeIs(1));
  void* const plugin = ::dlopen(PLUGIN, RTLD_NOW);
  ASSERT_NE(plugin, nullptr);
  const auto address = reinterpret_cast<uint64_t>(::dlsym(plugin, "plugin_function"));
  EXPECT_THAT(name(*namer, ::getpid(), user_stack({address})), ElementsAre("plugin_function"));
  EXPECT_EQ(namer->stats().maps_read, 2U);
  ::dlclose(plugin);
}

TEST_F(NamerWorkerTest, DeletedProgramIsStillRead) {
  const auto copy = std::filesystem::temp_directory_path() / ("stackwatch-deleted-" + std::to_string(::getpid()));
  std::filesystem::copy_file(TARGET_PIE, copy, std::filesystem::copy_options::overwrite_existing);
  const TargetProcess target(copy);
  std::filesystem::remove(copy);
  const auto namer = make();
  const auto names = name(*namer, target.pid(), user_stack({target.where("plain_function").address}));
  ASSERT_THAT(names, SizeIs(1));
  if (names[0] == "[" + copy.filename().string() + "]") {
    GTEST_SKIP() << "map_files needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN";
  }
  EXPECT_EQ(names[0], "plain_function");
}

TEST_F(NamerWorkerTest, KilledWithQuestionsOpenItIsRestartedAndTheyAreAnswered) {
  const auto namer = make();
  ASSERT_TRUE(wait_until(*namer, [&] { return namer->worker_pid() > 0; }));
  using namespace namer_test_functions;
  EXPECT_THAT(name(*namer, ::getpid(), user_stack({address_of(leaf)})), SizeIs(1));
  const pid_t first = namer->worker_pid();
  ::kill(first, SIGSTOP);  // so that what is asked now is not answered before it dies
  ASSERT_TRUE(namer->request(key_of(::getpid()), ::getpid(), StackHash{77},
                             user_stack({address_of(middle), address_of(root) + 5})));
  ::kill(first, SIGKILL);
  ASSERT_TRUE(wait_until(*namer, [&] { return namer->pending() == 0; }));
  EXPECT_THAT(names_of(namer->take_named().at(0)), ElementsAre("stackwatch::namer_test_functions::root(int)",
                                                               "stackwatch::namer_test_functions::middle(int)"));
  EXPECT_NE(namer->worker_pid(), first);
  EXPECT_EQ(namer->stats().worker_deaths, 1U);
  EXPECT_EQ(namer->stats().bad_objects, 0U) << "a kill from outside is nobody's fault the first time";
  const auto events = namer->take_events();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].why, "it was ended by SIGKILL");
}

TEST_F(NamerWorkerTest, WorkerHasNoPrivileges) {
  const auto namer = make();
  EXPECT_THAT(name(*namer, ::getpid(), user_stack({address_of(namer_test_functions::leaf)})), SizeIs(1));
  const pid_t worker = namer->worker_pid();
  EXPECT_EQ(status_line(worker, "CapEff"), "0000000000000000");
  EXPECT_EQ(status_line(worker, "CapPrm"), "0000000000000000");
  EXPECT_EQ(status_line(worker, "CapInh"), "0000000000000000");
  EXPECT_EQ(status_line(worker, "CapAmb"), "0000000000000000");
  EXPECT_EQ(status_line(worker, "NoNewPrivs"), "1");
  if (::geteuid() == 0) {
    EXPECT_EQ(status_line(worker, "CapBnd"), "0000000000000000");
    EXPECT_EQ(status_line(worker, "Uid"), "65534\t65534\t65534\t65534");
    EXPECT_EQ(status_line(worker, "Gid"), "65534\t65534\t65534\t65534");
    EXPECT_EQ(status_line(worker, "Groups"), " ");
  }
}

TEST_F(NamerWorkerTest, NothingIsLeftBehind) {
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  const auto before = open_files();
  pid_t worker = 0;
  {
    const auto namer = make();
    EXPECT_THAT(name(*namer, ::getpid(), user_stack({address_of(namer_test_functions::leaf)})), SizeIs(1));
    worker = namer->worker_pid();
    ASSERT_GT(worker, 0);
  }
  EXPECT_EQ(open_files(), before);
  EXPECT_EQ(::kill(worker, 0), -1) << "killed and reaped";
}

TEST_F(NamerWorkerTest, MissingProgramIsOneEvent) {
  auto namer = make_namer(functions, clock, {"/nonexistent/stackwatch-symbols", "/proc"});
  ASSERT_TRUE(namer);
  EXPECT_EQ((*namer)->worker_pid(), 0);
  const auto events = (*namer)->take_events();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].message(),
            "start the symbol worker /nonexistent/stackwatch-symbols: No such file or directory (until it runs, "
            "functions have no names)");
}

TEST_F(NamerWorkerTest, DefaultProgramIsTheOneBesideUs) { EXPECT_EQ(default_symbol_worker(), WORKER); }

}  // namespace
}  // namespace stackwatch
