// SPDX-License-Identifier: Apache-2.0
// Separate debug files, as objcopy, dwz and xz make them.
#include "symbols/worker/named_object.h"

#include <fstream>
#include <map>

#include "debug_files.h"
#include "elf_builder.h"
#include "symbols/worker/debug_links.h"

namespace stackwatch {
namespace {

using protocol::FileKind;
using protocol::Wish;

class NamedObjectTest : public DebugFiles {
 protected:
  void SetUp() override {
    DebugFiles::SetUp();
    ASSERT_TRUE(run("cp " DEBUG_DWARF5 " whole && objcopy --only-keep-debug whole whole.debug && "
                    "objcopy --strip-all whole bare && "
                    "objcopy --strip-all --add-gnu-debuglink=whole.debug whole linked"));
  }
  std::unique_ptr<NamedObject> object(const std::string& name) {
    auto opened = NamedObject::open(open(name));
    return opened ? std::move(*opened) : nullptr;
  }
  static protocol::ObjectInfo info_of(const NamedObject& object) {
    protocol::ObjectInfo info;
    object.describe(info);
    return info;
  }
  /// All that is known about the code, as text, by offset.
  static std::map<uint64_t, std::string> all_of(NamedObject& object) {
    std::map<uint64_t, std::string> all;
    for (const LoadedSegment& segment : object.elf().segments()) {
      for (uint64_t at = segment.offset; segment.executable && at < segment.offset + segment.bytes; at += 11) {
        const protocol::Name name = object.find(at);
        std::string text = name.name + " " + name.file + ":" + std::to_string(name.line);
        for (const auto& call : name.inlined)
          text += "|" + call.name + " " + call.file + ":" + std::to_string(call.line);
        all[at] = text;
      }
    }
    return all;
  }
};

TEST_F(NamedObjectTest, WithoutAnyThereIsNoSource) {
  const auto bare = object("bare");
  ASSERT_TRUE(bare);
  EXPECT_FALSE(info_of(*bare).has_debug_info);
  for (const auto& [offset, text] : all_of(*bare)) ASSERT_TRUE(text.ends_with(" :0")) << text;
}

TEST_F(NamedObjectTest, DebugFileByBuildIdTellsTheSameAsTheWholeProgram) {
  const auto whole = object("whole");
  const auto bare = object("bare");
  const auto info = info_of(*bare);
  ASSERT_EQ(info.wish, Wish::kDebugFile);
  EXPECT_EQ(info.wish_id, bare->elf().build_id());
  ASSERT_TRUE(bare->use(FileKind::kDebugFile, open("whole.debug")));
  EXPECT_EQ(info_of(*bare).wish, Wish::kNothing);
  EXPECT_EQ(all_of(*bare), all_of(*whole));
}

TEST_F(NamedObjectTest, CompressedDebugFile) {
  ASSERT_TRUE(run("objcopy --compress-debug-sections whole.debug packed.debug"));
  const auto whole = object("whole");
  const auto bare = object("bare");
  ASSERT_TRUE(bare->use(FileKind::kDebugFile, open("packed.debug")));
  EXPECT_EQ(all_of(*bare), all_of(*whole));
}

TEST_F(NamedObjectTest, LinkedFileMustHaveTheChecksum) {
  const auto linked = object("linked");
  EXPECT_EQ(info_of(*linked).link, "whole.debug");
  ASSERT_TRUE(run("cp whole.debug changed.debug && printf X | dd of=changed.debug bs=1 seek=5000 conv=notrunc"));
  EXPECT_FALSE(linked->use(FileKind::kLinkedFile, open("changed.debug")));
  EXPECT_TRUE(linked->use(FileKind::kLinkedFile, open("whole.debug")));
  EXPECT_FALSE(linked->use(FileKind::kLinkedFile, open("whole.debug"))) << "there is one already";
}

TEST_F(NamedObjectTest, SomebodyElsesDebugFileIsRefused) {
  ASSERT_TRUE(run("objcopy --only-keep-debug " DEBUG_DWARF4 " other.debug && echo nothing > text"));
  const auto linked = object("linked");
  EXPECT_FALSE(linked->use(FileKind::kDebugFile, open("other.debug")));
  EXPECT_FALSE(linked->use(FileKind::kDebugFile, open("text")));
  EXPECT_FALSE(linked->use(FileKind::kDebugFile, UniqueFd()));
  EXPECT_FALSE(linked->use(FileKind::kSupplementary, open("whole.debug"))) << "nobody asked for one";
}

TEST_F(NamedObjectTest, LinksThatLeadInACircleAreNotFollowed) {
  ASSERT_TRUE(
      run("objcopy --strip-debug whole.debug circle.debug; "
          "objcopy --strip-all --add-gnu-debuglink=circle.debug whole circle && "
          "cp circle.debug once && objcopy --add-gnu-debuglink=once once circle.debug; "
          "objcopy --strip-all --add-gnu-debuglink=circle.debug whole circle"));
  const auto circle = object("circle");
  ASSERT_TRUE(circle->use(FileKind::kLinkedFile, open("circle.debug")));
  EXPECT_EQ(info_of(*circle).wish, Wish::kNothing);  // though that file has a link again
  EXPECT_FALSE(all_of(*circle).empty());
}

TEST_F(NamedObjectTest, SupplementaryFileOfDwz) {
  if (!has("dwz")) GTEST_SKIP() << "REQUIRES dwz";
  const auto whole = object("whole");
  // Moved away: libdw would find it by itself, in the worker it cannot.
  ASSERT_TRUE(run("cp " DEBUG_DWARF5 " a && cp " DEBUG_DWARF5 " b && dwz -m common.debug -M common.debug a b && "
                  "mv common.debug elsewhere"));
  const auto shared = object("a");
  const auto info = info_of(*shared);
  ASSERT_EQ(info.wish, Wish::kSupplementary);
  EXPECT_EQ(info.link, "common.debug");
  const auto without = all_of(*shared);
  EXPECT_FALSE(shared->use(FileKind::kSupplementary, open("whole")));
  ASSERT_TRUE(shared->use(FileKind::kSupplementary, open("elsewhere")));
  EXPECT_EQ(all_of(*shared), all_of(*whole));
  EXPECT_NE(without, all_of(*whole));
}

TEST_F(NamedObjectTest, MiniDebugInfoNamesWhatWasStripped) {
  if (!has("xz")) GTEST_SKIP() << "REQUIRES xz";
  ASSERT_TRUE(
      run("objcopy --strip-debug whole.debug mini && xz mini && "
          "objcopy --strip-all --add-section .gnu_debugdata=mini.xz whole packed"));
  ASSERT_TRUE(run("objcopy --strip-debug whole symbols"));
  const auto symbols = object("symbols");
  const auto packed = object("packed");
  const auto all = all_of(*packed);
  EXPECT_EQ(all, all_of(*symbols));
  EXPECT_NE(all, all_of(*object("bare")));
  packed->unload();
  EXPECT_EQ(all_of(*packed), all);
}

TEST_F(NamedObjectTest, BrokenMiniDebugInfoCostsOnlyItself) {
  if (!has("xz")) GTEST_SKIP() << "REQUIRES xz";
  ASSERT_TRUE(
      run("head -c 30000 /dev/urandom > noise && objcopy --add-section .gnu_debugdata=noise bare noisy && "
          "objcopy --strip-debug whole.debug mini && xz mini && head -c 1000 mini.xz > cut && "
          "objcopy --add-section .gnu_debugdata=cut bare short && "
          "head -c 100M /dev/zero | xz -1 > bomb && objcopy --add-section .gnu_debugdata=bomb bare bombed"));
  const auto expected = all_of(*object("bare"));
  EXPECT_EQ(all_of(*object("noisy")), expected);
  EXPECT_EQ(all_of(*object("short")), expected);
  EXPECT_EQ(all_of(*object("bombed")), expected);  // 100 MB of nothing
}

TEST_F(NamedObjectTest, LinksThatMakeNoSense) {
  ASSERT_TRUE(
      run("printf '' > empty && objcopy --add-section .gnu_debuglink=empty bare a && "
          "head -c 9000 /dev/zero | tr '\\0' x > long && objcopy --add-section .gnu_debuglink=long bare b && "
          "printf 'name' > open && objcopy --add-section .gnu_debuglink=open bare c && "
          "printf 'name\\0' > short && objcopy --add-section .gnu_debuglink=short bare d"));
  for (const char* name : {"a", "b", "c", "d"}) {
    EXPECT_FALSE(read_debug_link(open(name).get())) << name;
    EXPECT_TRUE(object(name)) << name;
  }
}

}  // namespace
}  // namespace stackwatch
