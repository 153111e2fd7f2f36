// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/unwind_builder.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <gelf.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "symbols/worker/file_reader.h"
#include "symbols/worker/frame_program.h"

namespace stackwatch {
namespace {

constexpr const char* kWhat = "build an unwind table";
/// Between functions there are up to 63 bytes of padding, which is never run.
constexpr uint64_t kMaxPaddingBytes = 64;
/// libdw 0.188 reads on where a number at the end of a section has none (pointers to personality routines in LEB128):
/// up to the first of these zeros.
constexpr size_t kPaddingOfSection = 16;
/// Sections looked at; files with more are made to be slow.
constexpr size_t kMaxSections = 4096;

struct ElfCloser {
  void operator()(Elf* elf) const { ::elf_end(elf); }
};

struct FrameSection {
  std::vector<uint8_t> bytes;  ///< and kPaddingOfSection more
  uint64_t vaddr = 0;
  bool eh = false;
  size_t size = 0;
};

/// The code of one entry; its rows are in a common vector.
struct Span {
  uint64_t start = 0;
  uint64_t end = 0;
  uint32_t first = 0;
  uint32_t count = 0;
};

struct Cie {
  FrameEntry common;
  uint8_t encoding = DW_EH_PE_absptr;
  bool has_sizes = false;  ///< entries tell the size of their augmentation
  bool usable = false;
};

std::optional<uint64_t> take_pointer(DwarfReader& reader, uint8_t encoding, uint64_t place) {
  uint64_t value = 0;
  switch (encoding & 0x0fU) {
    case DW_EH_PE_absptr:
    case DW_EH_PE_udata8:
    case DW_EH_PE_sdata8:
      value = reader.fixed(8);
      break;
    case DW_EH_PE_udata4:
      value = reader.fixed(4);
      break;
    case DW_EH_PE_sdata4:
      value = static_cast<uint64_t>(int64_t{static_cast<int32_t>(static_cast<uint32_t>(reader.fixed(4)))});
      break;
    case DW_EH_PE_udata2:
      value = reader.fixed(2);
      break;
    case DW_EH_PE_sdata2:
      value = static_cast<uint64_t>(int64_t{static_cast<int16_t>(static_cast<uint16_t>(reader.fixed(2)))});
      break;
    case DW_EH_PE_uleb128:
      value = reader.uleb();
      break;
    case DW_EH_PE_sleb128:
      value = static_cast<uint64_t>(reader.sleb());
      break;
    default:
      return std::nullopt;
  }
  const unsigned relative = encoding & 0x70U;
  if (reader.failed() || (relative != DW_EH_PE_absptr && relative != DW_EH_PE_pcrel)) return std::nullopt;
  return relative == DW_EH_PE_pcrel ? value + place : value;
}

/// Takes the entries of one section apart and runs them.
class SectionReader {
 public:
  SectionReader(const FrameSection& section, uint64_t& work, std::vector<FrameRow>& rows, std::vector<Span>& spans)
      : section_(section), work_(work), rows_(rows), spans_(spans) {
    ident_[EI_CLASS] = ELFCLASS64;
    ident_[EI_DATA] = ELFDATA2LSB;
    data_.d_buf = const_cast<uint8_t*>(section.bytes.data());
    data_.d_type = ELF_T_BYTE;
    data_.d_size = section.size;
    data_.d_version = EV_CURRENT;
  }

  void read();

 private:
  [[nodiscard]] bool next(Dwarf_Off at, Dwarf_Off& following, Dwarf_CFI_Entry& entry) {
    return ::dwarf_next_cfi(ident_, &data_, section_.eh, at, &following, &entry) == 0;
  }
  [[nodiscard]] const Cie& cie_at(uint64_t offset);
  [[nodiscard]] Cie read_cie(const Dwarf_CIE& raw) const;
  void read_fde(const Dwarf_FDE& raw);

