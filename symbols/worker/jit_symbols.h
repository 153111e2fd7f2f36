// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "core/unique_fd.h"

namespace stackwatch {

/// Functions of one process's JIT kept; V8 and HotSpot write some 50,000 in a long life. When it is full, new ones are
/// not taken.
inline constexpr size_t kMaxJitFunctions = 400'000;
/// Their names together: 40 bytes each on average.
inline constexpr size_t kMaxJitNameBytes = 24U << 20;

/// What a JIT compiler tells about its code in a file that it goes on writing: perf's map (`START SIZE NAME` a line,
/// hexadecimal; tools/perf/Documentation/jit-interface.txt in Linux) or a jitdump (jitdump-specification.txt there).
/// Later entries replace earlier ones that they overlap: code is moved and thrown away. Lines and records that make no
/// sense are left out.
class JitSymbols {
 public:
  struct Found {
    uint64_t start = 0;
    std::string name;
  };

  explicit JitSymbols(UniqueFd file) : file_(std::move(file)) {}

  /// Reads what was appended since the last time; all anew where the file has become shorter.
  void refresh();
  /// The function at an address of the process, as of the last refresh().
  [[nodiscard]] std::optional<Found> find(uint64_t address) const;
  [[nodiscard]] size_t size() const { return functions_.size(); }
  [[nodiscard]] size_t table_bytes() const;
  void unload();

 private:
  struct Function {
    uint64_t end = 0;
    std::string name;
  };

  void read_lines(uint64_t end);
  void read_records(uint64_t end);
  void add_line(std::string_view line);
  [[nodiscard]] bool add_record(uint64_t at, uint32_t id, uint32_t bytes);
  void add(uint64_t start, uint64_t bytes, std::string_view name);

  UniqueFd file_;
  uint64_t position_ = 0;
  bool is_dump_ = false;
  bool broken_ = false;  ///< a jitdump whose records cannot be followed any further
  size_t name_bytes_ = 0;
  std::map<uint64_t, Function> functions_;  ///< by start; they do not overlap
};

}  // namespace stackwatch
