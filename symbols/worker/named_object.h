// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/result.h"
#include "core/unique_fd.h"
#include "symbols/protocol.h"
#include "symbols/worker/debug_info.h"
#include "symbols/worker/elf_object.h"

namespace stackwatch {

/// An ELF file of a stranger with the debug files that belong to it: all there is to say about a place in its code.
/// Debug information is read when the first place is asked for, and again after unload_debug().
class NamedObject {
 public:
  /// With `use_debug_info` false only symbol tables are looked at, whatever else there is.
  static Result<std::unique_ptr<NamedObject>> open(UniqueFd file, bool use_debug_info = true);

  /// Takes a debug file (kDebugFile, kLinkedFile) or dwz's file (kSupplementary). False where it is not this object's,
  /// tells nothing, or there is one already; then it is closed. Links in debug files to further debug files are not
  /// followed, so they cannot lead in a circle.
  bool use(protocol::FileKind kind, UniqueFd file);
  /// Build-id, and which file would tell more: a debug file as long as there is no debug information, then dwz's.
  void describe(protocol::ObjectInfo& info) const;
  /// Demangled and cleaned, with source and inlined calls where they are known. `index` is the caller's.
  [[nodiscard]] protocol::Name find(uint64_t file_offset);

  [[nodiscard]] ElfObject& elf() { return *elf_; }
  [[nodiscard]] size_t table_bytes() const { return elf_->table_bytes(); }
  void unload() { elf_->unload(); }
  /// What loading the debug information will take at least; 0 where it is loaded or there is none.
  [[nodiscard]] uint64_t debug_bytes_to_load() const { return debug_ || debug_failed_ ? 0 : debug_section_bytes_; }
  [[nodiscard]] size_t debug_bytes() const { return debug_ ? debug_->bytes() : 0; }
  /// What could not be loaded, for want of memory perhaps, is tried again too.
  void unload_debug() {
    debug_.reset();
    debug_failed_ = false;
  }

 private:
  explicit NamedObject(std::unique_ptr<ElfObject> elf) : elf_(std::move(elf)) {}
  [[nodiscard]] bool is_ours(int file, bool check_crc) const;
  [[nodiscard]] int debug_source() const { return debug_file_ ? debug_file_.get() : elf_->file(); }
  void add_source(protocol::Name& name, uint64_t vaddr);

  std::unique_ptr<ElfObject> elf_;
  bool use_debug_info_ = true;
  UniqueFd debug_file_;
  UniqueFd supplementary_;
  uint64_t debug_section_bytes_ = 0;  ///< of debug_source() and the supplementary file
  bool debug_failed_ = false;
  std::unique_ptr<DebugInfo> debug_;
};

}  // namespace stackwatch
