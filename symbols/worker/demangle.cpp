// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/demangle.h"

#include <cxxabi.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "symbols/worker/elf_object.h"
#include "symbols/worker/rust_v0.h"

namespace stackwatch {
namespace {

/// `17h` and 16 hexadecimal digits: the last part of a path in Rust's older mangling.
constexpr size_t kRustHashBytes = 19;

bool has_rust_hash(std::string_view symbol) {
  const size_t dot = symbol.find(".llvm.");  // added by its link-time optimization
  symbol = symbol.substr(0, dot);
  if (!symbol.starts_with("_ZN") || !symbol.ends_with("E") || symbol.size() < kRustHashBytes + 4) return false;
  const std::string_view hash = symbol.substr(symbol.size() - 1 - kRustHashBytes, kRustHashBytes);
  return hash.starts_with("17h") && hash.substr(3).find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// `$LT$` and the like at the front of `text`: what it stands for, and how long it is.
std::optional<std::pair<char, size_t>> rust_escape(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, char>, 8> kEscapes{{{"$LT$", '<'},
                                                                              {"$GT$", '>'},
                                                                              {"$LP$", '('},
                                                                              {"$RP$", ')'},
                                                                              {"$RF$", '&'},
                                                                              {"$BP$", '*'},
                                                                              {"$SP$", '@'},
                                                                              {"$C$", ','}}};
  for (const auto& [escape, character] : kEscapes) {
    if (text.starts_with(escape)) return std::pair(character, escape.size());
  }
  if (!text.starts_with("$u")) return std::nullopt;
  const size_t end = text.find('$', 2);
  if (end != 4) return std::nullopt;  // two digits: printable ASCII is all that is escaped in practice
  const std::string digits(text.substr(2, 2));
  char* stop = nullptr;
  const long code = std::strtol(digits.c_str(), &stop, 16);
  if (*stop != '\0' || code < 0x20 || code > 0x7e) return std::nullopt;
  return std::pair(static_cast<char>(code), size_t{5});
}

std::string unescape_rust(std::string_view path) {
  std::string out;
  bool part_begins = true;
  while (!path.empty()) {
    if (part_begins && path.starts_with("_$")) path.remove_prefix(1);
    part_begins = false;
    if (const auto escape = rust_escape(path)) {
      out += escape->first;
      path.remove_prefix(escape->second);
    } else if (path.starts_with("..") || path.starts_with("::")) {
      part_begins = path.front() == ':';
      out += "::";
      path.remove_prefix(2);
    } else {
      out += path.front();
      path.remove_prefix(1);
    }
  }
  return out;
}

}  // namespace

std::string demangle(const std::string& symbol) {
  static constexpr std::string_view kStub = "@plt";
  if (symbol.ends_with(kStub) && symbol.size() < kMaxRawNameBytes)
    return demangle(symbol.substr(0, symbol.size() - kStub.size())).append(kStub);
  if (symbol.starts_with("_R") && symbol.size() < kMaxRawNameBytes) return demangle_rust_v0(symbol).value_or(symbol);
  if (!symbol.starts_with("_Z") || symbol.size() >= kMaxRawNameBytes) return symbol;
  const bool rust = has_rust_hash(symbol);
  const std::string mangled = rust ? symbol.substr(0, symbol.find(".llvm.")) : symbol;
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> plain(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), &std::free);
  if (status != 0 || plain == nullptr) return symbol;
  std::string_view name = plain.get();
  if (!rust) return std::string(name);
  if (const size_t hash = name.rfind("::h"); hash != std::string_view::npos) name = name.substr(0, hash);
  return unescape_rust(name);
}

}  // namespace stackwatch
