// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/unique_fd.h"
#include "symbols/worker/elf_segments.h"
#include "symbols/worker/linkage_stubs.h"
#include "symbols/worker/unwind_index.h"

namespace stackwatch {

/// Programs with all their debug information reach several GB; of such a file only the headers and tables are read.
inline constexpr uint64_t kMaxObjectFileBytes = 16ULL << 30;
/// Twice what the largest browsers have. At 16 bytes each here and 24 in the file, loading needs 80 MB.
inline constexpr uint64_t kMaxSymbols = 2'000'000;
/// The frame index of the same browsers has under a million entries of 8 bytes.
inline constexpr uint64_t kMaxUnwindEntries = 4'000'000;
/// Longest name as it stands in the file. Longer ones are cut (and not demangled).
inline constexpr size_t kMaxRawNameBytes = 4096;

/// What an object says about one place in its code.
struct FoundFunction {
  uint64_t start = 0;  ///< virtual address
  /// As in the symbol table; `name@plt`: the stub that leads to it. Empty where only call-frame information knows the
  /// function.
  std::string name;
};

/// One ELF file of a stranger. Nothing in it is believed: every offset and size is checked against the file and the
/// limits above. Reads with pread, so that a file that shrinks meanwhile is a short read and not a SIGBUS.
///
/// Which symbol is meant: those of type FUNC, IFUNC and (assembler) NOTYPE, of .symtab and .dynsym, that lie in
/// executable segments. The innermost that covers the address wins; a symbol without a size reaches to the end of its
/// call-frame entry, or where there is none to the next symbol. Of several at the same address: a function before
/// NOTYPE, with a size before without, not local before local, fewer leading underscores, the shorter name, then by
/// the alphabet: `malloc`, not `__libc_malloc`.
class ElfObject {
 public:
  /// Reads headers and build-id. Symbols are read at the first find().
  static Result<std::unique_ptr<ElfObject>> open(UniqueFd file);

  [[nodiscard]] const std::vector<std::byte>& build_id() const { return build_id_; }
  /// The function at an offset of the file; nothing where neither a symbol nor a call-frame entry covers it.
  [[nodiscard]] std::optional<FoundFunction> find(uint64_t file_offset);
  /// The code of the function (or of the part of one that was laid out apart) at an address, where call-frame
  /// information tells.
  [[nodiscard]] std::optional<UnwindRange> range_of(uint64_t vaddr);
  /// Where an offset of the file is in memory, as the object's own addresses go; nothing where no code is.
  [[nodiscard]] std::optional<uint64_t> vaddr_of(uint64_t file_offset) const;
  /// Also takes symbols from this file, the separate debug file of the same object; -1: none. It stays the caller's and
  /// open while the object is in use.
  void use_symbols_of(int debug_file);
  /// For the other readers of the same file.
  [[nodiscard]] int file() const { return file_.get(); }
  [[nodiscard]] uint64_t file_bytes() const { return file_bytes_; }
  [[nodiscard]] const std::vector<LoadedSegment>& segments() const { return segments_; }
  /// Memory that the tables take; 0 before the first find() and after unload().
  [[nodiscard]] size_t table_bytes() const;
  /// Gives the tables back; they are read again when they are needed.
  void unload();

 private:
  struct Symbol {
    uint64_t address = 0;
    uint32_t size = 0;
    uint32_t name : 28 = 0;  ///< offset in the string table
    uint32_t table : 2 = 0;  ///< a Table
    uint32_t no_type : 1 = 0;
    uint32_t local : 1 = 0;
  };
  static_assert(sizeof(Symbol) == 16);
  /// Where symbols come from, the preferred first.
  enum Table : uint8_t { kStatic, kDebugFile, kMini, kDynamic, kTables };
  struct StringTable {
    int file = -1;
    uint64_t offset = 0;
    uint64_t bytes = 0;
  };
  struct Handle;  ///< a libelf descriptor, closed with its scope

  explicit ElfObject(UniqueFd file) : file_(std::move(file)) {}
  bool read_headers(Handle& elf);
  void read_build_id(Handle& elf);
  [[nodiscard]] bool take_build_id(Handle& elf, uint64_t offset, uint64_t bytes, uint64_t align);
  void load();
  void read_symbols(int file, Table static_table, bool with_dynamic);
  void read_table(Handle& elf, void* section, int file, Table into);
  void settle_symbols();
  [[nodiscard]] bool is_code(uint64_t vaddr) const;
  [[nodiscard]] const Symbol* find_symbol(uint64_t vaddr, const std::optional<UnwindRange>& range) const;
  [[nodiscard]] std::string best_name(const Symbol& symbol) const;
  [[nodiscard]] std::string read_name(Table table, uint32_t offset) const;

  UniqueFd file_;
  uint64_t file_bytes_ = 0;
  std::vector<LoadedSegment> segments_;
  std::vector<std::byte> build_id_;
  std::optional<LoadedSegment> frame_header_;  ///< PT_GNU_EH_FRAME
  bool wide_ = true;                           ///< 64-bit addresses
  bool loaded_ = false;
  int debug_file_ = -1;
  UniqueFd mini_;  ///< MiniDebugInfo, unpacked
  size_t mini_bytes_ = 0;
  StringTable strings_[kTables];
  std::vector<Symbol> symbols_;
  LinkageStubs stubs_;
  UnwindIndex unwind_;
};

}  // namespace stackwatch
