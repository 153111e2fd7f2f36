// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/debug_info.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <gelf.h>

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <string_view>

namespace stackwatch {
namespace {

/// Debian's largest package has 70,000 units; each costs 300 bytes here and in libdw.
constexpr size_t kMaxUnits = 200'000;
/// Ranges of all units. With -ffunction-sections there is one for each function.
constexpr size_t kMaxRanges = 4'000'000;
/// Entries (DIEs) looked at of one unit. Large units of C++ have a million; a loop in a broken one must end.
constexpr size_t kMaxVisits = 8'000'000;
/// Namespaces, classes and functions nest some ten deep; the walk is recursive and the stack has its end.
constexpr int kMaxDepth = 128;
/// Functions that begin before an address and might contain it, looked at from the nearest back.
constexpr int kMaxStepsBack = 16;
/// What libdw keeps for a line of a line table and for a range, measured with massif: estimates for bytes().
constexpr size_t kBytesPerLine = 64;
constexpr size_t kBytesPerUnit = 512;

bool is_debug_section(std::string_view name) { return name.starts_with(".debug_") || name.starts_with(".zdebug_"); }

/// Uncompressed bytes of the debug sections; `has_info` where .debug_info is one of them and not empty.
uint64_t sum_sections(Elf* elf, bool& has_info) {
  uint64_t total = 0;
  size_t names = 0;
  if (::elf_getshdrstrndx(elf, &names) != 0) return 0;
  for (Elf_Scn* section = nullptr; (section = ::elf_nextscn(elf, section)) != nullptr;) {
    GElf_Shdr header;
    if (::gelf_getshdr(section, &header) == nullptr || header.sh_type == SHT_NOBITS) continue;
    const char* const name = ::elf_strptr(elf, names, header.sh_name);
    if (name == nullptr || !is_debug_section(name)) continue;
    uint64_t bytes = header.sh_size;
    GElf_Chdr compressed;
    if ((header.sh_flags & SHF_COMPRESSED) != 0) {
      if (::gelf_getchdr(section, &compressed) == nullptr) return std::numeric_limits<uint64_t>::max();
      bytes += compressed.ch_size;
    }
    if (bytes > kMaxDebugBytes || total + bytes > kMaxDebugBytes) return std::numeric_limits<uint64_t>::max();
    total += bytes;
    has_info = has_info || ((std::string_view(name) == ".debug_info" || std::string_view(name) == ".zdebug_info") &&
                            header.sh_size > 0);
  }
  return total;
}

/// The bytes of a section as libdw has them; null where there is none.
std::string_view section_bytes(Elf* elf, std::string_view wanted) {
  size_t names = 0;
  if (::elf_getshdrstrndx(elf, &names) != 0) return {};
  for (Elf_Scn* section = nullptr; (section = ::elf_nextscn(elf, section)) != nullptr;) {
    GElf_Shdr header;
    const char* const name =
        ::gelf_getshdr(section, &header) != nullptr ? ::elf_strptr(elf, names, header.sh_name) : nullptr;
    if (name == nullptr || name != wanted) continue;
    const Elf_Data* const data = ::elf_getdata(section, nullptr);
    if (data != nullptr && data->d_buf != nullptr) return {static_cast<const char*>(data->d_buf), data->d_size};
  }
  return {};
}

/// Whether a text within .debug_info (DW_FORM_string) has its end there. libdw looks at that for texts in the string
/// sections only.
bool has_end(const Dwarf_Attribute& attribute, const std::vector<std::string_view>& sections) {
  if (attribute.form != DW_FORM_string) return true;
  const char* const text = reinterpret_cast<const char*>(attribute.valp);
  return std::ranges::any_of(sections, [&](std::string_view bytes) {
    const std::less_equal<> not_after;
    return not_after(bytes.data(), text) && not_after(text + 1, bytes.data() + bytes.size()) &&
           bytes.find('\0', static_cast<size_t>(text - bytes.data())) != std::string_view::npos;
  });
}

uint32_t number_attribute(Dwarf_Die* die, unsigned attribute) {
  Dwarf_Attribute found;
  Dwarf_Word value = 0;
  if (::dwarf_formudata(::dwarf_attr(die, attribute, &found), &value) != 0) return 0;
  return value <= std::numeric_limits<uint32_t>::max() ? static_cast<uint32_t>(value) : 0;
}

/// File and line of the call that an inlined function stands for.
void take_call_site(Dwarf_Die* unit, Dwarf_Die* inlined, SourceFrame& caller) {
  caller.line = number_attribute(inlined, DW_AT_call_line);
  Dwarf_Files* files = nullptr;
  size_t count = 0;
  const uint32_t index = number_attribute(inlined, DW_AT_call_file);
  if (::dwarf_getsrcfiles(unit, &files, &count) != 0 || index >= count) return;
  if (const char* const name = ::dwarf_filesrc(files, index, nullptr, nullptr)) caller.file = name;
}

/// The child that contains an address: an inlined call, or a block that may have one in it.
bool find_inner(Dwarf_Die* parent, uint64_t vaddr, Dwarf_Die* inner, int depth, size_t& visits) {
  Dwarf_Die child;
  if (depth > kMaxDepth || ::dwarf_child(parent, &child) != 0) return false;
  do {
    if (++visits > kMaxVisits) return false;
    const int tag = ::dwarf_tag(&child);
    if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_lexical_block && tag != DW_TAG_try_block &&
        tag != DW_TAG_catch_block) {
      continue;
    }
    const int inside = ::dwarf_haspc(&child, vaddr);
    if (tag == DW_TAG_inlined_subroutine && inside > 0) {
      *inner = child;
      return true;
    }
    // A block without a range of its own says nothing about what is in it.
    const bool has_range = ::dwarf_hasattr(&child, DW_AT_low_pc) != 0 || ::dwarf_hasattr(&child, DW_AT_ranges) != 0;
    if (tag != DW_TAG_inlined_subroutine && (inside > 0 || !has_range) &&
        find_inner(&child, vaddr, inner, depth + 1, visits)) {
      return true;
    }
  } while (::dwarf_siblingof(&child, &child) == 0);
  return false;
}

}  // namespace