  const FrameSection& section_;
  uint64_t& work_;
  std::vector<FrameRow>& rows_;
  std::vector<Span>& spans_;
  unsigned char ident_[EI_NIDENT] = {};
  Elf_Data data_{};
  std::map<uint64_t, Cie> cies_;
};

void SectionReader::read() {
  Dwarf_Off at = 0;
  Dwarf_Off following = 0;
  while (at < section_.size && work_ > 0 && rows_.size() < kMaxUnwindRows) {
    static constexpr size_t kLengthBytes = 4;
    if (section_.size - at < kLengthBytes) return;
    if (std::all_of(&section_.bytes[at], &section_.bytes[at] + kLengthBytes, [](uint8_t byte) { return byte == 0; })) {
      at += kLengthBytes;  // an end, after which linkers put more (Go's, that of a cgo program's C code)
      continue;
    }
    Dwarf_CFI_Entry entry;
    if (!next(at, following, entry) || following <= at) return;
    if (!dwarf_cfi_cie_p(&entry)) read_fde(entry.fde);
    at = following;
  }
}

const Cie& SectionReader::cie_at(uint64_t offset) {
  const auto known = cies_.find(offset);
  if (known != cies_.end()) return known->second;
  Dwarf_CFI_Entry entry;
  Dwarf_Off following = 0;
  Cie cie;
  if (offset < section_.size && next(offset, following, entry) && dwarf_cfi_cie_p(&entry)) {
    cie = read_cie(entry.cie);
  }
  return cies_.emplace(offset, cie).first->second;
}

Cie SectionReader::read_cie(const Dwarf_CIE& raw) const {
  Cie cie;
  cie.common.code_alignment = raw.code_alignment_factor;
  cie.common.data_alignment = raw.data_alignment_factor;
  cie.common.initial = {raw.initial_instructions, raw.initial_instructions_end};
  static constexpr uint64_t kReturnAddress = 16;
  if (raw.return_address_register != kReturnAddress) return cie;
  std::string_view augmentation = raw.augmentation != nullptr ? raw.augmentation : "";
  if (augmentation.empty()) {
    cie.usable = true;
    return cie;
  }
  if (augmentation.front() != 'z') return cie;
  cie.has_sizes = true;
  DwarfReader reader({raw.augmentation_data, raw.augmentation_data_size});
  for (const char letter : augmentation.substr(1)) {
    if (letter == 'R') {
      cie.encoding = static_cast<uint8_t>(reader.fixed(1));
    } else if (letter == 'L') {
      reader.fixed(1);
    } else if (letter == 'P') {
      const auto encoding = static_cast<uint8_t>(reader.fixed(1));
      if (!take_pointer(reader, encoding & 0x0fU, 0)) return cie;
    } else if (letter == 'S') {
      cie.common.signal = true;
    } else {
      return cie;
    }
  }
  cie.usable = !reader.failed();
  return cie;
}

void SectionReader::read_fde(const Dwarf_FDE& raw) {
  const Cie& cie = cie_at(raw.CIE_pointer);
  if (!cie.usable || raw.start > raw.end) return;
  DwarfReader reader({raw.start, raw.end});
  const uint64_t place = section_.vaddr + static_cast<uint64_t>(raw.start - section_.bytes.data());
  const auto start = take_pointer(reader, cie.encoding, place);
  const auto bytes = take_pointer(reader, cie.encoding & 0x0fU, 0);
  if (!start || !bytes || *bytes == 0 || *start > std::numeric_limits<uint64_t>::max() - *bytes) return;
  if (cie.has_sizes) reader.block(reader.uleb());
  if (reader.failed()) return;
  FrameEntry entry = cie.common;
  entry.start = *start;
  entry.end = *start + *bytes;
  entry.instructions = reader.rest();
  const auto first = static_cast<uint32_t>(rows_.size());
  if (!run_frame_program(entry, work_, rows_) || rows_.size() == first) return;
  spans_.push_back({entry.start, entry.end, first, static_cast<uint32_t>(rows_.size()) - first});
}

/// Joins the entries of both sections to one table.
class Joiner {
 public:
  Joiner(uint64_t base, uint64_t end, UnwindTable& table) : base_(base), end_(end), table_(table) {}

  void add(const Span& span, std::span<const FrameRow> rows) {
    const uint64_t start = std::max(span.start, covered_);
    const uint64_t end = std::min(span.end, end_);
    if (span.start < base_ || start >= end) return;
    if (covered_ != 0 && start - covered_ >= kMaxPaddingBytes) put(covered_, {});
    for (size_t i = 0; i < rows.size(); ++i) {
      const uint64_t next = i + 1 < rows.size() ? rows[i + 1].address : end;
      if (next <= start || rows[i].address >= end) continue;
      put(std::max(rows[i].address, start), rows[i].rule);
    }
    covered_ = end;
  }
  void finish() {
    if (covered_ != 0) put(covered_, {});
  }

 private:
  void put(uint64_t address, UnwindRule rule) {
    const UnwindRow row{static_cast<uint32_t>(address - base_), rule.packed()};
    if (rule.kind == UnwindKind::kUnknown) ++table_.inexpressible;
    if (!table_.rows.empty() && table_.rows.back().rule == row.rule) return;
    if (table_.rows.size() < kMaxUnwindRows) table_.rows.push_back(row);
  }

