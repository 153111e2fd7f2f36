// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/code_walk.h"

#include <capstone/capstone.h>

#include <algorithm>
#include <array>
#include <set>

#include "symbols/worker/file_reader.h"

namespace stackwatch {
namespace {

/// Code read at a time.
constexpr size_t kCodeBytes = 256;
/// How far a straight piece of code may reach where no call-frame information says where its function ends.
constexpr uint64_t kMaxStraightBytes = 4096;

bool has_group(const cs_insn& insn, uint8_t group) {
  const auto& groups = insn.detail->groups;
  return std::find(groups, groups + insn.detail->groups_count, group) != groups + insn.detail->groups_count;
}

bool is_stop(const cs_insn& insn) {
  return insn.id == X86_INS_UD2 || insn.id == X86_INS_HLT || insn.id == X86_INS_INT3;
}

// What arch/x86/kernel/uprobes.c emulates in all kernels since 4.15: relative jumps and calls, pushes, nop. Anything
// else is stepped through: another trap, and in some virtual machines ten times the price of the probe itself
// (measured).
bool is_emulated(const cs_insn& insn) {
  const auto& code = insn.bytes;
  const auto is_push = [](uint8_t byte) { return byte >= 0x50 && byte <= 0x57; };
  return is_push(code[0]) || (code[0] == 0x41 && is_push(code[1])) || code[0] == 0x90 || code[0] == 0xeb ||
         code[0] == 0xe9 || code[0] == 0xe8 || (code[0] >= 0x70 && code[0] <= 0x7f) ||
         (code[0] == 0x0f && code[1] >= 0x80 && code[1] <= 0x8f);
}

/// The instruction goes on to the next one, and changes neither the stack pointer nor one of the first three arguments.
bool leaves_arguments(csh handle, const cs_insn& insn) {
  if (has_group(insn, X86_GRP_JUMP) || has_group(insn, X86_GRP_CALL) || has_group(insn, X86_GRP_RET) ||
      has_group(insn, X86_GRP_INT) || is_stop(insn)) {
    return false;
  }
  cs_regs read;
  cs_regs written;
  uint8_t reads = 0;
  uint8_t writes = 0;
  if (::cs_regs_access(handle, &insn, read, &reads, written, &writes) != CS_ERR_OK) return false;
  static constexpr std::array kKept = {X86_REG_RDI, X86_REG_EDI, X86_REG_DI,  X86_REG_DIL, X86_REG_RSI, X86_REG_ESI,
                                       X86_REG_SI,  X86_REG_SIL, X86_REG_RDX, X86_REG_EDX, X86_REG_DX,  X86_REG_DL,
                                       X86_REG_DH,  X86_REG_RSP, X86_REG_ESP, X86_REG_SP,  X86_REG_SPL};
  return std::none_of(written, written + writes,
                      [](uint16_t reg) { return std::find(kKept.begin(), kKept.end(), reg) != kKept.end(); });
}

}  // namespace

struct CodeWalker::Decoder {
  Decoder() {
    if (::cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK) handle = 0;
    if (handle == 0) return;
    ::cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
    insn = ::cs_malloc(handle);
  }
  ~Decoder() {
    if (insn != nullptr) ::cs_free(insn, 1);
    if (handle != 0) ::cs_close(&handle);
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  csh handle = 0;
  cs_insn* insn = nullptr;
};

/// The instructions from an address on, one after the other.
struct CodeWalker::Block {
  Block(CodeWalker& walker, uint64_t start) : owner(walker), address(start) {
    const auto range = owner.object_.range_of(start);
    end = range ? range->end : start + kMaxStraightBytes;
  }

  /// The next one; nullptr where the function, the file or understanding ends.
  const cs_insn* next() {
    static constexpr size_t kLongestInstruction = 15;
    if (address >= end) return nullptr;
    if (left < kLongestInstruction) fill();
    if (!::cs_disasm_iter(owner.decoder_->handle, &code, &left, &address, owner.decoder_->insn)) return nullptr;
    return owner.decoder_->insn;
  }

  void fill() {
    left = 0;
    for (const LoadedSegment& segment : owner.object_.segments()) {
      if (!segment.executable || address < segment.vaddr || address - segment.vaddr >= segment.bytes) continue;
      const uint64_t at = address - segment.vaddr;
      left = read_at(owner.object_.file(), segment.offset + at, bytes.data(),
                     static_cast<size_t>(std::min<uint64_t>(bytes.size(), segment.bytes - at)));
      break;
    }
    code = bytes.data();
  }

  /// Where a call or jump leads to, as far as it can be told.
  [[nodiscard]] std::optional<CodeTarget> target(const cs_insn& insn) const {
    const cs_x86& x86 = insn.detail->x86;
    if (x86.op_count != 1) return std::nullopt;
    const cs_x86_op& operand = x86.operands[0];
    if (operand.type == X86_OP_IMM) return owner.through_stub(static_cast<uint64_t>(operand.imm));
    if (operand.type != X86_OP_MEM || operand.mem.base != X86_REG_RIP) return std::nullopt;
    const uint64_t slot = insn.address + insn.size + static_cast<uint64_t>(operand.mem.disp);
    const auto import = owner.imports_.find(slot);
    if (import == owner.imports_.end()) return std::nullopt;
    return import->second;
  }

