// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/frame_program.h"

#include <dwarf.h>

#include <algorithm>
#include <limits>

#include "symbols/worker/unwind_builder.h"

namespace stackwatch {
namespace {

/// The x86-64 ABI's numbers of registers.
constexpr uint64_t kFramePointer = 6;
constexpr uint64_t kStackPointer = 7;
constexpr uint64_t kReturnAddress = 16;
constexpr int64_t kWord = 8;
/// GNU as remembers one state; more than this nobody nests.
constexpr size_t kMaxRemembered = 64;

enum class Saved : uint8_t { kSame, kOffset, kUndefined, kExpression, kOther };

struct SavedRegister {
  Saved how = Saved::kSame;
  int64_t offset = 0;  ///< kOffset: from the CFA
  std::span<const uint8_t> expression;
};

struct State {
  uint64_t cfa_register = kStackPointer;
  int64_t cfa_offset = 0;
  std::optional<std::span<const uint8_t>> cfa_expression;
  SavedRegister frame;
  SavedRegister ip;
};

/// `register + offset`, then perhaps a dereference, and then perhaps something more.
struct Address {
  uint64_t base = 0;
  int64_t offset = 0;
  bool deref = false;
  uint64_t then_plus = 0;  ///< where `deref`
};

std::optional<Address> parse_address(std::span<const uint8_t> expression) {
  DwarfReader reader(expression);
  const uint64_t first = reader.fixed(1);
  if (first < DW_OP_breg0 || first > DW_OP_breg31) return std::nullopt;
  Address address{first - DW_OP_breg0, reader.sleb(), false};
  if (reader.failed()) return std::nullopt;
  if (reader.done()) return address;
  const uint64_t then = reader.fixed(1);
  if (then == DW_OP_plus_uconst) {  // as lld and some compilers write offsets
    address.offset += static_cast<int64_t>(reader.uleb() & 0xffffffU);
    if (reader.done()) return reader.failed() ? std::nullopt : std::optional(address);
    if (reader.fixed(1) != DW_OP_deref) return std::nullopt;
  } else if (then != DW_OP_deref) {
    return std::nullopt;
  }
  address.deref = true;
  if (!reader.done()) {
    if (reader.fixed(1) != DW_OP_plus_uconst) return std::nullopt;
    address.then_plus = reader.uleb();
  }
  if (!reader.done() || reader.failed()) return std::nullopt;
  return address;
}

/// What linkers write for .plt: rsp + 8 + ((rip & 15) >= N) * 8.
std::optional<int16_t> parse_plt(std::span<const uint8_t> expression) {
  DwarfReader reader(expression);
  const bool head = reader.fixed(1) == DW_OP_breg7 && reader.sleb() == kWord && reader.fixed(1) == DW_OP_breg16 &&
                    reader.sleb() == 0 && reader.fixed(1) == DW_OP_lit15 && reader.fixed(1) == DW_OP_and;
  const uint64_t limit = reader.fixed(1);
  const bool tail = reader.fixed(1) == DW_OP_ge && reader.fixed(1) == DW_OP_lit3 && reader.fixed(1) == DW_OP_shl &&
                    reader.fixed(1) == DW_OP_plus;
  if (!head || !tail || reader.failed() || !reader.done() || limit < DW_OP_lit0 || limit > DW_OP_lit15) return {};
  return static_cast<int16_t>(limit - DW_OP_lit0);
}

bool set_words(int64_t bytes, UnwindRule& rule) {
  if (bytes % kWord != 0) return false;
  const int64_t words = bytes / kWord;
  if (words < std::numeric_limits<int16_t>::min() || words > std::numeric_limits<int16_t>::max()) return false;
  rule.cfa_words = static_cast<int16_t>(words);
  return true;
}

bool express_cfa(const State& state, UnwindRule& rule) {
  if (!state.cfa_expression) {
    if (state.cfa_register != kStackPointer && state.cfa_register != kFramePointer) return false;
    rule.kind = state.cfa_register == kStackPointer ? UnwindKind::kStack : UnwindKind::kFrame;
    return set_words(state.cfa_offset, rule);
  }
  if (const auto limit = parse_plt(*state.cfa_expression)) {
    rule.kind = UnwindKind::kPlt;
    rule.cfa_words = *limit;
    return true;
  }
  const auto address = parse_address(*state.cfa_expression);
  if (!address || (address->base != kStackPointer && address->base != kFramePointer)) return false;
  const bool stack = address->base == kStackPointer;
  if (address->then_plus != 0) {
    rule.kind = UnwindKind::kStackDerefNext;
    return stack && address->then_plus == kWord && set_words(address->offset, rule);
  }
  rule.kind = address->deref ? (stack ? UnwindKind::kStackDeref : UnwindKind::kFrameDeref)
                             : (stack ? UnwindKind::kStack : UnwindKind::kFrame);
  return set_words(address->offset, rule);
}

void express_frame(const State& state, UnwindRule& rule) {
  static constexpr int64_t kMostWords = 0x3ff;
  rule.frame = FrameKind::kLost;
  if (state.frame.how == Saved::kSame) rule.frame = FrameKind::kSame;
  if (state.frame.how == Saved::kExpression) {  // functions that align their stack
    const auto address = parse_address(state.frame.expression);
    if (address && address->base == kFramePointer && address->offset == 0 && !address->deref)
      rule.frame = FrameKind::kAt;
  }
  const int64_t words = -state.frame.offset / kWord;
  if (state.frame.how != Saved::kOffset || state.frame.offset % kWord != 0 || words <= 0 || words > kMostWords) return;
  rule.frame = FrameKind::kSaved;
  rule.frame_words = static_cast<uint16_t>(words);
}

/// Linux puts the registers of interrupted code (struct sigcontext) on the stack: r8 … r15, rdi, rsi, rbp, rbx, rdx,
/// rax, rcx, rsp, rip. C libraries describe their signal return so: the stack pointer and the return address at the
/// places of rsp and rip. The offset is that of r8.
bool express_signal(const State& state, UnwindRule& rule) {
  static constexpr int64_t kSp = 15 * kWord;
  static constexpr int64_t kIp = 16 * kWord;
  static constexpr int64_t kFp = 10 * kWord;
  if (!state.cfa_expression || state.ip.how != Saved::kExpression || state.frame.how != Saved::kExpression)
    return false;
  const auto sp = parse_address(*state.cfa_expression);
  const auto ip = parse_address(state.ip.expression);
  const auto fp = parse_address(state.frame.expression);
  if (!sp || !ip || !fp || !sp->deref || sp->then_plus != 0 || ip->deref || fp->deref) return false;
  if (sp->base != kStackPointer || ip->base != kStackPointer || fp->base != kStackPointer) return false;
  const int64_t base = sp->offset - kSp;
  if (ip->offset - kIp != base || fp->offset - kFp != base) return false;
  rule = {UnwindKind::kSignal, FrameKind::kSaved, 0, 0};
  return set_words(base, rule);
}

UnwindRule express(const State& state) {
  UnwindRule rule;
  if (state.ip.how == Saved::kUndefined) return {UnwindKind::kEnd, FrameKind::kSame, 0, 0};
  if (express_signal(state, rule)) return rule;
  const bool usual_ip = state.ip.how == Saved::kOffset && state.ip.offset == -kWord;
  if (!usual_ip || !express_cfa(state, rule)) return {UnwindKind::kUnknown, FrameKind::kLost, 0, 0};
  express_frame(state, rule);
  return rule;
}

/// Runs the instructions of one entry.
class Machine {
 public:
  Machine(const FrameEntry& entry, uint64_t& work, std::vector<FrameRow>& rows)
      : entry_(entry), work_(work), rows_(rows), at_(entry.start) {}

