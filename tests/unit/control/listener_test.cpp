// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/listener.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/unit/control/temp_dir.h"

namespace stackwatch {
namespace {

namespace fs = std::filesystem;
constexpr const char* kNoGroup = "no-such-group-stackwatch-test";

UniqueFd bound_socket(const std::string& path, int type, bool listening) {
  UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  if (listening) {
    EXPECT_EQ(listen(fd.get(), 1), 0);
  }
  return fd;
}

TEST(Listener, AnEmptyOrTooLongPathIsWrongUse) {
  TempDir dir;
  EXPECT_EQ(Listener::open("", kNoGroup).error().kind, ErrorKind::kUsage);
  const auto result = Listener::open(dir / std::string(200, 'x'), kNoGroup);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::kUsage);
  EXPECT_NE(result.error().why.find("107"), std::string::npos) << result.error().message();
}

TEST(Listener, SomethingThatIsNoSocketIsLeftAlone) {
  TempDir dir;
  const std::string path = dir / "s";
  std::ofstream(path) << "precious";
  const auto result = Listener::open(path, kNoGroup);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::kFailed);
  EXPECT_EQ(fs::file_size(path), 8U);

  const std::string link = dir / "link";
  fs::create_symlink("s2", link);
  const UniqueFd target = bound_socket(dir / "s2", SOCK_STREAM, false);
  EXPECT_FALSE(Listener::open(link, kNoGroup));
  EXPECT_TRUE(fs::exists(dir / "s2"));
  EXPECT_TRUE(fs::is_symlink(link));
}

TEST(Listener, TheLockIsNotTakenThroughASymlink) {
  TempDir dir;
  fs::create_symlink(dir / "victim", dir / "s.lock");
  EXPECT_FALSE(Listener::open(dir / "s", kNoGroup));
  EXPECT_FALSE(fs::exists(dir / "victim"));
}

TEST(Listener, AStaleSocketIsReplaced) {
  TempDir dir;
  const std::string path = dir / "s";
  bound_socket(path, SOCK_STREAM, true).reset();
  ASSERT_TRUE(fs::is_socket(path));
  EXPECT_TRUE(Listener::open(path, kNoGroup));
}

TEST(Listener, ASecondDaemonIsToldAndTheFirstOneLivesOn) {
  TempDir dir;
  const std::string path = dir / "s";
  const auto first = Listener::open(path, kNoGroup);
  ASSERT_TRUE(first);
  const auto second = Listener::open(path, kNoGroup);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, ErrorKind::kFailed);
  EXPECT_EQ(second.error().why, "another daemon runs on this socket");
  EXPECT_TRUE(fs::is_socket(path));
}

TEST(Listener, ADaemonWithoutALockFileIsSeenByItsSocket) {
  TempDir dir;
  const UniqueFd other = bound_socket(dir / "s", SOCK_STREAM, true);
  const auto result = Listener::open(dir / "s", kNoGroup);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().why, "another daemon runs on this socket");
  EXPECT_FALSE(fs::exists(dir / "s.lock"));

  const UniqueFd datagram = bound_socket(dir / "d", SOCK_DGRAM, false);
  EXPECT_FALSE(Listener::open(dir / "d", kNoGroup));
  EXPECT_TRUE(fs::is_socket(dir / "d"));
}

TEST(Listener, IsOpenToOwnerAndGroupAloneWhateverTheUmask) {
  TempDir dir;
  for (const mode_t mask : {0000, 0022, 0077}) {
    const mode_t old = umask(mask);
    const auto listener = Listener::open(dir / "s", kNoGroup);
    umask(old);
    ASSERT_TRUE(listener);
    struct stat info {};
    ASSERT_EQ(stat((dir / "s").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0660U);
  }
}

TEST(Listener, TheSocketGoesToTheGroup) {
  if (geteuid() != 0) GTEST_SKIP() << "only root may give a file to another group";
  TempDir dir;
  const auto listener = Listener::open(dir / "s", "daemon");
  ASSERT_TRUE(listener);
  struct stat info {};
  ASSERT_EQ(stat((dir / "s").c_str(), &info), 0);
  EXPECT_NE(info.st_gid, 0U);
}

TEST(Listener, TheLastDirectoryIsMadeButNoTree) {
  TempDir dir;
  EXPECT_TRUE(Listener::open(dir / "new/s", kNoGroup));
  EXPECT_FALSE(Listener::open(dir / "a/b/s", kNoGroup));
}

TEST(Listener, LeavesNothingBehind) {
  TempDir dir;
  { ASSERT_TRUE(Listener::open(dir / "s", kNoGroup)); }
  EXPECT_TRUE(fs::is_empty(dir / ""));
}

TEST(Listener, DoesNotRemoveTheSocketOfAnother) {
  TempDir dir;
  UniqueFd other;
  {
    const auto listener = Listener::open(dir / "s", kNoGroup);
    ASSERT_TRUE(listener);
    fs::rename(dir / "s", dir / "ours");  // kept, so that its inode is not used again
    other = bound_socket(dir / "s", SOCK_STREAM, true);
  }
  EXPECT_TRUE(fs::is_socket(dir / "s"));
}

/// In a child: tries to listen once `go` ends, says how it went, and keeps the socket until `finish` ends.
[[noreturn]] void compete(const std::string& path, int go, int results, int finish) {
  char byte = 0;
  static_cast<void>(!read(go, &byte, 1));
  const auto listener = Listener::open(path, kNoGroup);
  byte = listener ? 'w' : 'l';
  static_cast<void>(!write(results, &byte, 1));
  static_cast<void>(!read(finish, &byte, 1));
  _exit(0);
}

TEST(Listener, OfManyThatStartAtOnceOnAStaleSocketExactlyOneWins) {
  TempDir dir;
  const std::string path = dir / "s";
  bound_socket(path, SOCK_STREAM, true).reset();
  int go[2];
  int results[2];
  int finish[2];
  ASSERT_TRUE(pipe(go) == 0 && pipe(results) == 0 && pipe(finish) == 0);
  constexpr int kDaemons = 8;
  std::vector<pid_t> children;
  for (int i = 0; i < kDaemons; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      close(go[1]);
      close(finish[1]);
      compete(path, go[0], results[1], finish[0]);
    }
    children.push_back(child);
  }
  close(go[1]);
  int winners = 0;
  for (int i = 0; i < kDaemons; ++i) {
    char result = 0;
    ASSERT_EQ(read(results[0], &result, 1), 1);
    if (result == 'w') ++winners;
  }
  EXPECT_EQ(winners, 1);
  close(finish[1]);
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  for (const int fd : {go[0], results[0], results[1], finish[0]}) close(fd);
}

}  // namespace
}  // namespace stackwatch
