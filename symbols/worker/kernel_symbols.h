// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/unique_fd.h"

namespace stackwatch {

/// The functions of the running kernel and its modules, from /proc/kallsyms.
class KernelSymbols {
 public:
  /// A distribution's kernel with all modules has about 200,000 functions; past this the rest is left out.
  static constexpr size_t kMaxFunctions = 1'000'000;

  struct Found {
    uint64_t start = 0;
    std::string_view name;    ///< valid until the next load()
    std::string_view module;  ///< empty for the kernel itself; likewise
  };

  /// Reads all of it; what was read before is replaced. False where no address can be seen (no CAP_SYSLOG when the
  /// file was opened, or kptr_restrict).
  bool load(int file);
  /// The function at an address. Of several at one address the global one with the fewest leading underscores and the
  /// shortest name. kallsyms has no sizes: a function ends where the next begins, or after 1 MB.
  [[nodiscard]] std::optional<Found> find(uint64_t address) const;
  [[nodiscard]] size_t size() const { return functions_.size(); }
  [[nodiscard]] size_t bytes() const;

 private:
  struct Function {
    uint64_t address = 0;
    uint32_t name = 0;  ///< offset in names_
    uint16_t module = 0;
    uint8_t name_bytes = 0;
    bool local = false;
  };
  static_assert(sizeof(Function) == 16);

  void add_line(std::string_view line);
  [[nodiscard]] uint16_t module_index(std::string_view name);
  [[nodiscard]] std::string_view name_of(const Function& function) const;
  void settle();

  std::vector<Function> functions_;
  std::string names_;
  std::vector<std::string> modules_;
};

}  // namespace stackwatch
