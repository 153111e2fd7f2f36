// SPDX-License-Identifier: Apache-2.0
// The worker's builder of unwind tables, and the way of a table to the daemon. Bytes that begin as ELF files do are a
// file; all others are the call-frame information of one, as .eh_frame and as .debug_frame, which is reached far more
// often so. Whatever they are, a table must be one that the kernel side can search.
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "symbols/protocol.h"
#include "symbols/worker/elf_object.h"
#include "symbols/worker/unwind_builder.h"

using namespace stackwatch;

namespace {

constexpr uint64_t kCodeAddress = 0x1000;
constexpr uint64_t kCodeBytes = 0x10000;

/// A file with these bytes as both sections; .eh_frame lies behind the code.
std::string file_with(std::string_view frames) {
  static constexpr std::string_view kNames("\0.eh_frame\0.debug_frame\0.shstrtab", 34);
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_DYN;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_ehsize = sizeof header;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 1;
  header.e_shoff = sizeof header + sizeof(Elf64_Phdr);
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 4;
  header.e_shstrndx = 3;
  Elf64_Phdr segment{};
  segment.p_type = PT_LOAD;
  segment.p_flags = PF_R | PF_X;
  segment.p_vaddr = kCodeAddress;
  segment.p_filesz = segment.p_memsz = kCodeBytes;
  Elf64_Shdr sections[4] = {};
  const uint64_t names_at = header.e_shoff + sizeof sections;
  for (int i = 1; i <= 2; ++i) {
    sections[i].sh_type = SHT_PROGBITS;
    sections[i].sh_name = i == 1 ? 1 : 11;
    sections[i].sh_offset = names_at + kNames.size();
    sections[i].sh_size = frames.size();
    sections[i].sh_addr = kCodeAddress + kCodeBytes;
  }
  sections[3].sh_type = SHT_STRTAB;
  sections[3].sh_name = 24;
  sections[3].sh_offset = names_at;
  sections[3].sh_size = kNames.size();
  std::string file;
  const auto add = [&file](const void* data, size_t bytes) { file.append(static_cast<const char*>(data), bytes); };
  add(&header, sizeof header);
  add(&segment, sizeof segment);
  add(sections, sizeof sections);
  file += kNames;
  file += frames;
  return file;
}

void check_rows(const UnwindTable& table) {
  const auto not_after = [](const UnwindRow& a, const UnwindRow& b) { return a.address >= b.address; };
  if (std::ranges::adjacent_find(table.rows, not_after) != table.rows.end()) std::abort();
  if (table.rows.size() > kMaxUnwindRows || table.segments.size() > kMaxUnwindSegments) std::abort();
  if (!table.rows.empty() && UnwindRule::unpack(table.rows.back().rule).kind != UnwindKind::kNone) std::abort();
  for (const UnwindRow& row : table.rows) {
    if (UnwindRule::unpack(row.rule).kind > UnwindKind::kUnknown) std::abort();
  }
}

/// The daemon must get what was built.
void check_transfer(const UnwindTable& table) {
  UnwindTable got;
  bool last = false;
  for (const protocol::Bytes& packet : protocol::encode_table(1, protocol::kFirstFileObject, table)) {
    const auto reply = protocol::parse_reply(packet);
    const auto* const rows = reply ? std::get_if<protocol::UnwindRows>(&*reply) : nullptr;
    if (rows == nullptr || last) std::abort();
    last = rows->last;
    got.rows.insert(got.rows.end(), rows->table.rows.begin(), rows->table.rows.end());
    if (last) got.segments = rows->table.segments;
  }
  if (!last || got.rows != table.rows || got.segments != table.segments) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (!bytes.starts_with(ELFMAG)) bytes = file_with(bytes);
  UniqueFd file(::memfd_create("fuzz", MFD_CLOEXEC));
  if (::write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) return 0;
  const auto object = ElfObject::open(std::move(file));
  if (!object) return 0;
  const auto table = build_unwind_table(**object);
  if (!table) return 0;
  check_rows(*table);
  check_transfer(*table);
  return 0;
}
