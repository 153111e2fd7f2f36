// SPDX-License-Identifier: Apache-2.0
// Whatever the moment of a SIGKILL or a power cut: the file opens, and what was committed is in it.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <random>

#include "tests/unit/store/store_fixture.h"

namespace stackwatch {
namespace {

using ::testing::SizeIs;

class CrashTest : public StoreTest {
 protected:
  /// A process that puts alerts from `first` on, each with a row to tell, and writes the number of each commit into
  /// `progress` once it returned.
  [[nodiscard]] pid_t start_writer(int first, int progress) {
    const pid_t child = fork();
    if (child != 0) return child;
    auto opened = StateFile::open(directory_, {}, kNow);
    if (!opened) _exit(1);
    const std::string padding(2000, 'p');
    for (int i = first;; ++i) {
      StoredAlert alert = stored("a" + std::to_string(i), AlertState::kFiring, static_cast<uint64_t>(i));
      alert.evidence += padding;
      const bool done = opened->file->begin() && opened->file->put_to_tell(alert) && opened->file->commit();
      if (!done || write(progress, &i, sizeof(i)) != sizeof(i)) _exit(2);
    }
  }
  [[nodiscard]] static int last_of(int progress) {
    int last = -1;
    for (int value = 0; read(progress, &value, sizeof(value)) == sizeof(value);) last = value;
    return last;
  }
};

TEST_F(CrashTest, EveryCommitSurvivesSigkillAtRandomMoments) {
  std::mt19937 random(6);
  int next = 0;
  for (int round = 0; round < 25; ++round) {
    std::array<int, 2> pipe_fds{};
    ASSERT_EQ(pipe(pipe_fds.data()), 0);
    const pid_t writer = start_writer(next, pipe_fds[1]);
    close(pipe_fds[1]);
    usleep(static_cast<useconds_t>(1000 + random() % 40'000));
    kill(writer, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(writer, &status, 0), writer);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed with " << WEXITSTATUS(status);
    const int last = last_of(pipe_fds[0]);
    close(pipe_fds[0]);

    auto file = open();
    ASSERT_TRUE(file);
    ASSERT_EQ(set_aside_, "");
    const auto count = file->alerts(1'000'000)->size();
    if (last >= 0) {
      ASSERT_GE(count, static_cast<size_t>(last) + 1) << "a commit that returned is gone";
    }
    // An alert and its row to tell come together or not at all.
    EXPECT_THAT(*file->outbox(0, 1'000'000), SizeIs(count));
    next = static_cast<int>(count);
  }
  EXPECT_GT(next, 25);
}

// What a power cut leaves is some state of the file and some state of the log, each as of a moment: here copies taken
// while another process is held up, the log cut at any byte. Not where pages are just moved from the log to the file:
// that begins when the whole log is on the disk.
TEST_F(CrashTest, ACopyOfFileAndCutLogOpens) {
  std::mt19937 random(7);
  std::array<int, 2> pipe_fds{};
  ASSERT_EQ(pipe(pipe_fds.data()), 0);
  const pid_t writer = start_writer(0, pipe_fds[1]);
  close(pipe_fds[1]);
  int first = 0;
  ASSERT_EQ(read(pipe_fds[0], &first, sizeof(first)), static_cast<ssize_t>(sizeof(first)));

  int tried = 0;
  int cut = 0;
  for (int round = 0; round < 30; ++round) {
    usleep(static_cast<useconds_t>(random() % 8000));
    kill(writer, SIGSTOP);
    siginfo_t info{};
    ASSERT_EQ(waitid(P_PID, static_cast<id_t>(writer), &info, WSTOPPED), 0);
    const std::string copy = directory_ + "/copy";
    std::filesystem::create_directory(copy);
    std::filesystem::permissions(copy, std::filesystem::perms::owner_all);
    std::filesystem::copy_file(path(), copy + "/state.db");
    std::error_code no_log;
    if (std::filesystem::copy_file(path() + "-wal", copy + "/state.db-wal", no_log)) {
      const auto size = std::filesystem::file_size(copy + "/state.db-wal");
      const bool log_is_newer =
          std::filesystem::last_write_time(path() + "-wal") > std::filesystem::last_write_time(path());
      if (round % 2 == 1 && size > 0 && log_is_newer) {
        std::filesystem::resize_file(copy + "/state.db-wal", random() % size);
        ++cut;
      }
    }
    kill(writer, SIGCONT);
    {
      auto opened = StateFile::open(copy, {}, kNow);
      ASSERT_TRUE(opened) << opened.error().message();
      // A cut log after a checkpoint into the file may lack what the file already has: never damage of the file.
      ASSERT_EQ(opened->set_aside, "") << "round " << round;
      const auto alerts = opened->file->alerts(1'000'000);
      ASSERT_TRUE(alerts);
      EXPECT_THAT(*opened->file->outbox(0, 1'000'000), SizeIs(alerts->size()));
      tried += alerts->empty() ? 0 : 1;
    }
    std::filesystem::remove_all(copy);
  }
  kill(writer, SIGKILL);
  waitpid(writer, nullptr, 0);
  close(pipe_fds[0]);
  EXPECT_GT(tried, 5);
  EXPECT_GT(cut, 3);
}

}  // namespace
}  // namespace stackwatch
