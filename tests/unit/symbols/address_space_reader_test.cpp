// SPDX-License-Identifier: Apache-2.0
#include "symbols/address_space_reader.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "target_process.h"

namespace stackwatch {
namespace {

namespace fs = std::filesystem;

/// A tree that looks like /proc with one process.
class FakeProc : public ::testing::Test {
 protected:
  FakeProc() {
    std::string pattern = fs::temp_directory_path() / "stackwatch-proc-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    fs::create_directories(process() / "map_files");
    fs::create_directories(process() / "root/lib");
    write(process() / "stat", stat_line(kStart));
  }
  ~FakeProc() override { fs::remove_all(root_); }

  static std::string stat_line(uint64_t ticks) {
    std::string line = "7 (a ) b) S";
    for (int field = 4; field < 22; ++field) line += " 0";
    return line + " " + std::to_string(ticks) + " 0 0\n";
  }
  static void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }
  [[nodiscard]] fs::path process() const { return root_ / "7"; }
  [[nodiscard]] ProcessKey key() const { return {7, kStart * 10'000'000}; }
  /// A maps line for a file that is at `path` inside of the process's root.
  [[nodiscard]] std::string line_for(const std::string& path, unsigned inode_off_by = 0) const {
    struct stat info {};
    ::stat((process() / "root" / path.substr(1)).c_str(), &info);
    char line[512];
    std::snprintf(line, sizeof line, "1000-2000 r-xp 0 %x:%x %lu %s\n", ::major(info.st_dev), ::minor(info.st_dev),
                  static_cast<unsigned long>(info.st_ino) + inode_off_by, path.c_str());
    return line;
  }
  static std::optional<AddressSpaceReader::Answer> wait(AddressSpaceReader& reader) {
    pollfd ready{reader.fd(), POLLIN, 0};
    if (::poll(&ready, 1, 10'000) != 1) return std::nullopt;
    auto answers = reader.take();
    if (answers.empty()) return std::nullopt;
    return std::move(answers.front());
  }
  AddressSpaceReader::Space read(AddressSpaceReader& reader) {
    EXPECT_TRUE(reader.read(key(), 7, ExecId{1}));
    auto answer = wait(reader);
    EXPECT_TRUE(answer);
    return answer ? std::move(std::get<AddressSpaceReader::Space>(*answer)) : AddressSpaceReader::Space{};
  }

  static constexpr uint64_t kStart = 4711;
  fs::path root_;
};

TEST_F(FakeProc, MissingProcessIsGone) {
  AddressSpaceReader reader(root_);
  ASSERT_TRUE(reader.read(key(), 8, ExecId{1}));
  EXPECT_FALSE(std::get<AddressSpaceReader::Space>(*wait(reader)).alive);
}

TEST_F(FakeProc, PidOfAnotherProcessIsGone) {
  write(process() / "maps", "1000-2000 r-xp 0 00:00 0 \n");
  write(process() / "stat", stat_line(kStart + 1));
  AddressSpaceReader reader(root_);
  EXPECT_FALSE(read(reader).alive);
  for (const char* broken : {"", "7", "7 (name) S 1 2", "7 (name) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 x", ") ) )"}) {
    write(process() / "stat", broken);
    EXPECT_FALSE(read(reader).alive) << broken;
  }
}

TEST_F(FakeProc, GarbageInMapsIsNoMapping) {
  write(process() / "maps", std::string(100'000, 'x') + "\n1000-2000 r-xp 0 00:00 0 \n");
  AddressSpaceReader reader(root_);
  const auto space = read(reader);
  EXPECT_TRUE(space.alive);
  ASSERT_EQ(space.mappings.size(), 1U);
  EXPECT_EQ(space.mappings[0].file, AddressSpaceReader::kNoFile);
}

TEST_F(FakeProc, WithoutMapFilesTheSameFileIsFoundByItsPath) {
  write(process() / "root/lib/x.so", "content");
  write(process() / "maps", line_for("/lib/x.so"));
  AddressSpaceReader reader(root_);
  const auto space = read(reader);
  ASSERT_EQ(space.files.size(), 1U);
  EXPECT_TRUE(space.files[0].identified);
  EXPECT_TRUE(space.files[0].file);
  EXPECT_EQ(space.files[0].identity.bytes, 7U);
}

TEST_F(FakeProc, AnotherFileAtThePathIsNotTaken) {
  write(process() / "root/lib/x.so", "content");
  write(process() / "maps", line_for("/lib/x.so", 1));
  AddressSpaceReader reader(root_);
  const auto space = read(reader);
  ASSERT_EQ(space.files.size(), 1U);
  EXPECT_FALSE(space.files[0].identified);
  EXPECT_FALSE(space.files[0].file);
}

TEST_F(FakeProc, PipesAndLinksAreNotOpened) {
  ASSERT_EQ(::mkfifo((process() / "root/lib/pipe").c_str(), 0600), 0);
  write(process() / "root/lib/real", "content");
  fs::create_symlink("real", process() / "root/lib/link");
  AddressSpaceReader reader(root_);
  for (const char* path : {"/lib/pipe", "/lib/link"}) {
    write(process() / "maps", line_for(path));
    const auto space = read(reader);  // opening the pipe would wait for a writer
    ASSERT_EQ(space.files.size(), 1U);
    EXPECT_FALSE(space.files[0].file) << path;
  }
}

TEST_F(FakeProc, HeldFilesAreOnlyIdentified) {
  write(process() / "root/lib/x.so", "content");
  write(process() / "maps", line_for("/lib/x.so"));
  AddressSpaceReader reader(root_);
  const auto identity = read(reader).files.at(0).identity;
  reader.hold(identity);
  const auto again = read(reader);
  EXPECT_EQ(again.files.at(0).identity, identity);
  EXPECT_FALSE(again.files.at(0).file);
  reader.let_go(identity);
  EXPECT_TRUE(read(reader).files.at(0).file);
}

TEST_F(FakeProc, ReopeningGivesTheSameFileOrNone) {
  write(process() / "root/lib/x.so", "content");
  write(process() / "maps", line_for("/lib/x.so"));
  AddressSpaceReader reader(root_);
  const auto identity = read(reader).files.at(0).identity;
  const AddressSpaceReader::Source source{key(), 7, 0x1000, 0x2000, "/lib/x.so"};
  ASSERT_TRUE(reader.reopen(source, identity));
  EXPECT_TRUE(std::get<AddressSpaceReader::Reopened>(*wait(reader)).file);
  write(process() / "root/lib/x.so", "overwritten in place");
  ASSERT_TRUE(reader.reopen(source, identity));
  EXPECT_FALSE(std::get<AddressSpaceReader::Reopened>(*wait(reader)).file);
}

TEST_F(FakeProc, JobsAndOpenedFilesAreBounded) {
  std::string maps;
  for (int i = 0; i < 300; ++i) {
    const std::string path = "/lib/" + std::to_string(i);
    write(process() / ("root" + path), "content");
    std::string line = line_for(path);
    line.replace(0, 9, std::to_string(100'000 + 10 * i) + "-" + std::to_string(100'009 + 10 * i));
    maps += line;
  }
  write(process() / "maps", maps);
  AddressSpaceReader reader(root_);
  const auto space = read(reader);
  EXPECT_EQ(space.files.size(), 300U);
  size_t opened = 0;
  for (const auto& file : space.files) {
    EXPECT_TRUE(file.identified);
    opened += file.file ? 1 : 0;
  }
  EXPECT_EQ(opened, kMaxOpenedFiles);

  // Nothing is taken from here on, so the thread stops opening and the jobs pile up.
  size_t accepted = 0;
  while (accepted < 2 * kMaxReaderJobs && reader.read(key(), 7, ExecId{1})) ++accepted;
  EXPECT_GE(accepted, kMaxReaderJobs);
  EXPECT_LT(accepted, 2 * kMaxReaderJobs);
}

TEST(AddressSpaceReaderLive, DeletedObjectsAreReachedThroughTheMapping) {
  if (::access("/proc/self/map_files", R_OK | X_OK) != 0) GTEST_SKIP() << "map_files cannot be looked at";
  const fs::path copy = fs::temp_directory_path() / ("stackwatch-deleted-" + std::to_string(::getpid()));
  fs::copy_file(TARGET_PIE, copy, fs::copy_options::overwrite_existing);
  const TargetProcess target(copy);
  fs::remove(copy);
  AddressSpaceReader reader("/proc");
  ASSERT_TRUE(reader.read(key_of(target.pid()), target.pid(), ExecId{1}));
  pollfd ready{reader.fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, 10'000), 1);
  auto answers = reader.take();
  auto& space = std::get<AddressSpaceReader::Space>(answers.at(0));
  ASSERT_TRUE(space.alive);
  ASSERT_FALSE(space.files.empty());
  EXPECT_NE(space.files[0].path.find(" (deleted)"), std::string::npos);
  if (!space.files[0].identified) GTEST_SKIP() << "map_files needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN";
  EXPECT_TRUE(space.files[0].file);
}

}  // namespace
}  // namespace stackwatch