  bool run() {
    if (!run_all(entry_.initial)) return false;
    initial_ = state_;
    if (!run_all(entry_.instructions)) return false;
    emit();
    return true;
  }

 private:
  bool run_all(std::span<const uint8_t> instructions) {
    DwarfReader reader(instructions);
    for (size_t count = 0; !reader.done(); ++count) {
      if (count >= kMaxFrameInstructions || work_ == 0) return false;
      --work_;
      const auto code = static_cast<uint8_t>(reader.fixed(1));
      if (!step(code, reader) || reader.failed()) return false;
    }
    return !reader.failed();
  }

  void emit() {
    if (at_ >= entry_.end) return;
    const UnwindRule rule = express(state_);
    if (!rows_.empty() && rows_.back().address == at_ && emitted_) {
      rows_.back().rule = rule;
    } else if (!emitted_ || !(rows_.back().rule == rule)) {
      rows_.push_back({at_, rule});
    }
    emitted_ = true;
  }

  bool advance(uint64_t units) {
    emit();
    const uint64_t step = units * entry_.code_alignment;
    if (units != 0 && step / units != entry_.code_alignment) return false;
    at_ = step > entry_.end - std::min(at_, entry_.end) ? entry_.end : at_ + step;
    return true;
  }

  SavedRegister* saved(uint64_t number) {
    if (number == kFramePointer) return &state_.frame;
    return number == kReturnAddress ? &state_.ip : nullptr;
  }

