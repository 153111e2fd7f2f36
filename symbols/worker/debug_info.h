// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// Debug sections of one object, uncompressed, together with its supplementary file. They are read into memory and not
/// mapped: a file that shrinks while it is read costs an answer and not the process, and what was checked stays as it
/// was. redis-server has 7 MB, postgres 25, a C++ program of 60 MB some 90; of larger ones only symbols are used: with
/// what is made of it, it must fit into [limits] memory (256 MB) beside the daemon, its maps and the tables of symbols.
inline constexpr uint64_t kMaxDebugBytes = 112ULL << 20;
/// Calls inlined into one place; templates nest some ten deep.
inline constexpr size_t kMaxInlinedCalls = 16;

/// One function at a place in the code, and where in its source that place is.
struct SourceFrame {
  std::string function;  ///< as linkers know it (mangled) where the compiler tells, else as in the source; may be empty
  std::string file;      ///< empty where unknown
  uint32_t line = 0;     ///< 0 where unknown
};

/// DWARF 2 to 5 of one object, read with libdw one compilation unit at a time, as they are asked for. Units are found
/// by the ranges in their own roots, since not all compilers write .debug_aranges. Split DWARF (.dwo) is not followed.
class DebugInfo {
 public:
  /// `file` has the debug sections, `supplementary` (-1: none) is what dwz moved out of it; both are only read during
  /// this call and while units are read, and stay the caller's. An error where there is nothing to read, or too much.
  static Result<std::unique_ptr<DebugInfo>> open(int file, int supplementary);
  ~DebugInfo();
  DebugInfo(const DebugInfo&) = delete;
  DebugInfo& operator=(const DebugInfo&) = delete;

  /// Who is at an address of the object: innermost first, the function that was really called last. Empty where no unit
  /// knows the address.
  [[nodiscard]] std::vector<SourceFrame> find(uint64_t vaddr);
  /// Memory in use: sections, and what was made of the units read so far.
  [[nodiscard]] size_t bytes() const;

 private:
  struct Reader;  ///< libdw's descriptors
  struct Function {
    uint64_t start = 0;
    uint64_t end = 0;
    uint64_t die = 0;  ///< offset of its entry
  };
  struct Unit {
    uint64_t die = 0;
    bool read = false;
    bool has_lines = false;
    std::vector<Function> functions;  ///< by start
  };
  struct Range {
    uint64_t start = 0;
    uint64_t end = 0;
    uint32_t unit = 0;
  };

  explicit DebugInfo(std::unique_ptr<Reader> reader);
  void index_units();
  void read_functions(Unit& unit);
  void collect_functions(void* die, Unit& unit, int depth);
  [[nodiscard]] Unit* find_unit(uint64_t vaddr);

  std::unique_ptr<Reader> reader_;
  std::vector<Unit> units_;
  std::vector<Range> ranges_;  ///< by start
  size_t visits_ = 0;          ///< entries looked at for the unit that is being read
  size_t read_bytes_ = 0;      ///< estimate of what libdw keeps of the units that were read
};

/// Sum of the debug sections of a file as they are when uncompressed; 0 where it has no .debug_info.
[[nodiscard]] uint64_t debug_section_bytes(int file);

}  // namespace stackwatch
