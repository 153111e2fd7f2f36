// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/elf_object.h"

#include <fcntl.h>
#include <gelf.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>
#include <tuple>

#include "symbols/protocol.h"
#include "symbols/worker/debug_links.h"
#include "symbols/worker/file_reader.h"

namespace stackwatch {
namespace {

/// Symbols that start before an address and might cover it, looked at from the nearest back. Functions nest two or
/// three deep at most (entry points inside assembler routines); names at the same address come on top of it.
constexpr int kMaxSymbolsBack = 64;
/// A program has about 10 program headers, 65535 are possible; more than this are not looked at.
constexpr size_t kMaxProgramHeaders = 512;
/// Notes come to a few hundred bytes; larger segments (cores have them) are not searched for a build-id.
constexpr uint64_t kMaxNoteBytes = 64 * 1024;
/// How far a symbol without a size and without call-frame information may reach when no other follows.
constexpr uint64_t kMaxUnsizedBytes = 64 * 1024;

size_t leading_underscores(std::string_view name) {
  if (name.starts_with("_Z") || name.starts_with("_R")) return 0;  // C++ and Rust: part of the mangling
  return std::min(name.find_first_not_of('_'), name.size());
}

}  // namespace

struct ElfObject::Handle {
  explicit Handle(int file) : elf(::elf_begin(file, ELF_C_READ, nullptr)) {}
  ~Handle() { ::elf_end(elf); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  Elf* elf;
};

Result<std::unique_ptr<ElfObject>> ElfObject::open(UniqueFd file) {
  static constexpr const char* kWhat = "read an object file";
  if (::elf_version(EV_CURRENT) == EV_NONE) return fail(kWhat, "libelf does not know this version of ELF");
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return fail_errno(kWhat, errno);
  if (!S_ISREG(info.st_mode)) return fail(kWhat, "not a regular file");
  if (info.st_size <= 0) return fail(kWhat, "it is empty");
  if (static_cast<uint64_t>(info.st_size) > kMaxObjectFileBytes) return fail(kWhat, "it is too large");

  std::unique_ptr<ElfObject> object(new ElfObject(std::move(file)));
  object->file_bytes_ = static_cast<uint64_t>(info.st_size);
  Handle elf(object->file_.get());
  if (elf.elf == nullptr || ::elf_kind(elf.elf) != ELF_K_ELF) return fail(kWhat, "not an ELF file");
  if (!object->read_headers(elf)) return fail(kWhat, "its ELF headers are broken");
  object->read_build_id(elf);
  return object;
}

bool ElfObject::read_headers(Handle& elf) {
  GElf_Ehdr header;
  size_t count = 0;
  if (::gelf_getehdr(elf.elf, &header) == nullptr || ::elf_getphdrnum(elf.elf, &count) != 0) return false;
  if (header.e_ident[EI_DATA] != ELFDATA2LSB && header.e_ident[EI_DATA] != ELFDATA2MSB) return false;
  wide_ = ::gelf_getclass(elf.elf) == ELFCLASS64;
  for (size_t i = 0; i < std::min(count, kMaxProgramHeaders); ++i) {
    GElf_Phdr segment;
    if (::gelf_getphdr(elf.elf, static_cast<int>(i), &segment) == nullptr) return false;
    if (segment.p_offset > file_bytes_) continue;
    const LoadedSegment part{segment.p_offset, segment.p_vaddr,
                             std::min<uint64_t>(segment.p_filesz, file_bytes_ - segment.p_offset),
                             (segment.p_flags & PF_X) != 0};
    if (part.vaddr + part.bytes < part.vaddr) continue;
    if (segment.p_type == PT_LOAD) segments_.push_back(part);
    if (segment.p_type == PT_GNU_EH_FRAME) frame_header_ = part;
  }
  return true;
}

void ElfObject::read_build_id(Handle& elf) {
  size_t count = 0;
  if (::elf_getphdrnum(elf.elf, &count) != 0) return;
  for (size_t i = 0; i < std::min(count, kMaxProgramHeaders); ++i) {
    GElf_Phdr segment;
    if (::gelf_getphdr(elf.elf, static_cast<int>(i), &segment) == nullptr || segment.p_type != PT_NOTE) continue;
    if (take_build_id(elf, segment.p_offset, segment.p_filesz, segment.p_align)) return;
  }
  if (count > 0) return;
  // Files that are not to be run have sections alone: what dwz makes.
  for (Elf_Scn* section = nullptr; (section = ::elf_nextscn(elf.elf, section)) != nullptr;) {
    GElf_Shdr header;
    if (::gelf_getshdr(section, &header) == nullptr || header.sh_type != SHT_NOTE) continue;
    if (take_build_id(elf, header.sh_offset, header.sh_size, header.sh_addralign)) return;
  }
}

/// True where these notes have one.
bool ElfObject::take_build_id(Handle& elf, uint64_t offset, uint64_t bytes, uint64_t align) {
  if (bytes > kMaxNoteBytes || offset > file_bytes_) return false;
  Elf_Data* const data =
      ::elf_getdata_rawchunk(elf.elf, static_cast<int64_t>(offset), bytes, align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR);
  if (data == nullptr) return false;
  GElf_Nhdr note;
  size_t name = 0;
  size_t content = 0;
  for (size_t at = 0; (at = ::gelf_getnote(data, at, &note, &name, &content)) > 0;) {
    if (note.n_type != NT_GNU_BUILD_ID || note.n_namesz != sizeof "GNU" || note.n_descsz == 0 ||
        note.n_descsz > protocol::kMaxBuildIdBytes || std::memcmp(static_cast<char*>(data->d_buf) + name, "GNU", 4)) {
      continue;
    }
    const auto* const id = static_cast<const std::byte*>(data->d_buf) + content;
    build_id_.assign(id, id + note.n_descsz);
    return true;
  }
  return false;
}

void ElfObject::load() {
  loaded_ = true;
  read_symbols(file_.get(), kStatic, true);
  if (debug_file_ >= 0) read_symbols(debug_file_, kDebugFile, false);
  // What was stripped is in one of the three places, not in two.
  if (strings_[kStatic].bytes == 0 && strings_[kDebugFile].bytes == 0) {
    mini_ = unpack_mini_debug_info(file_.get());
    struct stat info {};
    if (mini_ && ::fstat(mini_.get(), &info) == 0) mini_bytes_ = static_cast<size_t>(info.st_size);
    if (mini_) read_symbols(mini_.get(), kMini, false);
  }
  settle_symbols();
  if (const Handle elf(file_.get()); elf.elf != nullptr) stubs_.load(elf.elf);
  if (frame_header_) unwind_.load(file_.get(), *frame_header_, wide_);
}

void ElfObject::use_symbols_of(int debug_file) {
  if (debug_file_ == debug_file) return;
  unload();
  debug_file_ = debug_file;
}

void ElfObject::read_symbols(int file, Table static_table, bool with_dynamic) {
  Handle elf(file);
  if (elf.elf == nullptr) return;
  for (Elf_Scn* section = nullptr; (section = ::elf_nextscn(elf.elf, section)) != nullptr;) {
    GElf_Shdr header;
    if (::gelf_getshdr(section, &header) == nullptr) continue;
    if (header.sh_type == SHT_SYMTAB) read_table(elf, section, file, static_table);
    if (header.sh_type == SHT_DYNSYM && with_dynamic) read_table(elf, section, file, kDynamic);
  }
}

void ElfObject::read_table(Handle& elf, void* section, int file, Table into) {
  StringTable& strings = strings_[into];
  GElf_Shdr header;
  GElf_Shdr string_header;
  struct stat info {};
  auto* const table = static_cast<Elf_Scn*>(section);
  // Only the first table of a kind: a name is an offset in one string table of its kind.
  if (strings.bytes != 0 || ::fstat(file, &info) != 0 || ::gelf_getshdr(table, &header) == nullptr ||
      header.sh_entsize == 0 || (header.sh_flags & SHF_COMPRESSED) != 0 ||
      header.sh_size > kMaxSymbols * sizeof(Elf64_Sym) ||
      ::gelf_getshdr(::elf_getscn(elf.elf, header.sh_link), &string_header) == nullptr ||
      string_header.sh_type != SHT_STRTAB || string_header.sh_offset >= static_cast<uint64_t>(info.st_size)) {
    return;
  }
  const uint64_t rest = static_cast<uint64_t>(info.st_size) - string_header.sh_offset;
  Elf_Data* const data = ::elf_getdata(table, nullptr);
  if (data == nullptr || data->d_size / header.sh_entsize > kMaxSymbols) return;
  strings = {file, string_header.sh_offset, std::min<uint64_t>(string_header.sh_size, rest)};
  const int count = static_cast<int>(data->d_size / header.sh_entsize);
  for (int i = 1; i < count; ++i) {
    GElf_Sym raw;
    if (::gelf_getsym(data, i, &raw) == nullptr) break;
    const auto type = GELF_ST_TYPE(raw.st_info);
    if ((type != STT_FUNC && type != STT_GNU_IFUNC && type != STT_NOTYPE) || raw.st_shndx == SHN_UNDEF ||
        raw.st_shndx == SHN_ABS || raw.st_name == 0 || raw.st_name >= strings.bytes || raw.st_name >= (1U << 28U) ||
        !is_code(raw.st_value)) {
      continue;
    }
    Symbol symbol;
    symbol.address = raw.st_value;
    symbol.size = static_cast<uint32_t>(std::min<uint64_t>(raw.st_size, std::numeric_limits<uint32_t>::max()));
    symbol.name = raw.st_name & 0x0fffffffU;
    symbol.table = into & 3U;
    symbol.no_type = type == STT_NOTYPE;
    symbol.local = GELF_ST_BIND(raw.st_info) == STB_LOCAL;
    symbols_.push_back(symbol);
  }
}

void ElfObject::settle_symbols() {
  std::sort(symbols_.begin(), symbols_.end(), [](const Symbol& a, const Symbol& b) {
    return std::tuple(a.address, a.no_type, b.size, a.local, a.table, a.name) <
           std::tuple(b.address, b.no_type, a.size, b.local, b.table, b.name);
  });
  // Labels inside of functions would only be in the way of finding the function.
  uint64_t covered = 0;
  const auto kept = std::remove_if(symbols_.begin(), symbols_.end(), [&covered](const Symbol& symbol) {
    if (symbol.no_type && symbol.address < covered) return true;
    if (!symbol.no_type) covered = std::max(covered, symbol.address + symbol.size);
    return false;
  });
  symbols_.erase(kept, symbols_.end());
  symbols_.shrink_to_fit();
}

bool ElfObject::is_code(uint64_t vaddr) const {
  return std::any_of(segments_.begin(), segments_.end(), [vaddr](const LoadedSegment& segment) {
    return segment.executable && vaddr >= segment.vaddr && vaddr - segment.vaddr < segment.bytes;
  });
}

std::optional<uint64_t> ElfObject::vaddr_of(uint64_t file_offset) const {
  for (const LoadedSegment& segment : segments_) {
    if (segment.executable && file_offset >= segment.offset && file_offset - segment.offset < segment.bytes) {
      return segment.vaddr + (file_offset - segment.offset);
    }
  }
  return std::nullopt;
}

std::optional<FoundFunction> ElfObject::find(uint64_t file_offset) {
  const auto vaddr = vaddr_of(file_offset);
  if (!vaddr) return std::nullopt;
  if (!loaded_) load();
  const auto range = unwind_.find(file_.get(), segments_, *vaddr);
  if (const Symbol* const symbol = find_symbol(*vaddr, range)) {
    if (std::string name = best_name(*symbol); !name.empty()) return FoundFunction{symbol->address, std::move(name)};
  }
  if (const auto stub = stubs_.find(file_.get(), segments_, *vaddr)) {
    if (std::string name = read_name(kDynamic, stub->name); !name.empty()) {
      return FoundFunction{stub->start, std::move(name) + "@plt"};
    }
  }
  if (range) return FoundFunction{range->start, {}};
  return std::nullopt;
}

const ElfObject::Symbol* ElfObject::find_symbol(uint64_t vaddr, const std::optional<UnwindRange>& range) const {
  auto at = std::upper_bound(symbols_.begin(), symbols_.end(), vaddr,
                             [](uint64_t value, const Symbol& symbol) { return value < symbol.address; });
  const Symbol* unsized = nullptr;
  for (int steps = 0; at != symbols_.begin() && steps < kMaxSymbolsBack; ++steps) {
    --at;
    if (at->size > 0 && vaddr - at->address < at->size) return &*at;
    const bool nearest = steps == 0 || at->address == std::next(at)->address;
    const bool in_range = range ? at->address >= range->start : vaddr - at->address < kMaxUnsizedBytes;
    if (at->size == 0 && in_range && (nearest || range) && (unsized == nullptr || at->address == unsized->address)) {
      unsized = &*at;
    }
  }
  return unsized;
}

std::string ElfObject::best_name(const Symbol& symbol) const {
  const auto [first, last] = std::equal_range(symbols_.begin(), symbols_.end(), symbol,
                                              [](const Symbol& a, const Symbol& b) { return a.address < b.address; });
  std::string best;
  auto best_rank = std::tuple(true, true, true, size_t{0}, size_t{0}, std::string_view());
  for (auto alias = first; alias != last && alias - first < kMaxSymbolsBack; ++alias) {
    std::string name = read_name(static_cast<Table>(alias->table), alias->name);
    // `$x` and `.L…` mark places for tools, they are nobody's functions.
    if (name.empty() || name.front() == '$' || (alias->no_type && name.front() == '.')) continue;
    const auto rank = std::tuple(alias->no_type != 0, alias->size == 0, alias->local != 0, leading_underscores(name),
                                 name.size(), std::string_view(name));
    if (!best.empty() && rank >= best_rank) continue;
    best = std::move(name);
    best_rank = std::tuple(alias->no_type != 0, alias->size == 0, alias->local != 0, leading_underscores(best),
                           best.size(), std::string_view(best));
  }
  return best;
}

std::string ElfObject::read_name(Table table, uint32_t offset) const {
  const StringTable& strings = strings_[table];
  if (offset >= strings.bytes) return {};
  // Most names fit a short read; a page is only read where they don't.
  for (size_t room : {size_t{128}, kMaxRawNameBytes}) {
    std::string name(std::min<uint64_t>(room, strings.bytes - offset), '\0');
    name.resize(read_at(strings.file, strings.offset + offset, name.data(), name.size()));
    const size_t end = name.find('\0');
    if (end != std::string::npos || name.size() == kMaxRawNameBytes) return name.substr(0, end);
  }
  return {};
}

std::optional<UnwindRange> ElfObject::range_of(uint64_t vaddr) {
  if (!loaded_) load();
  return unwind_.find(file_.get(), segments_, vaddr);
}

size_t ElfObject::table_bytes() const {
  return symbols_.capacity() * sizeof(Symbol) + stubs_.bytes() + unwind_.bytes() + mini_bytes_;
}

void ElfObject::unload() {
  symbols_ = std::vector<Symbol>();  // "= {}" would keep the memory
  std::ranges::fill(strings_, StringTable{});
  mini_.reset();
  mini_bytes_ = 0;
  stubs_.clear();
  unwind_.clear();
  loaded_ = false;
}

}  // namespace stackwatch
