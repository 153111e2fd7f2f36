// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/allocator_search.h"

#include <gelf.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

#include "symbols/worker/code_walk.h"
#include "symbols/worker/file_reader.h"

namespace stackwatch {
namespace {

/// The largest browsers' string table with all their debug symbols has 200 MB; the worker has 768 MB of address space.
constexpr uint64_t kMaxStringBytes = 256U << 20;
/// Slots of the dynamic linker in one object.
constexpr size_t kMaxImports = 200'000;

struct KnownName {
  AllocatorRole role;
  bool cxx = false;  ///< operator new or delete
};

const std::unordered_map<std::string_view, KnownName>& known_names() {
  using enum AllocatorRole;
  static const std::unordered_map<std::string_view, KnownName> kNames = [] {
    std::unordered_map<std::string_view, KnownName> names = {
        {"malloc", {kMalloc}},
        {"valloc", {kMalloc}},
        {"pvalloc", {kMalloc}},
        {"calloc", {kCalloc}},
        {"memalign", {kAligned}},
        {"aligned_alloc", {kAligned}},
        {"posix_memalign", {kPosixMemalign}},
        {"realloc", {kRealloc}},
        {"reallocarray", {kReallocarray}},
        {"free", {kFree}},
        {"cfree", {kFree}},
        {"free_sized", {kFree}},
        {"free_aligned_sized", {kFree}},
    };
    // operator new and new[]: (size), (size, nothrow), (size, alignment), (size, alignment, nothrow).
    for (const char* name :
         {"_Znwm", "_ZnwmRKSt9nothrow_t", "_ZnwmSt11align_val_t", "_ZnwmSt11align_val_tRKSt9nothrow_t", "_Znam",
          "_ZnamRKSt9nothrow_t", "_ZnamSt11align_val_t", "_ZnamSt11align_val_tRKSt9nothrow_t"}) {
      names[name] = {kNew, true};
    }
    // operator delete and delete[]: the same with or without a size.
    for (const char* name :
         {"_ZdlPv", "_ZdlPvm", "_ZdlPvRKSt9nothrow_t", "_ZdlPvSt11align_val_t", "_ZdlPvmSt11align_val_t",
          "_ZdlPvSt11align_val_tRKSt9nothrow_t", "_ZdaPv", "_ZdaPvm", "_ZdaPvRKSt9nothrow_t", "_ZdaPvSt11align_val_t",
          "_ZdaPvmSt11align_val_t", "_ZdaPvSt11align_val_tRKSt9nothrow_t"}) {
      names[name] = {kFree, true};
    }
    return names;
  }();
  return kNames;
}

/// All strings of a table, read at once: names are compared millions of times.
class Strings {
 public:
  Strings(const ElfObject& object, const GElf_Shdr& section) {
    if (section.sh_type != SHT_STRTAB || section.sh_offset >= object.file_bytes() ||
        (section.sh_flags & SHF_COMPRESSED) != 0) {
      return;
    }
    const uint64_t bytes = std::min<uint64_t>(section.sh_size, object.file_bytes() - section.sh_offset);
    if (bytes > kMaxStringBytes) return;
    text_.resize(bytes);
    text_.resize(read_at(object.file(), section.sh_offset, text_.data(), text_.size()));
  }
  /// Without its version.
  [[nodiscard]] std::string_view at(uint64_t offset) const {
    if (offset >= text_.size()) return {};
    const std::string_view rest = std::string_view(text_).substr(offset);
    static constexpr size_t kMostBytes = 128;
    return rest.substr(0, std::min(rest.substr(0, kMostBytes).find_first_of(std::string_view("@\0", 2)), kMostBytes));
  }

 private:
  std::string text_;
};

class Search {
 public:
  explicit Search(ElfObject& object) : object_(object), elf_(::elf_begin(object.file(), ELF_C_READ, nullptr)) {}
  ~Search() { ::elf_end(elf_); }
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  FoundAllocator run();

 private:
  void read_symbols(Elf_Scn* section, const GElf_Shdr& header);
  void add_symbol(const GElf_Sym& symbol, std::string_view name);
  void read_imports(Elf_Scn* section, const GElf_Shdr& header);
  [[nodiscard]] std::optional<Strings> strings_of(size_t section) const;
  [[nodiscard]] std::optional<uint64_t> offset_of(uint64_t vaddr) const;
  [[nodiscard]] bool goes_to(CodeWalker& walker, uint64_t vaddr, bool freeing) const;
  void add(FoundAllocator& found, CodeWalker& walker, uint64_t vaddr, AllocatorRole role) const;
  void add_new(FoundAllocator& found, CodeWalker& walker, uint64_t vaddr) const;