  uint64_t base_;
  uint64_t end_;
  UnwindTable& table_;
  uint64_t covered_ = 0;
};

/// What a packed section (Go's .debug_frame) unpacks to.
bool unpack(Elf_Scn* scn, std::vector<uint8_t>& bytes) {
  GElf_Chdr packed;
  if (::gelf_getchdr(scn, &packed) == nullptr || packed.ch_size > kMaxFrameSectionBytes) return false;
  if (::elf_compress(scn, 0, 0) < 0) return false;
  const Elf_Data* const data = ::elf_getdata(scn, nullptr);
  if (data == nullptr || data->d_buf == nullptr || data->d_size > kMaxFrameSectionBytes) return false;
  const auto* const first = static_cast<const uint8_t*>(data->d_buf);
  bytes.assign(first, first + data->d_size);
  return true;
}

std::optional<FrameSection> read_section(const ElfObject& object, Elf_Scn* scn, const GElf_Shdr& header, bool eh) {
  if (header.sh_type == SHT_NOBITS) return std::nullopt;
  if (header.sh_size == 0 || header.sh_size > kMaxFrameSectionBytes || header.sh_size > object.file_bytes()) return {};
  FrameSection section{{}, header.sh_addr, eh, 0};
  if ((header.sh_flags & SHF_COMPRESSED) != 0) {
    if (!unpack(scn, section.bytes)) return std::nullopt;
    section.size = section.bytes.size();
  } else {
    section.bytes.resize(header.sh_size);
    section.size = read_at(object.file(), header.sh_offset, section.bytes.data(), section.bytes.size());
  }
  section.bytes.resize(section.size);
  section.bytes.resize(section.size + kPaddingOfSection);
  return section;
}

std::vector<FrameSection> read_sections(const ElfObject& object) {
  std::vector<FrameSection> sections;
  const std::unique_ptr<Elf, ElfCloser> elf(::elf_begin(object.file(), ELF_C_READ, nullptr));
  size_t names = 0;
  if (!elf || ::elf_getshdrstrndx(elf.get(), &names) != 0) return sections;
  Elf_Scn* scn = nullptr;
  for (size_t i = 0; i < kMaxSections && (scn = ::elf_nextscn(elf.get(), scn)) != nullptr; ++i) {
    GElf_Shdr header;
    if (::gelf_getshdr(scn, &header) == nullptr) continue;
    const char* const text = ::elf_strptr(elf.get(), names, header.sh_name);
    const std::string_view name = text != nullptr ? text : "";
    if (name != ".eh_frame" && name != ".debug_frame") continue;
    auto section = read_section(object, scn, header, name == ".eh_frame");
    if (section) sections.push_back(std::move(*section));
  }
  std::ranges::stable_sort(sections, [](const auto& a, const auto& b) { return a.eh && !b.eh; });
  return sections;
}

bool is_x86_64(const ElfObject& object) {
  const std::unique_ptr<Elf, ElfCloser> elf(::elf_begin(object.file(), ELF_C_READ, nullptr));
  GElf_Ehdr header;
  return elf && ::gelf_getehdr(elf.get(), &header) != nullptr && header.e_machine == EM_X86_64 &&
         header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_ident[EI_DATA] == ELFDATA2LSB;
}

/// Entries of a later section count only where no earlier one has any.
void add_where_free(std::vector<Span>& spans, std::vector<Span> more) {
  const size_t before = spans.size();
  for (const Span& span : more) {
    const auto known = spans.begin() + static_cast<ptrdiff_t>(before);
    const auto after = std::upper_bound(spans.begin(), known, span.start,
                                        [](uint64_t at, const Span& other) { return at < other.start; });
    if (after != spans.begin() && std::prev(after)->end > span.start) continue;
    if (after != known && after->start < span.end) continue;
    spans.push_back(span);
  }
  std::ranges::stable_sort(spans, {}, &Span::start);
}

}  // namespace

Result<UnwindTable> build_unwind_table(const ElfObject& object) {
  if (!is_x86_64(object)) return fail(kWhat, "not a 64-bit x86 object");
  uint64_t base = std::numeric_limits<uint64_t>::max();
  uint64_t end = 0;
  UnwindTable table;
  for (const LoadedSegment& segment : object.segments()) {
    if (!segment.executable || table.segments.size() == kMaxUnwindSegments) continue;
    if (segment.vaddr > std::numeric_limits<uint64_t>::max() - segment.bytes) return fail(kWhat, "broken segments");
    table.segments.push_back({segment.offset, segment.vaddr, segment.bytes});
    base = std::min(base, segment.vaddr);
    end = std::max(end, segment.vaddr + segment.bytes);
  }
  if (table.segments.empty()) return fail(kWhat, "it has no code");
  if (end - base > std::numeric_limits<uint32_t>::max()) return fail(kWhat, "more than 4 GB of code");
  for (UnwindSegment& segment : table.segments) segment.vaddr -= base;

  uint64_t work = kMaxFrameWork;
  std::vector<FrameRow> rows;
  std::vector<Span> spans;
  for (const FrameSection& section : read_sections(object)) {
    std::vector<Span> found;
    SectionReader(section, work, rows, found).read();
    add_where_free(spans, std::move(found));
  }
  Joiner joiner(base, end, table);
  for (const Span& span : spans) joiner.add(span, std::span(rows).subspan(span.first, span.count));
  joiner.finish();
  return table;
}

}  // namespace stackwatch