  CodeWalker& owner;
  uint64_t address;
  uint64_t end = 0;
  std::array<uint8_t, kCodeBytes> bytes{};
  const uint8_t* code = nullptr;
  size_t left = 0;
};

CodeWalker::CodeWalker(ElfObject& object, const std::map<uint64_t, CodeTarget>& imports, bool is_x86_64)
    : object_(object), imports_(imports) {
  if (is_x86_64) decoder_ = std::make_unique<Decoder>();
}

CodeWalker::~CodeWalker() = default;

bool CodeWalker::is_supported() const { return decoder_ && decoder_->insn != nullptr; }

// A stub is an optional endbr64 and a jump through a slot of the dynamic linker.
CodeTarget CodeWalker::through_stub(uint64_t address) {
  // The decoder holds one instruction: keep the one that is being looked at.
  Decoder own;
  if (own.insn == nullptr) return {address, {}};
  std::array<uint8_t, 32> bytes{};
  size_t left = 0;
  for (const LoadedSegment& segment : object_.segments()) {
    if (!segment.executable || address < segment.vaddr || address - segment.vaddr >= segment.bytes) continue;
    left = read_at(object_.file(), segment.offset + (address - segment.vaddr), bytes.data(), bytes.size());
  }
  const uint8_t* code = bytes.data();
  uint64_t at = address;
  for (int i = 0; i < 2 && ::cs_disasm_iter(own.handle, &code, &left, &at, own.insn); ++i) {
    const cs_x86& x86 = own.insn->detail->x86;
    if (own.insn->id == X86_INS_JMP && x86.operands[0].type == X86_OP_MEM && x86.operands[0].mem.base == X86_REG_RIP) {
      const auto import = imports_.find(at + static_cast<uint64_t>(x86.operands[0].mem.disp));
      if (import != imports_.end()) return import->second;
    }
    if (own.insn->id != X86_INS_ENDBR64) break;
  }
  return {address, {}};
}

std::optional<CodeTarget> CodeWalker::first_transfer(uint64_t address) {
  Block block(*this, address);
  for (size_t i = 0; i < kMaxWalkedInstructions; ++i) {
    const cs_insn* const insn = block.next();
    if (insn == nullptr || has_group(*insn, X86_GRP_RET) || is_stop(*insn)) return std::nullopt;
    if (insn->id == X86_INS_JMP || has_group(*insn, X86_GRP_CALL)) return block.target(*insn);
  }
  return std::nullopt;
}

CodeWalker::Ends CodeWalker::ends(uint64_t address) {
  Ends ends;
  std::set<uint64_t> seen;
  std::vector<uint64_t> open = {address};
  size_t budget = kMaxWalkedInstructions;
  while (!open.empty()) {
    const uint64_t start = open.back();
    open.pop_back();
    if (!seen.insert(start).second) continue;
    if (!walk_block(start, ends, open, budget)) ends.complete = false;
  }
  std::sort(ends.returns.begin(), ends.returns.end());
  ends.returns.erase(std::unique(ends.returns.begin(), ends.returns.end()), ends.returns.end());
  if (ends.returns.size() > kMaxWalkedReturns) {
    ends.returns.resize(kMaxWalkedReturns);
    ends.complete = false;
  }
  return ends;
}

// What follows a call that never returns belongs to nobody, or to the next function, where the block ends.
bool CodeWalker::walk_block(uint64_t address, Ends& ends, std::vector<uint64_t>& open, size_t& budget) {
  Block block(*this, address);
  while (const cs_insn* const insn = block.next()) {
    if (budget-- == 0) {
      budget = 0;
      open.clear();
      return false;
    }
    if (has_group(*insn, X86_GRP_RET)) {
      ends.returns.push_back(insn->address);
      return true;
    }
    if (is_stop(*insn)) return true;
    if (!has_group(*insn, X86_GRP_JUMP)) continue;
    const bool always = insn->id == X86_INS_JMP;
    const uint64_t next = block.address;
    follow(block.target(*insn), ends, open);
    if (always) return true;
    open.push_back(next);
    return true;
  }
  return block.address >= block.end;
}

void CodeWalker::follow(const std::optional<CodeTarget>& target, Ends& ends, std::vector<uint64_t>& open) {
  if (target && target->import.empty()) {
    open.push_back(target->address);
    ends.targets.push_back(target->address);
  } else {
    ends.complete = false;
  }
}

CodeWalker::Entry CodeWalker::entry(uint64_t address) {
  uint64_t found = address;
  Block block(*this, address);
  for (size_t i = 0; i < kMaxEntryInstructions; ++i) {
    const cs_insn* const insn = block.next();
    if (insn == nullptr) break;
    if (is_emulated(*insn)) {
      found = insn->address;
      if (found == address) return {address, false};
      break;
    }
    if (!leaves_arguments(decoder_->handle, *insn)) break;
  }
  if (found == address) return {address, true};
  const Ends all = ends(address);
  const bool jumped_to = std::any_of(all.targets.begin(), all.targets.end(),
                                     [&](uint64_t target) { return target > address && target <= found; });
  return jumped_to ? Entry{address, true} : Entry{found, false};
}

}  // namespace stackwatch