  ElfObject& object_;
  Elf* elf_;
  std::map<uint64_t, KnownName> functions_;            ///< by virtual address
  std::unordered_map<std::string, uint64_t> defined_;  ///< what others see of it
  std::map<uint64_t, CodeTarget> imports_;             ///< by slot
  bool defines_malloc_ = false;
  bool imports_malloc_ = false;
};

std::optional<Strings> Search::strings_of(size_t section) const {
  GElf_Shdr header;
  Elf_Scn* const strings = ::elf_getscn(elf_, section);
  if (strings == nullptr || ::gelf_getshdr(strings, &header) == nullptr) return std::nullopt;
  return Strings(object_, header);
}

std::optional<uint64_t> Search::offset_of(uint64_t vaddr) const {
  for (const LoadedSegment& segment : object_.segments()) {
    if (segment.executable && vaddr >= segment.vaddr && vaddr - segment.vaddr < segment.bytes) {
      return segment.offset + (vaddr - segment.vaddr);
    }
  }
  return std::nullopt;
}

void Search::read_symbols(Elf_Scn* section, const GElf_Shdr& header) {
  if (header.sh_entsize == 0 || (header.sh_flags & SHF_COMPRESSED) != 0 ||
      header.sh_size > kMaxSymbols * sizeof(Elf64_Sym)) {
    return;
  }
  const auto strings = strings_of(header.sh_link);
  Elf_Data* const data = strings ? ::elf_getdata(section, nullptr) : nullptr;
  if (data == nullptr) return;
  const auto count = static_cast<int>(std::min<uint64_t>(data->d_size / header.sh_entsize, kMaxSymbols));
  for (int i = 1; i < count; ++i) {
    GElf_Sym symbol;
    if (::gelf_getsym(data, i, &symbol) == nullptr) break;
    const std::string_view name = strings->at(symbol.st_name);
    add_symbol(symbol, name);
    // What goes through the procedure linkage table may come back to the object itself.
    if (header.sh_type == SHT_DYNSYM && symbol.st_shndx != SHN_UNDEF && defined_.size() < kMaxImports &&
        GELF_ST_TYPE(symbol.st_info) == STT_FUNC) {
      defined_.try_emplace(std::string(name), symbol.st_value);
    }
  }
}

void Search::add_symbol(const GElf_Sym& symbol, std::string_view name) {
  const auto type = GELF_ST_TYPE(symbol.st_info);
  // A local function of such a name is somebody's own.
  if ((type != STT_FUNC && type != STT_NOTYPE) || GELF_ST_BIND(symbol.st_info) == STB_LOCAL) return;
  const auto known = known_names().find(name);
  if (known == known_names().end()) return;
  const bool is_malloc = name == "malloc";
  if (symbol.st_shndx == SHN_UNDEF) {
    imports_malloc_ |= is_malloc;
    return;
  }
  if (type != STT_FUNC || symbol.st_shndx == SHN_ABS || !offset_of(symbol.st_value)) return;
  defines_malloc_ |= is_malloc;
  // Of several names of one place the plain C one tells more: it cannot throw.
  const auto [at, is_new] = functions_.try_emplace(symbol.st_value, known->second);
  if (!is_new && at->second.cxx) at->second = known->second;
}

void Search::read_imports(Elf_Scn* section, const GElf_Shdr& header) {
  GElf_Shdr symbols_header;
  Elf_Scn* const symbols_section = ::elf_getscn(elf_, header.sh_link);
  if (symbols_section == nullptr || ::gelf_getshdr(symbols_section, &symbols_header) == nullptr ||
      symbols_header.sh_type != SHT_DYNSYM || symbols_header.sh_size > kMaxSymbols * sizeof(Elf64_Sym) ||
      header.sh_entsize == 0 || header.sh_size > kMaxSymbols * sizeof(Elf64_Rela)) {
    return;
  }
  const auto strings = strings_of(symbols_header.sh_link);
  Elf_Data* const symbols = strings ? ::elf_getdata(symbols_section, nullptr) : nullptr;
  Elf_Data* const data = symbols != nullptr ? ::elf_getdata(section, nullptr) : nullptr;
  if (data == nullptr) return;
  const auto count = static_cast<int>(data->d_size / header.sh_entsize);
  for (int i = 0; i < count && imports_.size() < kMaxImports; ++i) {
    GElf_Rela relocation;
    GElf_Sym symbol;
    if (::gelf_getrela(data, i, &relocation) == nullptr) break;
    const auto type = GELF_R_TYPE(relocation.r_info);
    if (type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT) continue;
    const auto index = static_cast<int>(GELF_R_SYM(relocation.r_info));
    if (::gelf_getsym(symbols, index, &symbol) == nullptr) continue;
    CodeTarget target{0, std::string(strings->at(symbol.st_name))};
    if (const auto own = defined_.find(target.import); own != defined_.end()) target = {own->second, {}};
    imports_[relocation.r_offset] = std::move(target);
  }
}

// Whether the first thing that a function goes to is malloc and its like, or free and its like.
bool Search::goes_to(CodeWalker& walker, uint64_t vaddr, bool freeing) const {
  const auto target = walker.first_transfer(vaddr);
  if (!target) return false;
  const KnownName* known = nullptr;
  if (!target->import.empty()) {
    const auto name = known_names().find(target->import);
    if (name != known_names().end()) known = &name->second;
  } else if (const auto function = functions_.find(target->address); function != functions_.end()) {
    known = &function->second;
  }
  if (known == nullptr || known->role == AllocatorRole::kNew) return false;
  return (known->role == AllocatorRole::kFree) == freeing;
}

void Search::add(FoundAllocator& found, CodeWalker& walker, uint64_t vaddr, AllocatorRole role) const {
  CodeWalker::Entry entry{vaddr, true};
  if (walker.is_supported() && role != AllocatorRole::kNewReturn) entry = walker.entry(vaddr);
  const auto offset = offset_of(entry.address);
  if (offset) found.places.push_back({role, entry.stepped, *offset});
}

void Search::add_new(FoundAllocator& found, CodeWalker& walker, uint64_t vaddr) const {
  if (!walker.is_supported()) {
    found.uncounted_new = true;
    return;
  }
  if (goes_to(walker, vaddr, false)) return;
  const CodeWalker::Ends ends = walker.ends(vaddr);
  if (!ends.complete || ends.returns.empty()) found.uncounted_new = true;
  add(found, walker, vaddr, AllocatorRole::kNew);
  for (const uint64_t place : ends.returns) add(found, walker, place, AllocatorRole::kNewReturn);
}

FoundAllocator Search::run() {
  FoundAllocator found;
  GElf_Ehdr header;
  if (elf_ == nullptr || ::gelf_getehdr(elf_, &header) == nullptr || ::gelf_getclass(elf_) != ELFCLASS64) return found;
  for (Elf_Scn* section = nullptr; (section = ::elf_nextscn(elf_, section)) != nullptr;) {
    GElf_Shdr part;
    if (::gelf_getshdr(section, &part) == nullptr) continue;
    if (part.sh_type == SHT_SYMTAB || part.sh_type == SHT_DYNSYM) read_symbols(section, part);
  }
  if (functions_.empty()) return found;
  const bool is_x86_64 = header.e_machine == EM_X86_64;
  for (Elf_Scn* section = nullptr; is_x86_64 && (section = ::elf_nextscn(elf_, section)) != nullptr;) {
    GElf_Shdr part;
    if (::gelf_getshdr(section, &part) != nullptr && part.sh_type == SHT_RELA) read_imports(section, part);
  }
  CodeWalker walker(object_, imports_, is_x86_64);
  // Where the object takes malloc from elsewhere, its operators go there.
  const bool own_operators = defines_malloc_ || !imports_malloc_;
  for (const auto& [vaddr, function] : functions_) {
    if (!function.cxx) {
      add(found, walker, vaddr, function.role);
    } else if (own_operators && function.role == AllocatorRole::kNew) {
      add_new(found, walker, vaddr);
    } else if (own_operators && !(walker.is_supported() && goes_to(walker, vaddr, true))) {
      add(found, walker, vaddr, AllocatorRole::kFree);
    }
  }
  // One function's `ret` may be another's, and no place needs two probes of a kind.
  std::sort(found.places.begin(), found.places.end(), [](const AllocatorPlace& a, const AllocatorPlace& b) {
    return std::pair(a.offset, a.role) < std::pair(b.offset, b.role);
  });
  const auto twice = std::unique(found.places.begin(), found.places.end(),
                                 [](const AllocatorPlace& a, const AllocatorPlace& b) { return a.offset == b.offset; });
  found.places.erase(twice, found.places.end());
  return found;
}

}  // namespace

FoundAllocator find_allocator(ElfObject& object) { return Search(object).run(); }

}  // namespace stackwatch