  void set(uint64_t number, SavedRegister how) {
    if (SavedRegister* const place = saved(number)) *place = how;
  }

  void set_offset(uint64_t number, int64_t offset) { set(number, {Saved::kOffset, factored(offset), {}}); }

  void restore(uint64_t number) {
    if (number == kFramePointer) state_.frame = initial_.frame;
    if (number == kReturnAddress) state_.ip = initial_.ip;
  }

  void define_cfa(uint64_t number, int64_t offset) {
    state_.cfa_register = number;
    state_.cfa_offset = offset;
    state_.cfa_expression.reset();
  }

  int64_t factored(int64_t offset) const {
    return static_cast<int64_t>(static_cast<uint64_t>(offset) * static_cast<uint64_t>(entry_.data_alignment));
  }

  bool step(uint8_t code, DwarfReader& reader);
  bool step_register(uint8_t code, DwarfReader& reader);
  bool step_cfa(uint8_t code, DwarfReader& reader);

  const FrameEntry& entry_;
  uint64_t& work_;
  std::vector<FrameRow>& rows_;
  uint64_t at_;
  State state_;
  State initial_;
  std::vector<State> remembered_;
  bool emitted_ = false;
};

bool Machine::step(uint8_t code, DwarfReader& reader) {
  const uint8_t operand = code & 0x3fU;
  switch (code & 0xc0U) {
    case DW_CFA_advance_loc:
      return advance(operand);
    case DW_CFA_offset:
      set_offset(operand, static_cast<int64_t>(reader.uleb()));
      return true;
    case DW_CFA_restore:
      restore(operand);
      return true;
    default:
      break;
  }
  switch (code) {
    case DW_CFA_nop:
      return true;
    case DW_CFA_set_loc: {
      const uint64_t to = reader.fixed(entry_.address_bytes);
      if (to < at_) return false;
      emit();
      at_ = to;
      return true;
    }
    case DW_CFA_advance_loc1:
      return advance(reader.fixed(1));
    case DW_CFA_advance_loc2:
      return advance(reader.fixed(2));
    case DW_CFA_advance_loc4:
      return advance(reader.fixed(4));
    case DW_CFA_remember_state:
      if (remembered_.size() >= kMaxRemembered) return false;
      remembered_.push_back(state_);
      return true;
    case DW_CFA_restore_state:
      if (remembered_.empty()) return false;
      state_ = remembered_.back();
      remembered_.pop_back();
      return true;
    case DW_CFA_GNU_args_size:
      reader.uleb();
      return true;
    default:
      return step_cfa(code, reader) || step_register(code, reader);
  }
}

bool Machine::step_cfa(uint8_t code, DwarfReader& reader) {
  switch (code) {
    case DW_CFA_def_cfa: {
      const uint64_t number = reader.uleb();
      define_cfa(number, static_cast<int64_t>(reader.uleb()));
      return true;
    }
    case DW_CFA_def_cfa_sf: {
      const uint64_t number = reader.uleb();
      define_cfa(number, factored(reader.sleb()));
      return true;
    }
    case DW_CFA_def_cfa_register:
      define_cfa(reader.uleb(), state_.cfa_offset);
      return true;
    case DW_CFA_def_cfa_offset:
      define_cfa(state_.cfa_register, static_cast<int64_t>(reader.uleb()));
      return true;
    case DW_CFA_def_cfa_offset_sf:
      define_cfa(state_.cfa_register, factored(reader.sleb()));
      return true;
    case DW_CFA_def_cfa_expression:
      state_.cfa_expression = reader.block(reader.uleb());
      return true;
    default:
      return false;
  }
}

bool Machine::step_register(uint8_t code, DwarfReader& reader) {
  if (code < DW_CFA_offset_extended || (code > DW_CFA_val_expression && code != DW_CFA_GNU_negative_offset_extended)) {
    return false;
  }
  const uint64_t number = reader.uleb();
  switch (code) {
    case DW_CFA_offset_extended:
      set_offset(number, static_cast<int64_t>(reader.uleb()));
      return true;
    case DW_CFA_offset_extended_sf:
      set_offset(number, reader.sleb());
      return true;
    case DW_CFA_GNU_negative_offset_extended:
      set_offset(number, -static_cast<int64_t>(reader.uleb() & std::numeric_limits<int64_t>::max()));
      return true;
    case DW_CFA_restore_extended:
      restore(number);
      return true;
    case DW_CFA_undefined:
      set(number, {Saved::kUndefined, 0, {}});
      return true;
    case DW_CFA_same_value:
      set(number, {Saved::kSame, 0, {}});
      return true;
    case DW_CFA_register:
      reader.uleb();
      set(number, {Saved::kOther, 0, {}});
      return true;
    case DW_CFA_val_offset:
      reader.uleb();
      set(number, {Saved::kOther, 0, {}});
      return true;
    case DW_CFA_val_offset_sf:
      reader.sleb();
      set(number, {Saved::kOther, 0, {}});
      return true;
    case DW_CFA_expression:
      set(number, {Saved::kExpression, 0, reader.block(reader.uleb())});
      return true;
    case DW_CFA_val_expression:
      reader.block(reader.uleb());
      set(number, {Saved::kOther, 0, {}});
      return true;
    default:
      return false;
  }
}

}  // namespace

uint64_t DwarfReader::fixed(size_t bytes) {
  if (bytes_.size() < bytes || failed_) {
    failed_ = true;
    return 0;
  }
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value |= static_cast<uint64_t>(bytes_[i]) << (8 * i);
  bytes_ = bytes_.subspan(bytes);
  return value;
}

uint64_t DwarfReader::uleb() {
  uint64_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    const uint64_t byte = fixed(1);
    if (failed_) return 0;
    if (shift < 64) value |= (byte & 0x7fU) << shift;
    if ((byte & 0x80U) == 0) return value;
  }
}

int64_t DwarfReader::sleb() {
  uint64_t value = 0;
  for (unsigned shift = 0;;) {
    const uint64_t byte = fixed(1);
    if (failed_) return 0;
    if (shift < 64) value |= (byte & 0x7fU) << shift;
    shift += 7;
    if ((byte & 0x80U) != 0) continue;
    if (shift < 64 && (byte & 0x40U) != 0) value |= ~0ULL << shift;
    return static_cast<int64_t>(value);
  }
}

std::span<const uint8_t> DwarfReader::block(uint64_t bytes) {
  if (bytes > bytes_.size() || failed_) {
    failed_ = true;
    return {};
  }
  const auto taken = bytes_.first(bytes);
  bytes_ = bytes_.subspan(bytes);
  return taken;
}

bool run_frame_program(const FrameEntry& entry, uint64_t& work, std::vector<FrameRow>& rows) {
  const size_t before = rows.size();
  if (Machine(entry, work, rows).run()) return true;
  rows.resize(before);
  return false;
}

}  // namespace stackwatch
