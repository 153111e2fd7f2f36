// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"
#include "core/unwind_table.h"

/// Unwind tables against another reader of call-frame information: what `readelf --debug-dump=frames-interp` (binutils)
/// prints of the same file. For tests, and for bench/unwind_rows.cpp, which does it for every object below a root.
namespace stackwatch::interp {

/// How a register is found, as readelf prints it. It prints `u` both for "undefined" and for "nothing was said".
struct Cell {
  enum class How : uint8_t { kUnsaid, kSame, kOffset, kExpression, kOther };
  How how = How::kUnsaid;
  int64_t offset = 0;  ///< kOffset: bytes from the CFA
};

struct Rule {
  enum class Cfa : uint8_t { kStack, kFrame, kExpression, kOther };
  Cfa cfa = Cfa::kOther;
  int64_t offset = 0;  ///< kStack, kFrame: bytes
  Cell frame;          ///< rbp
  Cell ip;             ///< the return address
};

struct Row {
  uint64_t address = 0;
  Rule rule;
};

/// The code of one entry (FDE); its rows are in a common vector.
struct Entry {
  uint64_t start = 0;
  uint64_t end = 0;
  size_t first = 0;
  size_t count = 0;
  bool eh = false;  ///< of .eh_frame
};

/// Reads what readelf prints, line by line.
class Reader {
 public:
  void take(std::string_view line);
  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }
  [[nodiscard]] const std::vector<Row>& rows() const { return rows_; }

 private:
  /// What stands in which column of the rows that follow; words that are neither are left out.
  enum class Column : uint8_t { kOther, kFrame, kIp };
  void take_section(std::string_view line);
  void take_entry(const std::vector<std::string_view>& words);
  void take_row(const std::vector<std::string_view>& words);

  bool eh_ = false;
  bool in_cie_ = false;
  uint64_t offset_ = 0;                             ///< of the CIE under way
  std::map<std::pair<bool, uint64_t>, Rule> cies_;  ///< by section and offset
  std::vector<Column> columns_;
  std::vector<Entry> entries_;
  std::vector<Row> rows_;
};

/// How an object's table compares. A row is a stretch of code with one rule of readelf's.
struct Comparison {
  uint64_t rows = 0;           ///< all of readelf's that are in the object's code, but for those covered before
  uint64_t equal = 0;          ///< the same rule all over the stretch
  uint64_t expressions = 0;    ///< of these: readelf does not print the expression; ours is one of a fitting kind
  uint64_t inexpressible = 0;  ///< the format cannot say it and ours says so (kUnknown)
  uint64_t frame_lost =
      0;  ///< of the equal ones: the frame pointer is undefined, or where the format cannot say: ours says so
  uint64_t different = 0;             ///< all else: each is a bug
  uint64_t outside = 0;               ///< not in the object's executable segments: code that the linker left out
  uint64_t covered = 0;               ///< of entries whose code another entry has already
  std::vector<std::string> examples;  ///< of what is different, the first ones

  Comparison& operator+=(const Comparison& other);
};

/// `base` is the object's lowest address of code, which the table's addresses count from, `end` its end.
[[nodiscard]] Comparison compare(const Reader& theirs, const UnwindTable& ours, uint64_t base, uint64_t end);

/// Builds the table of a file and runs readelf on it. Errors: it cannot be read, has no table, or there is no readelf.
[[nodiscard]] Result<Comparison> compare_file(const std::string& path);

/// Whether readelf can be run.
[[nodiscard]] bool have_readelf();

}  // namespace stackwatch::interp
