// SPDX-License-Identifier: Apache-2.0
#include "symbols/maps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stackwatch {
namespace {

using ::testing::IsEmpty;

TEST(ParseMaps, GarbageIsLeftOut) {
  for (const char* line :
       {"", "\n", "garbage", "00400000", "00400000-", "00400000-0040b000", "00400000-0040b000 r-xp",
        "00400000-0040b000 r-xp 0 fe:01", "00400000-0040b000 r-xp zz fe:01 1 /bin/x", "-0040b000 r-xp 0 fe:01 1 /bin/x",
        "0040b000-00400000 r-xp 0 fe:01 1 /bin/x", "00400000-00400000 r-xp 0 fe:01 1 /bin/x",
        "10000000000000000-10000000000001000 r-xp 0 fe:01 1 /bin/x", "1000-2000 r-xp ffffffffffffffff fe:01 1 /bin/x",
        "1000-2000 r-xp 0 fe:01 1/bin/x", "1000-2000 r-xp 0 fe:01 99999999999999999999 /bin/x",
        "00400000-0040b000 rw-p 0 fe:01 1 /bin/x"}) {
    EXPECT_THAT(parse_maps(line), IsEmpty()) << line;
  }
  const std::string good = "00001000-00002000 r-xp 00000000 fe:01 1 /bin/x\n";
  EXPECT_EQ(parse_maps("garbage\n" + good + std::string(100, '\0') + "\n" + good).size(), 1U)
      << "the second overlaps the first";
}

TEST(ParseMaps, ManyMappingsAreCut) {
  std::string text;
  for (size_t i = 1; i < kMaxMapsEntries + 100; ++i) {
    char line[64];
    std::snprintf(line, sizeof line, "%zx-%zx r-xp 0 00:00 0 \n", i * 0x1000, i * 0x1000 + 0x1000);
    text += line;
  }
  EXPECT_EQ(parse_maps(text).size(), kMaxMapsEntries);
}

TEST(ParseMaps, ReadsWhatTheKernelWrites) {
  const auto entries = parse_maps(
      "55d0c0a00000-55d0c0a02000 r--p 00000000 fe:01 131  /usr/bin/my prog\n"
      "55d0c0a02000-55d0c0b00000 r-xp 00002000 fe:1a 131                        /usr/bin/my prog (deleted)\n"
      "7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n"
      "7ffc1d5f0000-7ffc1d5f2000 r-xp 00000000 00:00 0                          [vdso]\n"
      "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]");
  ASSERT_EQ(entries.size(), 4U);
  EXPECT_EQ(entries[0].start, 0x55d0c0a02000U);
  EXPECT_EQ(entries[0].end, 0x55d0c0b00000U);
  EXPECT_EQ(entries[0].file_offset, 0x2000U);
  EXPECT_EQ(entries[0].device_major, 0xfeU);
  EXPECT_EQ(entries[0].device_minor, 0x1aU);
  EXPECT_EQ(entries[0].inode, 131U);
  EXPECT_EQ(entries[0].path, "/usr/bin/my prog (deleted)");
  EXPECT_FALSE(entries[0].writable);
  EXPECT_TRUE(entries[1].writable);
  EXPECT_EQ(entries[1].path, "");
  EXPECT_EQ(entries[2].path, "[vdso]");
  EXPECT_EQ(entries[3].path, "[vsyscall]");
}

TEST(ObjectBasename, WithoutDirectoriesAndTheDeletedMark) {
  EXPECT_EQ(object_basename("/usr/bin/redis-server"), "redis-server");
  EXPECT_EQ(object_basename("/usr/bin/redis-server (deleted)"), "redis-server");
  EXPECT_EQ(object_basename("plain"), "plain");
  EXPECT_EQ(object_basename(""), "");
}

}  // namespace
}  // namespace stackwatch