struct DebugInfo::Reader {
  struct File {
    ~File() {
      ::dwarf_end(dwarf);
      ::elf_end(elf);
    }
    Elf* elf = nullptr;
    Dwarf* dwarf = nullptr;
    uint64_t bytes = 0;

    bool open(int file) {
      elf = ::elf_begin(file, ELF_C_READ, nullptr);
      if (elf == nullptr || ::elf_kind(elf) != ELF_K_ELF) return false;
      bool has_info = false;
      bytes = sum_sections(elf, has_info);
      if (!has_info || bytes > kMaxDebugBytes) return false;
      dwarf = ::dwarf_begin_elf(elf, DWARF_C_READ, nullptr);
      if (dwarf == nullptr) return false;
      // libdw 0.188 reads over the end of a last text that has none.
      return std::ranges::all_of(std::array{".debug_str", ".debug_line_str", ".zdebug_str"}, [&](const char* name) {
        const std::string_view texts = section_bytes(elf, name);
        return texts.empty() || texts.back() == '\0';
      });
    }
  };
  /// Texts within entries can be where these are.
  [[nodiscard]] std::vector<std::string_view> entries() const {
    std::vector<std::string_view> all;
    for (Dwarf* const dwarf : {file.dwarf, supplementary.dwarf}) {
      for (const char* const name : {".debug_info", ".zdebug_info", ".debug_types", ".zdebug_types"}) {
        const std::string_view bytes = dwarf != nullptr ? section_bytes(::dwarf_getelf(dwarf), name) : "";
        if (!bytes.empty()) all.push_back(bytes);
      }
    }
    return all;
  }

