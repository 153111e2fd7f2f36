// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/linkage_stubs.h"

#include <gelf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "symbols/worker/file_reader.h"

namespace stackwatch {
namespace {

/// The largest programs have a tenth of it.
constexpr size_t kMaxSlots = 200'000;
/// libelf reads sections whole. The largest browsers have 15 MB of relocations and 1 MB of dynamic symbols.
constexpr uint64_t kMaxRelocationBytes = 64U << 20;
constexpr uint64_t kMaxSymbolBytes = 48U << 20;
/// .plt, .plt.got, .plt.sec
constexpr size_t kMaxStubSections = 8;
constexpr uint64_t kStubBytes = 16;

}  // namespace

void LinkageStubs::load(Elf* elf) {
  clear();
  GElf_Ehdr header;
  size_t names = 0;
  if (::gelf_getehdr(elf, &header) == nullptr || header.e_machine != EM_X86_64 ||
      ::elf_getshdrstrndx(elf, &names) != 0) {
    return;
  }
  uint64_t left = kMaxRelocationBytes;
  for (Elf_Scn* section = nullptr; (section = ::elf_nextscn(elf, section)) != nullptr;) {
    GElf_Shdr part;
    if (::gelf_getshdr(section, &part) == nullptr) continue;
    if (part.sh_type == SHT_RELA) read_slots(elf, section, left);
    if (part.sh_type != SHT_PROGBITS || (part.sh_flags & SHF_EXECINSTR) == 0 || sections_.size() == kMaxStubSections ||
        part.sh_addr + part.sh_size < part.sh_addr) {
      continue;
    }
    const char* const name = ::elf_strptr(elf, names, part.sh_name);
    if (name == nullptr || !std::string_view(name).starts_with(".plt")) continue;
    const bool small = part.sh_entsize == kStubBytes / 2;
    sections_.push_back({part.sh_addr, part.sh_addr + part.sh_size, small ? kStubBytes / 2 : kStubBytes});
  }
  std::sort(slots_.begin(), slots_.end(), [](const Slot& a, const Slot& b) { return a.address < b.address; });
  slots_.shrink_to_fit();
}

void LinkageStubs::read_slots(Elf* elf, Elf_Scn* section, uint64_t& left) {
  GElf_Shdr header;
  GElf_Shdr symbols_header;
  if (::gelf_getshdr(section, &header) == nullptr) return;
  Elf_Scn* const symbols_section = ::elf_getscn(elf, header.sh_link);
  if (symbols_section == nullptr || ::gelf_getshdr(symbols_section, &symbols_header) == nullptr ||
      symbols_header.sh_type != SHT_DYNSYM || (symbols_header.sh_flags & SHF_COMPRESSED) != 0 ||
      symbols_header.sh_size > kMaxSymbolBytes || (header.sh_flags & SHF_COMPRESSED) != 0 || header.sh_entsize == 0 ||
      header.sh_size > left) {
    return;
  }
  left -= header.sh_size;
  Elf_Data* const symbols = ::elf_getdata(symbols_section, nullptr);
  Elf_Data* const data = symbols != nullptr ? ::elf_getdata(section, nullptr) : nullptr;
  if (data == nullptr) return;
  const auto count = static_cast<int>(data->d_size / header.sh_entsize);
  for (int i = 0; i < count && slots_.size() < kMaxSlots; ++i) {
    GElf_Rela relocation;
    GElf_Sym symbol;
    if (::gelf_getrela(data, i, &relocation) == nullptr) break;
    const auto type = GELF_R_TYPE(relocation.r_info);
    if (type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT) continue;
    if (::gelf_getsym(symbols, static_cast<int>(GELF_R_SYM(relocation.r_info)), &symbol) == nullptr) continue;
    if (symbol.st_name != 0) slots_.push_back({relocation.r_offset, symbol.st_name});
  }
}

// An optional endbr64 and a jump through a slot, which may have the prefix that memory protection extensions asked for.
std::optional<LinkageStubs::Stub> LinkageStubs::find(int file, std::span<const LoadedSegment> segments,
                                                     uint64_t vaddr) const {
  const auto section = std::find_if(sections_.begin(), sections_.end(),
                                    [vaddr](const Section& one) { return vaddr >= one.start && vaddr < one.end; });
  if (section == sections_.end()) return std::nullopt;
  const uint64_t start = vaddr - (vaddr - section->start) % section->stub_bytes;
  std::array<uint8_t, kStubBytes> code{};
  for (const LoadedSegment& segment : segments) {
    if (start < segment.vaddr || start - segment.vaddr >= segment.bytes) continue;
    const uint64_t at = start - segment.vaddr;
    read_at(file, segment.offset + at, code.data(), std::min<uint64_t>(section->stub_bytes, segment.bytes - at));
    break;
  }
  static constexpr std::array<uint8_t, 4> kEndbr64 = {0xf3, 0x0f, 0x1e, 0xfa};
  size_t at = std::equal(kEndbr64.begin(), kEndbr64.end(), code.begin()) ? kEndbr64.size() : 0;
  if (code[at] == 0xf2) ++at;
  if (code[at] != 0xff || code[at + 1] != 0x25) return std::nullopt;
  int32_t distance = 0;
  std::memcpy(&distance, &code[at + 2], sizeof distance);
  const uint64_t slot = start + at + 6 + static_cast<uint64_t>(static_cast<int64_t>(distance));
  const auto found = std::lower_bound(slots_.begin(), slots_.end(), slot,
                                      [](const Slot& one, uint64_t address) { return one.address < address; });
  if (found == slots_.end() || found->address != slot) return std::nullopt;
  return Stub{start, found->name};
}

void LinkageStubs::clear() {
  slots_ = std::vector<Slot>();  // "= {}" would keep the memory
  sections_.clear();
}

}  // namespace stackwatch
