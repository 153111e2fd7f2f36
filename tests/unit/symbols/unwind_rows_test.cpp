// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <link.h>

#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/symbols/frames_interp.h"

namespace stackwatch {
namespace {

using interp::Comparison;
using interp::Reader;

constexpr uint64_t kBase = 0x1000;
constexpr uint64_t kEnd = 0x2000;

Reader reader_of(const std::vector<std::string>& lines) {
  Reader reader;
  for (const std::string& line : lines) reader.take(line);
  return reader;
}

// A function of 0x40 bytes that pushes rbp.
Reader one_function() {
  return reader_of({"Contents of the .eh_frame section:", "",
                    "00000000 0000000000000014 00000000 CIE \"zR\" cf=1 df=-8 ra=16",
                    "   LOC           CFA      ra    ", "0000000000000000 rsp+8    c-8   ", "",
                    "00000018 0000000000000014 0000001c FDE cie=00000000 pc=0000000000001000..0000000000001040",
                    "   LOC           CFA      rbx   rbp   ra    ", "0000000000001000 rsp+8    u     u     c-8   ",
                    "0000000000001001 rsp+16   c-24  c-16  c-8   "});
}

UnwindRow row(uint32_t address, const UnwindRule& rule) { return {address, rule.packed()}; }

UnwindTable right_table() {
  UnwindTable table;
  table.rows = {row(0, {UnwindKind::kStack, FrameKind::kSame, 0, 1}),
                row(1, {UnwindKind::kStack, FrameKind::kSaved, 2, 2}), row(0x40, {})};
  return table;
}

// The comparison itself must see each kind of error, or the tests below prove nothing.
TEST(UnwindRows, TheComparisonSeesWhatIsWrong) {
  const Reader theirs = one_function();
  const Comparison right = interp::compare(theirs, right_table(), kBase, kEnd);
  EXPECT_EQ(right.rows, 2U);
  EXPECT_EQ(right.equal, 2U);
  EXPECT_EQ(right.different, 0U);
  const auto differs = [&](auto change) {
    UnwindTable table = right_table();
    change(table.rows);
    return interp::compare(theirs, table, kBase, kEnd).different;
  };
  EXPECT_GT(differs([](auto& rows) { rows[0] = row(0, {UnwindKind::kStack, FrameKind::kSame, 0, 2}); }), 0U) << "CFA";
  EXPECT_GT(differs([](auto& rows) { rows[0] = row(0, {UnwindKind::kFrame, FrameKind::kSame, 0, 1}); }), 0U) << "base";
  EXPECT_GT(differs([](auto& rows) { rows[1] = row(1, {UnwindKind::kStack, FrameKind::kSaved, 3, 2}); }), 0U) << "rbp";
  EXPECT_GT(differs([](auto& rows) { rows[1] = row(1, {UnwindKind::kStack, FrameKind::kSame, 0, 2}); }), 0U) << "kept";
  EXPECT_GT(differs([](auto& rows) { rows[1].address = 2; }), 0U) << "a byte late";
  EXPECT_GT(differs([](auto& rows) { rows[2].address = 0x3f; }), 0U) << "ends early";
  EXPECT_GT(differs([](auto& rows) { rows.pop_back(); }), 0U) << "never ends";
  EXPECT_GT(differs([](auto& rows) {
              rows.push_back(row(0x800, {UnwindKind::kEnd, FrameKind::kSame, 0, 0}));
            }),
            0U)
      << "a row where no code is known";
  EXPECT_GT(differs([](auto& rows) { rows[1].rule = UnwindRule{UnwindKind::kUnknown}.packed(); }), 0U)
      << "given up without need";
  EXPECT_GT(differs([](auto& rows) { rows.clear(); }), 0U) << "nothing";
}

TEST(UnwindRows, WhatTheFormatCannotExpressIsCountedAndMustBeSaid) {
  const Reader theirs =
      reader_of({"Contents of the .eh_frame section:",
                 "00000018 0000000000000014 0000001c FDE cie=00000000 pc=0000000000001000..0000000000001040",
                 "   LOC           CFA      rbp   ra    ", "0000000000001000 rsp+8    u     c-8   ",
                 "0000000000001008 r10+0    u     c-8   "});
  UnwindTable table = right_table();
  table.rows[1] = row(8, {UnwindKind::kUnknown, FrameKind::kLost, 0, 0});
  const Comparison compared = interp::compare(theirs, table, kBase, kEnd);
  EXPECT_EQ(compared.equal, 1U);
  EXPECT_EQ(compared.inexpressible, 1U);
  EXPECT_EQ(compared.different, 0U);
  table.rows[1] = row(8, {UnwindKind::kStack, FrameKind::kSame, 0, 1});
  EXPECT_EQ(interp::compare(theirs, table, kBase, kEnd).different, 1U) << "a guess";
}

int add_library(dl_phdr_info* info, size_t, void* data) {
  const std::string path = info->dlpi_name != nullptr ? info->dlpi_name : "";
  if (!path.empty() && std::filesystem::exists(path)) static_cast<std::set<std::string>*>(data)->insert(path);
  return 0;
}

/// What every Debian has, what this test is linked with, and programs of this build.
std::set<std::string> objects() {
  std::set<std::string> paths = {TARGET_PIE, TARGET_FIXED, DEBUG_DWARF5, DEBUG_SMALL, PLUGIN, WORKER};
  ::dl_iterate_phdr(add_library, &paths);  // libc, libstdc++, the dynamic loader, libelf, libdw, …
  for (const char* const path : {"/bin/bash", "/bin/ls", "/usr/bin/perl", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3"}) {
    if (std::filesystem::exists(path)) paths.insert(path);
  }
  return paths;
}

TEST(UnwindRows, AreThoseOfReadelfInWhateverIsHere) {
  if (!interp::have_readelf()) GTEST_SKIP() << "REQUIRES readelf (package binutils)";
  Comparison all;
  size_t compared_objects = 0;
  for (const std::string& path : objects()) {
    SCOPED_TRACE(path);
    const auto compared = interp::compare_file(path);
    ASSERT_TRUE(compared) << compared.error().message();
    EXPECT_EQ(compared->different, 0U) << testing::PrintToString(compared->examples);
    EXPECT_GT(compared->equal, 0U);
    all += *compared;
    ++compared_objects;
  }
  RecordProperty("rows", std::to_string(all.rows));
  RecordProperty("inexpressible", std::to_string(all.inexpressible));
  EXPECT_GE(compared_objects, 10U);
  EXPECT_GT(all.rows, 50'000U);
  // Were half of all rows given up, none would differ. CFAs by other registers are rare but for libcrypto's assembler
  // (1.1 %).
  EXPECT_LE(all.inexpressible, all.rows / 100);
  EXPECT_LE(all.frame_lost, all.rows / 1000);
  EXPECT_LE(all.outside + all.covered, all.rows / 100);
}

}  // namespace
}  // namespace stackwatch