  [[nodiscard]] std::string function_name(Dwarf_Die* die) const {
    for (const unsigned name : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name, DW_AT_name}) {
      Dwarf_Attribute attribute;
      if (::dwarf_attr_integrate(die, name, &attribute) == nullptr || !has_end(attribute, texts)) continue;
      const char* const text = ::dwarf_formstring(&attribute);
      if (text != nullptr && *text != '\0') return text;
    }
    return {};
  }

  /// libdw reads the directory of a unit when it reads its line table, whether it ends or not.
  [[nodiscard]] bool may_read_lines(Dwarf_Die* unit) const {
    Dwarf_Attribute directory;
    return ::dwarf_attr(unit, DW_AT_comp_dir, &directory) == nullptr || has_end(directory, texts);
  }

  File supplementary;  // first: it must outlive the other, which points to it
  File file;
  std::vector<std::string_view> texts;
};

uint64_t debug_section_bytes(int file) {
  if (::elf_version(EV_CURRENT) == EV_NONE) return 0;
  Elf* const elf = ::elf_begin(file, ELF_C_READ, nullptr);
  bool has_info = false;
  const uint64_t bytes = elf != nullptr && ::elf_kind(elf) == ELF_K_ELF ? sum_sections(elf, has_info) : 0;
  ::elf_end(elf);
  return has_info ? bytes : 0;
}

DebugInfo::DebugInfo(std::unique_ptr<Reader> reader) : reader_(std::move(reader)) {}
DebugInfo::~DebugInfo() = default;

Result<std::unique_ptr<DebugInfo>> DebugInfo::open(int file, int supplementary) {
  static constexpr const char* kWhat = "read debug information";
  if (::elf_version(EV_CURRENT) == EV_NONE) return fail(kWhat, "libelf does not know this version of ELF");
  auto reader = std::make_unique<Reader>();
  if (!reader->file.open(file)) return fail(kWhat, "there is none, it is broken, or it is too large");
  if (supplementary >= 0 && reader->supplementary.open(supplementary) &&
      reader->file.bytes + reader->supplementary.bytes <= kMaxDebugBytes) {
    ::dwarf_setalt(reader->file.dwarf, reader->supplementary.dwarf);
  }
  reader->texts = reader->entries();
  std::unique_ptr<DebugInfo> info(new DebugInfo(std::move(reader)));
  info->index_units();
  return info;
}

void DebugInfo::index_units() {
  Dwarf_CU* unit = nullptr;
  Dwarf_Die root;
  uint8_t type = 0;
  while (units_.size() < kMaxUnits && ranges_.size() < kMaxRanges &&
         ::dwarf_get_units(reader_->file.dwarf, unit, &unit, nullptr, &type, &root, nullptr) == 0) {
    if (type != DW_UT_compile && type != DW_UT_skeleton) continue;
    const auto index = static_cast<uint32_t>(units_.size());
    Dwarf_Addr base = 0;
    Dwarf_Addr start = 0;
    Dwarf_Addr end = 0;
    const size_t before = ranges_.size();
    for (ptrdiff_t at = 0; (at = ::dwarf_ranges(&root, at, &base, &start, &end)) > 0 && ranges_.size() < kMaxRanges;) {
      if (start < end && start != 0) ranges_.push_back({start, end, index});  // at 0: code that the linker left out
    }
    if (ranges_.size() > before) units_.push_back({.die = ::dwarf_dieoffset(&root), .functions = {}});
  }
  std::ranges::sort(ranges_, {}, &Range::start);
  ranges_.shrink_to_fit();
}

DebugInfo::Unit* DebugInfo::find_unit(uint64_t vaddr) {
  auto at = std::ranges::upper_bound(ranges_, vaddr, {}, &Range::start);
  for (int steps = 0; at != ranges_.begin() && steps < kMaxStepsBack; ++steps) {
    --at;
    if (vaddr < at->end) return &units_[at->unit];
  }
  return nullptr;
}

