// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/frame_program.h"

#include <dwarf.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "symbols/worker/unwind_builder.h"

namespace stackwatch {
namespace {

using Bytes = std::vector<uint8_t>;

struct Ran {
  bool done = false;
  std::vector<FrameRow> rows;
};

// An entry of 256 bytes of code at 0x1000 whose CIE says what compilers write: CFA = rsp + 8, return address at CFA
// - 8.
Ran run(const Bytes& instructions, uint64_t work = 1000) {
  static const Bytes kInitial = {DW_CFA_def_cfa, 7, 8, DW_CFA_offset | 16, 1};
  FrameEntry entry;
  entry.start = 0x1000;
  entry.end = 0x1100;
  entry.data_alignment = -8;
  entry.initial = kInitial;
  entry.instructions = instructions;
  Ran ran;
  ran.done = run_frame_program(entry, work, ran.rows);
  return ran;
}

TEST(FrameProgram, BrokenInstructionsGiveNoRows) {
  for (const Bytes& bytes : {Bytes{DW_CFA_def_cfa, 7}, Bytes{0x3f}, Bytes{DW_CFA_restore_state},
                             Bytes{DW_CFA_def_cfa_expression, 0x7f}, Bytes{DW_CFA_offset_extended, 0x80}}) {
    const Ran ran = run(bytes);
    EXPECT_FALSE(ran.done) << "first byte " << int{bytes[0]};
    EXPECT_TRUE(ran.rows.empty());
  }
}

TEST(FrameProgram, WorkIsBounded) {
  EXPECT_FALSE(run(Bytes(100, DW_CFA_nop), 50).done);
  EXPECT_FALSE(run(Bytes(100, DW_CFA_remember_state)).done) << "nests without end";
}

TEST(FrameProgram, APushAndAFramePointer) {
  const Ran ran = run({DW_CFA_advance_loc | 1, DW_CFA_def_cfa_offset, 16, DW_CFA_offset | 6, 2, DW_CFA_advance_loc | 3,
                       DW_CFA_def_cfa_register, 6});
  ASSERT_TRUE(ran.done);
  ASSERT_EQ(ran.rows.size(), 3U);
  EXPECT_EQ(ran.rows[0].address, 0x1000U);
  EXPECT_EQ(ran.rows[0].rule, (UnwindRule{UnwindKind::kStack, FrameKind::kSame, 0, 1}));
  EXPECT_EQ(ran.rows[1].address, 0x1001U);
  EXPECT_EQ(ran.rows[1].rule, (UnwindRule{UnwindKind::kStack, FrameKind::kSaved, 2, 2}));
  EXPECT_EQ(ran.rows[2].address, 0x1004U);
  EXPECT_EQ(ran.rows[2].rule, (UnwindRule{UnwindKind::kFrame, FrameKind::kSaved, 2, 2}));
}

TEST(FrameProgram, AnUndefinedReturnAddressIsTheEnd) {
  const Ran ran = run({DW_CFA_undefined, 16});
  ASSERT_EQ(ran.rows.size(), 1U);
  EXPECT_EQ(ran.rows[0].rule.kind, UnwindKind::kEnd);
}

TEST(FrameProgram, ThePltExpression) {
  const Ran ran = run({DW_CFA_def_cfa_expression, 11, DW_OP_breg7, 8, DW_OP_breg16, 0, DW_OP_lit15, DW_OP_and,
                       DW_OP_lit10, DW_OP_ge, DW_OP_lit3, DW_OP_shl, DW_OP_plus});
  ASSERT_EQ(ran.rows.size(), 1U);
  EXPECT_EQ(ran.rows[0].rule, (UnwindRule{UnwindKind::kPlt, FrameKind::kSame, 0, 10}));
}

// As OpenSSL's assembler keeps the stack pointer that it had, below 8 bytes of return address.
TEST(FrameProgram, AWordBehindWhatTheStackSays) {
  const Ran ran = run({DW_CFA_def_cfa_expression, 5, DW_OP_breg7, 40, DW_OP_deref, DW_OP_plus_uconst, 8});
  ASSERT_EQ(ran.rows.size(), 1U);
  EXPECT_EQ(ran.rows[0].rule, (UnwindRule{UnwindKind::kStackDerefNext, FrameKind::kSame, 0, 5}));
  for (const Bytes& other : {Bytes{DW_CFA_def_cfa_expression, 5, DW_OP_breg7, 40, DW_OP_deref, DW_OP_plus_uconst, 16},
                             Bytes{DW_CFA_def_cfa_expression, 5, DW_OP_breg6, 40, DW_OP_deref, DW_OP_plus_uconst, 8},
                             Bytes{DW_CFA_def_cfa_expression, 4, DW_OP_breg7, 40, DW_OP_deref, DW_OP_lit0}}) {
    EXPECT_EQ(run(other).rows.at(0).rule.kind, UnwindKind::kUnknown);
  }
}

TEST(FrameProgram, WhatCannotBeExpressedIsUnknownAndNotGuessed) {
  EXPECT_EQ(run({DW_CFA_def_cfa_register, 3}).rows[0].rule.kind, UnwindKind::kUnknown) << "rbx";
  EXPECT_EQ(run({DW_CFA_def_cfa_offset, 0x80, 0x80, 0x80, 0x08}).rows[0].rule.kind, UnwindKind::kUnknown) << "16 MB";
  EXPECT_EQ(run({DW_CFA_offset | 16, 2}).rows[0].rule.kind, UnwindKind::kUnknown) << "return address elsewhere";
}

TEST(UnwindRule, PackingKeepsEverything) {
  const UnwindRule rule{UnwindKind::kFrameDeref, FrameKind::kSaved, 1023, -32768};
  EXPECT_EQ(UnwindRule::unpack(rule.packed()), rule);
}

TEST(UnwindBuilder, TheTableOfARealProgramAscendsAndCoversItsMain) {
  auto object = ElfObject::open(UniqueFd(::open(TARGET_PIE, O_RDONLY | O_CLOEXEC)));
  ASSERT_TRUE(object) << object.error().message();
  const auto table = build_unwind_table(**object);
  ASSERT_TRUE(table) << table.error().message();
  ASSERT_GT(table->rows.size(), 10U);
  EXPECT_TRUE(std::ranges::is_sorted(table->rows, {}, &UnwindRow::address));
  const auto ends = std::ranges::count_if(
      table->rows, [](const UnwindRow& row) { return UnwindRule::unpack(row.rule).kind == UnwindKind::kEnd; });
  EXPECT_GE(ends, 1) << "_start ends a stack";
}

}  // namespace
}  // namespace stackwatch
