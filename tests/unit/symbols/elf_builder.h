// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "core/unique_fd.h"

namespace stackwatch {

/// A file in memory with this content.
inline UniqueFd memory_file(std::string_view content) {
  UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  while (!content.empty()) {
    const ssize_t written = ::write(file.get(), content.data(), content.size());
    if (written <= 0) return {};
    content.remove_prefix(static_cast<size_t>(written));
  }
  return file;
}

/// Writes a small ELF file: code at kCodeOffset in the file and kCodeAddress in memory, and a symbol table.
class ElfBuilder {
 public:
  static constexpr uint64_t kCodeOffset = 0x1000;
  static constexpr uint64_t kCodeAddress = 0x401000;
  static constexpr uint64_t kCodeBytes = 0x1000;

  ElfBuilder() : strings_(1, '\0'), symbols_(1) {}

  /// `at` is relative to the code.
  ElfBuilder& symbol(std::string_view name, uint64_t at, uint64_t size, unsigned type = STT_FUNC,
                     unsigned bind = STB_GLOBAL) {
    Elf64_Sym symbol{};
    symbol.st_name = static_cast<Elf64_Word>(strings_.size());
    symbol.st_info = static_cast<unsigned char>(ELF64_ST_INFO(bind, type));
    symbol.st_shndx = 1;
    symbol.st_value = kCodeAddress + at;
    symbol.st_size = size;
    symbols_.push_back(symbol);
    strings_ += name;
    strings_ += '\0';
    return *this;
  }
  Elf64_Shdr& symbol_section() { return symbol_section_; }

  [[nodiscard]] std::string build() const {
    const uint64_t symbols_at = kCodeOffset + kCodeBytes;
    const uint64_t strings_at = symbols_at + symbols_.size() * sizeof(Elf64_Sym);
    const uint64_t sections_at = strings_at + strings_.size();
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_ehsize = sizeof header;
    header.e_phoff = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 1;
    header.e_shoff = sections_at;
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = 4;
    header.e_shstrndx = 3;
    Elf64_Phdr segment{};
    segment.p_type = PT_LOAD;
    segment.p_flags = PF_R | PF_X;
    segment.p_offset = kCodeOffset;
    segment.p_vaddr = kCodeAddress;
    segment.p_filesz = segment.p_memsz = kCodeBytes;
    Elf64_Shdr sections[4] = {};
    sections[1].sh_type = SHT_PROGBITS;
    sections[1].sh_flags = SHF_ALLOC | SHF_EXECINSTR;
    sections[1].sh_addr = kCodeAddress;
    sections[1].sh_offset = kCodeOffset;
    sections[1].sh_size = kCodeBytes;
    sections[2] = symbol_section_;
    sections[2].sh_type = SHT_SYMTAB;
    sections[2].sh_link = 3;
    if (sections[2].sh_offset == 0) sections[2].sh_offset = symbols_at;
    if (sections[2].sh_size == 0) sections[2].sh_size = symbols_.size() * sizeof(Elf64_Sym);
    if (sections[2].sh_entsize == 0) sections[2].sh_entsize = sizeof(Elf64_Sym);
    sections[3].sh_type = SHT_STRTAB;
    sections[3].sh_offset = strings_at;
    sections[3].sh_size = strings_.size();
    std::string file;
    const auto add = [&file](const void* data, size_t bytes) { file.append(static_cast<const char*>(data), bytes); };
    add(&header, sizeof header);
    add(&segment, sizeof segment);
    file.resize(symbols_at, '\0');
    add(symbols_.data(), symbols_.size() * sizeof(Elf64_Sym));
    file += strings_;
    add(sections, sizeof sections);
    return file;
  }

 private:
  std::string strings_;
  std::vector<Elf64_Sym> symbols_;
  Elf64_Shdr symbol_section_{};
};

}  // namespace stackwatch
