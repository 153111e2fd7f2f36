// SPDX-License-Identifier: Apache-2.0
#include "store/state_file.h"

#include <gmock/gmock.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/store/store_fixture.h"

namespace stackwatch {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

class StateFileTest : public StoreTest {
 protected:
  void write(const std::string& content) const { std::ofstream(path(), std::ios::binary) << content; }
  /// As an older version, or another program, would have.
  void run_sql(const char* sql) const {
    sqlite3* handle = nullptr;
    ASSERT_EQ(sqlite3_open(path().c_str(), &handle), SQLITE_OK);
    char* error = nullptr;
    EXPECT_EQ(sqlite3_exec(handle, sql, nullptr, nullptr, &error), SQLITE_OK) << error;
    sqlite3_close(handle);
  }
  [[nodiscard]] size_t aside() const {
    return static_cast<size_t>(std::ranges::count_if(
        files(), [](const std::string& name) { return name.find(".aside-") != name.npos && !name.ends_with("-wal"); }));
  }
  static std::vector<std::string> ids(const std::vector<StoredAlert>& alerts) {
    std::vector<std::string> ids;
    for (const StoredAlert& alert : alerts) ids.push_back(alert.id);
    return ids;
  }
};

TEST_F(StateFileTest, AFileThatIsNoDatabaseIsSetAsideWithATimeInItsName) {
  write("this is no database, and longer than a header of one hundred bytes would be, so that it is looked at all " +
        std::string(4096, 'x'));
  auto file = open();
  ASSERT_TRUE(file);
  EXPECT_THAT(set_aside_, HasSubstr("state.db.aside-20261122T120320"));
  EXPECT_THAT(files(), Contains(StartsWith("state.db.aside-20261122T120320")));
  EXPECT_TRUE(file->put(stored("a")));
  EXPECT_THAT(*file->alerts(10), SizeIs(1));
}

TEST_F(StateFileTest, DamageInTheMiddleIsSetAsideAndTheBytesAreKept) {
  {
    auto file = open();
    ASSERT_TRUE(file->begin());
    for (int i = 0; i < 500; ++i) ASSERT_TRUE(file->put(stored("alert-" + std::to_string(i))));
    ASSERT_TRUE(file->commit());
  }
  const auto size = std::filesystem::file_size(path());
  ASSERT_GT(size, 20'000U);
  {
    std::fstream damage(path(), std::ios::in | std::ios::out | std::ios::binary);
    damage.seekp(4096);
    damage << std::string(3 * 4096, '\x5a');
  }
  auto file = open();
  ASSERT_TRUE(file);
  EXPECT_THAT(set_aside_, HasSubstr("could not be used"));
  EXPECT_THAT(*file->alerts(10), IsEmpty());
  for (const std::string& name : files()) {
    if (name.find("aside") != name.npos) {
      EXPECT_EQ(std::filesystem::file_size(directory_ + "/" + name), size);
    }
  }
}

TEST_F(StateFileTest, ANewerVersionIsSetAside) {
  { auto file = open(); }
  run_sql("PRAGMA user_version=99");
  auto file = open();
  EXPECT_THAT(set_aside_, HasSubstr("newer stackwatchd"));
  EXPECT_TRUE(file->put(stored("a")));
}

TEST_F(StateFileTest, AnotherProgramsFileIsSetAsideUnchanged) {
  run_sql("CREATE TABLE recipes (name TEXT); INSERT INTO recipes VALUES ('soup')");
  auto file = open();
  EXPECT_THAT(set_aside_, HasSubstr("another program's"));
}

TEST_F(StateFileTest, OnlyTheNewestSetAsideAreKept) {
  for (int i = 0; i < 5; ++i) {
    write(std::string(5000, 'x'));
    ASSERT_TRUE(open());
    EXPECT_THAT(set_aside_, HasSubstr("aside"));
  }
  EXPECT_EQ(aside(), StateFile::kMaxSetAside);
}

TEST_F(StateFileTest, ASecondDaemonIsRefusedAndChangesNothing) {
  auto first = open();
  ASSERT_TRUE(first->put(stored("a")));
  // Locks are a process's: another one is needed to meet them.
  const pid_t child = fork();
  if (child == 0) {
    auto second = StateFile::open(directory_, {}, kNow);
    _exit(!second && second.error().why.find("another stackwatchd") != std::string::npos ? 7 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(aside(), 0U);
  EXPECT_TRUE(first->put(stored("b")));
}

TEST_F(StateFileTest, ADirectoryThatOthersMayWriteIntoIsRefused) {
  chmod(directory_.c_str(), 0777);
  auto opened = StateFile::open(directory_, {}, kNow);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().why, HasSubstr("others may write"));
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(StateFileTest, ALinkInPlaceOfTheFileIsNotFollowed) {
  const std::string target = directory_ + "/precious";
  std::ofstream(target) << "";
  ASSERT_EQ(symlink(target.c_str(), path().c_str()), 0);
  auto opened = StateFile::open(directory_, {}, kNow);
  EXPECT_FALSE(opened);
  EXPECT_EQ(std::filesystem::file_size(target), 0U);
}

TEST_F(StateFileTest, WithoutADirectoryItSaysSo) {
  EXPECT_FALSE(StateFile::open("/nonexistent/stackwatch", {}, kNow));
  std::ofstream(directory_ + "/file") << "";
  EXPECT_FALSE(StateFile::open(directory_ + "/file", {}, kNow));
}

TEST_F(StateFileTest, TheFirstSchemaIsMigratedWithWhatItHolds) {
  { auto file = open(); }
  std::filesystem::remove(path());
  run_sql(
      "CREATE TABLE alerts (id TEXT PRIMARY KEY, state TEXT NOT NULL, pid INTEGER NOT NULL, start_time_ns INTEGER NOT "
      "NULL, boot_id TEXT NOT NULL, opened_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL, evidence TEXT NOT NULL);"
      "CREATE INDEX alerts_by_age ON alerts (updated_ns);"
      "CREATE TABLE outbox (sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, state TEXT NOT NULL, pid "
      "INTEGER NOT NULL, start_time_ns INTEGER NOT NULL, boot_id TEXT NOT NULL, opened_ns INTEGER NOT NULL, updated_ns "
      "INTEGER NOT NULL, evidence TEXT NOT NULL);"
      "INSERT INTO alerts VALUES ('old', 'firing', 4711, 10000000, 'boot-1', 50, 100, '{\"id\":\"old\"}');"
      "PRAGMA user_version=1; PRAGMA application_id=1400133473");
  auto file = open();
  EXPECT_EQ(set_aside_, "");
  EXPECT_THAT(*file->alerts(10), ElementsAre(stored("old")));
  Baseline baseline{"redis.service", 3, 9, {std::byte{1}, std::byte{2}}};
  ASSERT_TRUE(file->put(baseline));
  EXPECT_THAT(*file->baselines(1000), ElementsAre(baseline));
}

TEST_F(StateFileTest, TheSecondSchemaLosesItsEmptyTableAndNothingElse) {
  { auto file = open(); }
  run_sql(
      "CREATE TABLE incidents (id TEXT PRIMARY KEY, resolved INTEGER NOT NULL, opened_ns INTEGER NOT NULL, updated_ns "
      "INTEGER NOT NULL, evidence TEXT NOT NULL);"
      "CREATE INDEX incidents_by_age ON incidents (updated_ns);"
      "INSERT INTO alerts VALUES ('old', 'firing', 4711, 10000000, 'boot-1', 50, 100, '{\"id\":\"old\"}');"
      "INSERT INTO baselines VALUES ('redis.service', 3, 9, x'0102');"
      "PRAGMA user_version=2");
  {
    auto file = open();
    EXPECT_EQ(set_aside_, "");
    EXPECT_THAT(*file->alerts(10), ElementsAre(stored("old")));
    EXPECT_THAT(*file->baselines(1000), ElementsAre(Baseline{"redis.service", 3, 9, {std::byte{1}, std::byte{2}}}));
  }
  // It would fail were the table still there.
  run_sql("CREATE TABLE incidents (id TEXT)");
}

TEST_F(StateFileTest, WhatIsPutIsThereAfterReopening) {
  const Baseline baseline{"redis.service", 1, 5, {std::byte{0}, std::byte{255}}};
  int64_t first = 0;
  {
    auto file = open();
    ASSERT_TRUE(file->put(stored("a")));
    ASSERT_TRUE(file->put(stored("a", AlertState::kResolved, 200)));
    ASSERT_TRUE(file->put(baseline));
    first = *file->put_to_tell(stored("b", AlertState::kFiring, 300));
    const auto second = file->put_to_tell(stored("b", AlertState::kResolved, 400));
    ASSERT_TRUE(second);
    EXPECT_GT(*second, first);
    ASSERT_TRUE(file->mark_told(first));
  }
  auto file = open();
  EXPECT_THAT(*file->alerts(10),
              ElementsAre(stored("b", AlertState::kResolved, 400), stored("a", AlertState::kResolved, 200)));
  EXPECT_THAT(*file->baselines(1000), ElementsAre(baseline));
  ASSERT_TRUE(file->remove_baseline("redis.service"));
  EXPECT_THAT(*file->baselines(1000), IsEmpty());
  const auto outbox = *file->outbox(0, 10);
  ASSERT_THAT(outbox, SizeIs(1));
  EXPECT_EQ(outbox[0].alert.state, AlertState::kResolved);
  EXPECT_THAT(*file->outbox(outbox[0].sequence, 10), IsEmpty());
}

TEST_F(StateFileTest, RowsAreBoundedAndFiringOnesStay) {
  StoreBounds bounds;
  bounds.alerts = 10;
  bounds.outbox = 5;
  bounds.baselines = 3;
  auto file = open(bounds);
  ASSERT_TRUE(file->put(stored("standing", AlertState::kFiring, 1)));
  for (uint64_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(file->put_to_tell(stored("r" + std::to_string(i), AlertState::kResolved, 1000 + i)));
    ASSERT_TRUE(file->put(Baseline{"service-" + std::to_string(i), 1, i, {}}));
  }
  ASSERT_TRUE(file->prune());
  const auto kept = ids(*file->alerts(100));
  EXPECT_THAT(kept, SizeIs(11));
  EXPECT_THAT(kept, Contains("standing"));
  EXPECT_THAT(kept, Contains("r39"));
  EXPECT_THAT(*file->outbox(0, 100), SizeIs(5));
  EXPECT_GT(file->take_pruned_untold(), 0U);
  EXPECT_EQ(file->take_pruned_untold(), 0U);
  EXPECT_EQ(file->outbox(0, 100)->back().alert.id, "r39");
  const auto baselines = *file->baselines(1000);
  ASSERT_THAT(baselines, SizeIs(3));
  EXPECT_EQ(baselines.back().service, "service-37");
}

TEST_F(StateFileTest, BytesAreBoundedAndTheFileShrinks) {
  StoreBounds bounds;
  bounds.bytes = 8U << 20U;
  auto file = open(bounds);
  const std::vector<std::byte> blob(100'000, std::byte{7});
  for (uint64_t i = 0; i < 300; ++i) {
    ASSERT_TRUE(file->begin());
    ASSERT_TRUE(file->put(Baseline{"service-" + std::to_string(i), 1, i, blob})) << i;
    if (i % 4 == 0) {
      ASSERT_TRUE(file->prune());
    }
    ASSERT_TRUE(file->commit());
    ASSERT_LE(file->bytes(), bounds.bytes + (2U << 20U)) << i;  // the log before its checkpoint
  }
  EXPECT_EQ(file->baselines(blob.size())->at(0).service, "service-299");
  bounds.bytes = 4U << 20U;
  file->set_bounds(bounds);
  ASSERT_TRUE(file->prune());
  file.reset();
  EXPECT_LE(std::filesystem::file_size(path()), bounds.bytes);
}

TEST_F(StateFileTest, PastTheBoundAWriteFailsAndTheRestIsFine) {
  StoreBounds bounds;
  bounds.bytes = 2U << 20U;
  auto file = open(bounds);
  const std::vector<std::byte> blob(200'000, std::byte{7});
  Result<void> put;
  for (uint64_t i = 0; i < 50 && put; ++i) put = file->put(Baseline{"service-" + std::to_string(i), 1, i, blob});
  ASSERT_FALSE(put);
  EXPECT_THAT(put.error().why, HasSubstr("full"));
  EXPECT_FALSE(file->is_damaged());
  EXPECT_TRUE(file->prune());
  EXPECT_TRUE(file->put(Baseline{"service-new", 1, 99, blob}));
}

TEST_F(StateFileTest, ABaselineThatIsTooLargeIsRefused) {
  StoreBounds bounds;
  bounds.baseline_bytes = 10;
  auto file = open(bounds);
  EXPECT_FALSE(file->put(Baseline{"s", 1, 1, std::vector<std::byte>(11)}));
  EXPECT_TRUE(file->put(Baseline{"s", 1, 1, std::vector<std::byte>(10)}));
}

}  // namespace
}  // namespace stackwatch