void DebugInfo::read_functions(Unit& unit) {
  unit.read = true;
  Dwarf_Die root;
  if (::dwarf_offdie(reader_->file.dwarf, unit.die, &root) == nullptr) return;
  visits_ = 0;
  collect_functions(&root, unit, 0);
  std::ranges::sort(unit.functions, {}, &Function::start);
  unit.functions.shrink_to_fit();
  Dwarf_Lines* lines = nullptr;
  size_t count = 0;
  unit.has_lines = reader_->may_read_lines(&root) && ::dwarf_getsrclines(&root, &lines, &count) == 0;
  if (!unit.has_lines) count = 0;
  read_bytes_ += unit.functions.size() * sizeof(Function) + count * kBytesPerLine;
}

void DebugInfo::collect_functions(void* parent, Unit& unit, int depth) {
  Dwarf_Die child;
  if (depth > kMaxDepth || ::dwarf_child(static_cast<Dwarf_Die*>(parent), &child) != 0) return;
  do {
    if (++visits_ > kMaxVisits) return;
    const int tag = ::dwarf_tag(&child);
    if (tag == DW_TAG_subprogram && ::dwarf_hasattr(&child, DW_AT_declaration) == 0) {
      Dwarf_Addr base = 0;
      Dwarf_Addr start = 0;
      Dwarf_Addr end = 0;
      for (ptrdiff_t at = 0; (at = ::dwarf_ranges(&child, at, &base, &start, &end)) > 0 && ++visits_ <= kMaxVisits;) {
        if (start < end && start != 0) unit.functions.push_back({start, end, ::dwarf_dieoffset(&child)});
      }
    }
    // Whatever may have functions in it; variables, types and inlined calls have none.
    static constexpr std::array kScopes{DW_TAG_subprogram,   DW_TAG_namespace,      DW_TAG_module,
                                        DW_TAG_class_type,   DW_TAG_structure_type, DW_TAG_union_type,
                                        DW_TAG_lexical_block};
    if (std::ranges::find(kScopes, tag) != kScopes.end() && ::dwarf_haschildren(&child) > 0) {
      collect_functions(&child, unit, depth + 1);
    }
  } while (::dwarf_siblingof(&child, &child) == 0);
}

std::vector<SourceFrame> DebugInfo::find(uint64_t vaddr) {
  Unit* const unit = find_unit(vaddr);
  if (unit == nullptr) return {};
  if (!unit->read) read_functions(*unit);
  Dwarf_Die root;
  if (::dwarf_offdie(reader_->file.dwarf, unit->die, &root) == nullptr) return {};

  std::vector<SourceFrame> outermost_first(1);
  if (Dwarf_Line* const line = unit->has_lines ? ::dwarf_getsrc_die(&root, vaddr) : nullptr) {
    int number = 0;
    const char* const file = ::dwarf_linesrc(line, nullptr, nullptr);
    if (::dwarf_lineno(line, &number) == 0 && number > 0) outermost_first[0].line = static_cast<uint32_t>(number);
    if (file != nullptr) outermost_first[0].file = file;
  }
  auto at = std::ranges::upper_bound(unit->functions, vaddr, {}, &Function::start);
  for (int steps = 0; at != unit->functions.begin() && steps < kMaxStepsBack; ++steps) {
    if (vaddr >= (--at)->end) continue;
    Dwarf_Die die;
    Dwarf_Die inner;
    if (::dwarf_offdie(reader_->file.dwarf, at->die, &die) == nullptr) break;
    outermost_first[0].function = reader_->function_name(&die);
    size_t visits = 0;
    while (outermost_first.size() <= kMaxInlinedCalls && find_inner(&die, vaddr, &inner, 0, visits)) {
      SourceFrame frame = outermost_first.back();  // the line is the innermost's, callers get their calls' lines
      if (unit->has_lines) take_call_site(&root, &inner, outermost_first.back());
      frame.function = reader_->function_name(&inner);
      outermost_first.push_back(std::move(frame));
      die = inner;
    }
    break;
  }
  std::ranges::reverse(outermost_first);
  return outermost_first;
}

size_t DebugInfo::bytes() const {
  return reader_->file.bytes + reader_->supplementary.bytes + ranges_.capacity() * sizeof(Range) +
         units_.capacity() * (sizeof(Unit) + kBytesPerUnit) + read_bytes_;
}

}  // namespace stackwatch
