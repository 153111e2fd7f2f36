// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/kernel_symbols.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>
#include <tuple>

namespace stackwatch {
namespace {

/// Larger than any function, smaller than the gaps between the kernel and its modules.
constexpr uint64_t kMaxFunctionBytes = 1 << 20;

size_t leading_underscores(std::string_view name) { return std::min(name.find_first_not_of('_'), name.size()); }

}  // namespace

bool KernelSymbols::load(int file) {
  functions_.clear();
  names_.clear();
  modules_.assign(1, std::string());
  std::array<char, 64 * 1024> chunk;
  std::string rest;  // the beginning of a line whose end is in the next chunk
  for (;;) {
    const ssize_t got = ::read(file, chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    std::string_view text(chunk.data(), static_cast<size_t>(got));
    for (size_t end = 0; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
      if (rest.empty()) {
        add_line(text.substr(0, end));
      } else {
        add_line(rest.append(text.substr(0, end)));
        rest.clear();
      }
    }
    if (rest.size() > chunk.size()) rest.clear();  // not a line of kallsyms
    rest.append(text);
  }
  settle();
  return !functions_.empty();
}

/// `ffffffff81000000 T _stext` or `ffffffffc0201000 t helper\t[module]`; only text symbols are taken.
void KernelSymbols::add_line(std::string_view line) {
  Function function;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), function.address, 16);
  line.remove_prefix(static_cast<size_t>(end - line.data()));
  if (error != std::errc{} || function.address == 0 || line.size() < 4 || line[0] != ' ' || line[2] != ' ') return;
  const char type = line[1];
  if (type != 't' && type != 'T' && type != 'w' && type != 'W') return;
  line.remove_prefix(3);
  const size_t tab = line.find('\t');
  const std::string_view name = line.substr(0, tab);
  if (name.empty() || functions_.size() >= kMaxFunctions || names_.size() > std::numeric_limits<uint32_t>::max() / 2) {
    return;
  }
  if (tab != std::string_view::npos && line.size() > tab + 3 && line[tab + 1] == '[' && line.back() == ']') {
    function.module = module_index(line.substr(tab + 2, line.size() - tab - 3));
  }
  function.name = static_cast<uint32_t>(names_.size());
  function.name_bytes = static_cast<uint8_t>(std::min<size_t>(name.size(), std::numeric_limits<uint8_t>::max()));
  function.local = type == 't';
  names_ += name.substr(0, function.name_bytes);
  functions_.push_back(function);
}

uint16_t KernelSymbols::module_index(std::string_view name) {
  // Lines of a module follow each other, so the last one is nearly always it.
  const auto known = std::find(modules_.rbegin(), modules_.rend(), name);
  if (known != modules_.rend()) return static_cast<uint16_t>(modules_.rend() - known - 1);
  if (modules_.size() > std::numeric_limits<uint16_t>::max() / 8) return 0;
  modules_.emplace_back(name);
  return static_cast<uint16_t>(modules_.size() - 1);
}

std::string_view KernelSymbols::name_of(const Function& function) const {
  return std::string_view(names_).substr(function.name, function.name_bytes);
}

void KernelSymbols::settle() {
  const auto rank = [this](const Function& function) {
    const std::string_view name = name_of(function);
    return std::tuple(function.address, function.local, leading_underscores(name), name.size(), name);
  };
  std::sort(functions_.begin(), functions_.end(),
            [&rank](const Function& a, const Function& b) { return rank(a) < rank(b); });
  const auto duplicates = std::unique(functions_.begin(), functions_.end(),
                                      [](const Function& a, const Function& b) { return a.address == b.address; });
  functions_.erase(duplicates, functions_.end());
  functions_.shrink_to_fit();
  names_.shrink_to_fit();
  ::malloc_trim(0);  // growing left as much behind as is kept
}

std::optional<KernelSymbols::Found> KernelSymbols::find(uint64_t address) const {
  const auto after =
      std::upper_bound(functions_.begin(), functions_.end(), address,
                       [](uint64_t value, const Function& function) { return value < function.address; });
  if (after == functions_.begin()) return std::nullopt;
  const Function& function = *std::prev(after);
  if (address - function.address >= kMaxFunctionBytes) return std::nullopt;
  return Found{function.address, name_of(function), modules_[function.module]};
}

size_t KernelSymbols::bytes() const { return functions_.capacity() * sizeof(Function) + names_.capacity(); }

}  // namespace stackwatch
