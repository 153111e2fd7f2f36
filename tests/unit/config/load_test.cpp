// SPDX-License-Identifier: Apache-2.0
#include "config/load.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace stackwatch {
namespace {

namespace fs = std::filesystem;

class Load : public testing::Test {
 protected:
  Load() {
    std::string pattern = testing::TempDir() + "stackwatch-config-XXXXXX";
    root_ = mkdtemp(pattern.data());
    files_ = ConfigFiles::of(root_ / "c.toml");
    fs::create_directory(files_.dropin_dir);
  }
  ~Load() override { fs::remove_all(root_); }

  void write_main(const std::string& text) { write(files_.main, text); }
  void write_dropin(const std::string& name, const std::string& text) {
    write(fs::path(files_.dropin_dir) / name, text);
  }
  static void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }

  Error error() {
    const Result<Config> config = load_config(files_);
    EXPECT_FALSE(config);
    if (config) return {};
    EXPECT_EQ(config.error().exit_code(), 2);
    return config.error();
  }
  Config loaded() {
    Result<Config> config = load_config(files_);
    EXPECT_TRUE(config) << (config ? "" : config.error().message());
    return config ? *config : Config{};
  }

  fs::path root_;
  ConfigFiles files_;
};

TEST_F(Load, AMissingFileThatWasNamedIsAnError) {
  EXPECT_EQ(error().message(), files_.main + ": No such file or directory");
}

TEST_F(Load, AMissingDefaultFileIsTheDefaultsAndAWarning) {
  files_.main_required = false;
  write_dropin("a.toml", "tick = \"2s\"");
  const Config config = loaded();
  EXPECT_EQ(config.tick_s, 2);
  ASSERT_EQ(config.warnings.size(), 1U);
  EXPECT_NE(config.warnings[0].find("no such file"), std::string::npos);
}

TEST_F(Load, ADanglingLinkIsNoMissingFile) {
  files_.main_required = true;
  fs::create_symlink("nowhere", files_.main);
  EXPECT_EQ(error().what, files_.main);
  fs::create_symlink("nowhere", fs::path(files_.dropin_dir) / "x.toml");
  fs::remove(files_.main);
  write_main("");
  EXPECT_EQ(error().what, files_.dropin_dir + "/x.toml");
}

TEST_F(Load, WhatIsNoRegularFileIsRefused) {
  fs::create_directory(files_.main);
  EXPECT_EQ(error().message(), files_.main + ": Is a directory");
  fs::remove(files_.main);
  ASSERT_EQ(mkfifo(files_.main.c_str(), 0600), 0);
  EXPECT_EQ(error().message(), files_.main + ": it is no regular file");  // at once: nobody writes to it
  files_.main = "/dev/zero";
  EXPECT_EQ(error().message(), "/dev/zero: it is larger than 256 KiB");
  files_.main = files_.main + "/x";
  EXPECT_EQ(error().message(), "/dev/zero/x: Not a directory");
}

// Root may read everything, so that it has to be somebody else for a moment.
class AsNobody {
 public:
  AsNobody() : before_(geteuid()) {
    if (before_ == 0) {
      EXPECT_EQ(seteuid(65534), 0);
    }
  }
  ~AsNobody() {
    if (before_ == 0) {
      EXPECT_EQ(seteuid(before_), 0);
    }
  }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;

 private:
  uid_t before_;
};

TEST_F(Load, AnUnreadableFileIsRefused) {
  write_main("");
  ASSERT_EQ(chmod(root_.c_str(), 0755), 0);
  ASSERT_EQ(chmod(files_.main.c_str(), 0), 0);
  const AsNobody nobody;
  EXPECT_EQ(error().message(), files_.main + ": Permission denied (it must be readable to the daemon)");
}

TEST_F(Load, UnreadableDropInsAreRefused) {
  write_main("");
  ASSERT_EQ(chmod(root_.c_str(), 0755), 0);
  ASSERT_EQ(chmod(files_.main.c_str(), 0644), 0);
  ASSERT_EQ(chmod(files_.dropin_dir.c_str(), 0), 0);
  const AsNobody nobody;
  EXPECT_EQ(error().message(), files_.dropin_dir + ": Permission denied (it must be readable to the daemon)");
}

TEST_F(Load, AHugeFileIsRefusedWithoutReadingIt) {
  write_main("");
  fs::resize_file(files_.main, 100'000'000);
  EXPECT_EQ(error().message(), files_.main + ": it is larger than 256 KiB");
}

TEST_F(Load, DropInsThatCannotBeListedAreAnError) {
  write_main("");
  fs::remove(files_.dropin_dir);
  EXPECT_EQ(loaded(), Config{});  // none is fine
  write(files_.dropin_dir, "");
  EXPECT_EQ(error().message(), files_.dropin_dir + ": Not a directory");
}

TEST_F(Load, TooManyDropInsAreAnError) {
  write_main("");
  for (size_t i = 0; i <= kMaxDropins; ++i) write_dropin(std::to_string(i) + ".toml", "");
  EXPECT_NE(error().why.find("more than 256 files"), std::string::npos);
}

TEST_F(Load, ErrorsNameTheFileTheyAreIn) {
  write_main("tick = \"1s\"\n");
  write_dropin("50-b.toml", "\nx = 1\n");
  write_dropin("40-a.toml", "\n\n y = 1\n");
  EXPECT_EQ(error().what, files_.dropin_dir + "/40-a.toml:3:2");
  EXPECT_TRUE(error().hint.ends_with("1 more problem")) << error().hint;
}

TEST_F(Load, LaterFilesOverrideAndAppend) {
  write_main("tick = \"1s\"\n[alerts]\ncooldown = \"1m\"\npersistence = \"7s\"\n[[watch]]\nname = \"main\"\n");
  write_dropin("b.toml", "tick = \"3s\"\n[[watch]]\nname = \"b\"\n");
  write_dropin("a.toml", "tick = \"2s\"\n[alerts]\ncooldown = \"2m\"\n[[watch]]\nname = \"a\"\n");
  write_dropin("Z.toml", "[[watch]]\nname = \"Z\"\n");
  write_dropin(".hidden.toml", "nonsense");
  write_dropin("backup.toml~", "nonsense");
  write_dropin("README", "nonsense");
  fs::create_symlink("/dev/null", fs::path(files_.dropin_dir) / "masked.toml");
  const Config config = loaded();
  EXPECT_EQ(config.tick_s, 3);
  EXPECT_EQ(config.alerts.cooldown_s, 120);
  EXPECT_EQ(config.alerts.persistence_s, 7);
  ASSERT_EQ(config.watch.size(), 4U);
  EXPECT_EQ(config.watch[0].name, "main");
  EXPECT_EQ(config.watch[1].name, "Z");
  EXPECT_EQ(config.watch[2].name, "a");
  EXPECT_EQ(config.watch[3].name, "b");
  EXPECT_EQ(config.watch[3].source, files_.dropin_dir + "/b.toml:2");
  EXPECT_TRUE(config.warnings.empty());
}

TEST_F(Load, AnIdMayNotComeTwiceInDifferentFiles) {
  write_main("[[watch]]\nname = \"x\"\nid = \"r\"\n");
  write_dropin("a.toml", "[[watch]]\nname = \"y\"\nid = \"r\"\n");
  EXPECT_EQ(error().message(),
            files_.dropin_dir + "/a.toml:3:6: id: \"r\" is the id of the rule at " + files_.main + ":1 too");
}

}  // namespace
}  // namespace stackwatch
