// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/rust_v0.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <limits>
#include <utility>

namespace stackwatch {
namespace {

/// Types nest some twenty deep in real names; the parser is recursive and the stack has its end.
constexpr int kMaxDepth = 200;
/// Names are cut at 1,024 bytes later; what is far beyond is made up.
constexpr size_t kMaxText = 16 * 1024;
/// Parts of a name looked at; references back repeat parts, so the length of the name is no bound.
constexpr int kMaxSteps = 100'000;

std::string_view basic_type(char tag) {
  static constexpr std::array<std::pair<char, std::string_view>, 22> kTypes{
      {{'a', "i8"},   {'b', "bool"},  {'c', "char"},  {'d', "f64"}, {'e', "str"}, {'f', "f32"},
       {'h', "u8"},   {'i', "isize"}, {'j', "usize"}, {'l', "i32"}, {'m', "u32"}, {'n', "i128"},
       {'o', "u128"}, {'p', "_"},     {'s', "i16"},   {'t', "u16"}, {'u', "()"},  {'v', "..."},
       {'x', "i64"},  {'y', "u64"},   {'z', "!"},     {'\0', ""}}};
  for (const auto& [letter, name] : kTypes) {
    if (letter == tag) return name;
  }
  return {};
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::optional<std::string> run() {
    path(true);
    if (ok_ && at_ < text_.size() && is_path_tag(peek())) {  // the crate that instantiated it: of no interest
      const size_t length = out_.size();
      path(true);
      out_.resize(length);
    }
    return ok_ && at_ == text_.size() && !out_.empty() ? std::optional(std::move(out_)) : std::nullopt;
  }

 private:
  /// Counts how deep we are and what was done; past the bounds everything fails.
  struct Level {
    explicit Level(Parser& of) : parser(of) {
      if (++of.depth_ > kMaxDepth || ++of.steps_ > kMaxSteps || of.out_.size() > kMaxText) of.ok_ = false;
    }
    ~Level() { --parser.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    Parser& parser;
  };

  static bool is_path_tag(char tag) { return std::string_view("CMXYNIB").find(tag) != std::string_view::npos; }
  [[nodiscard]] char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  char next() {
    if (at_ >= text_.size()) ok_ = false;
    return ok_ ? text_[at_++] : '\0';
  }
  bool take(char wanted) {
    if (!ok_ || peek() != wanted) return false;
    ++at_;
    return true;
  }

  /// `_` is 0, `0_` is 1, …
  uint64_t base62() {
    if (take('_')) return 0;
    uint64_t value = 0;
    while (ok_ && !take('_')) {
      const char digit = next();
      unsigned number = 0;
      if (digit >= '0' && digit <= '9') {
        number = static_cast<unsigned>(digit - '0');
      } else if (digit >= 'a' && digit <= 'z') {
        number = static_cast<unsigned>(digit - 'a') + 10;
      } else if (digit >= 'A' && digit <= 'Z') {
        number = static_cast<unsigned>(digit - 'A') + 36;
      } else {
        ok_ = false;
      }
      if (value > std::numeric_limits<uint64_t>::max() / 62 - 62) ok_ = false;
      if (ok_) value = value * 62 + number;
    }
    return value + 1;
  }
  uint64_t disambiguator() { return take('s') ? base62() + 1 : 0; }

  /// Without its disambiguator.
  std::string identifier() {
    const bool punycode = take('u');
    size_t length = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), length);
    if (error != std::errc{}) ok_ = false;
    if (!ok_) return {};
    at_ += static_cast<size_t>(end - begin);
    take('_');
    if (length > text_.size() - at_) ok_ = false;
    if (!ok_) return {};
    const std::string name(text_.substr(at_, length));
    at_ += length;
    return punycode ? "punycode{" + name + "}" : name;
  }

  /// Goes on at an earlier place, then returns.
  template <class Part>
  void back_reference(Part part) {
    const size_t here = at_ - 1;  // of the B
    const uint64_t target = base62();
    if (!ok_ || target >= here) ok_ = false;
    if (!ok_) return;
    const size_t after = std::exchange(at_, static_cast<size_t>(target));
    part();
    at_ = after;
  }

  void path(bool in_value) {
    const Level level(*this);
    const char tag = next();
    if (!ok_) return;
    switch (tag) {
      case 'C':
        disambiguator();
        out_ += identifier();
        return;
      case 'N':
        return nested(in_value);
      case 'M':
      case 'X':
        implementation_path();
        [[fallthrough]];
      case 'Y':
        out_ += '<';
        type();
        if (tag != 'M') {
          out_ += " as ";
          path(false);
        }
        out_ += '>';
        return;
      case 'I':
        path(in_value);
        if (in_value) out_ += "::";
        out_ += '<';
        for (bool first = true; ok_ && !take('E'); first = false) {
          if (!first) out_ += ", ";
          generic_argument();
        }
        out_ += '>';
        return;
      case 'B':
        return back_reference([&] { path(in_value); });
      default:
        ok_ = false;
    }
  }

  /// Where an `impl` stands: read, not shown.
  void implementation_path() {
    disambiguator();
    const size_t length = out_.size();
    path(false);
    if (ok_) out_.resize(length);
  }

  void nested(bool in_value) {
    const char space = next();
    path(in_value);
    const uint64_t number = disambiguator();
    const std::string name = identifier();
    if (!ok_) return;
    if (space >= 'A' && space <= 'Z') {
      out_ += "::{";
      out_ += space == 'C' ? std::string("closure") : space == 'S' ? std::string("shim") : std::string(1, space);
      if (!name.empty()) out_ += ":" + name;
      out_ += "#" + std::to_string(number) + "}";
    } else if (!name.empty()) {
      out_ += "::" + name;
    }
  }

  void generic_argument() {
    if (take('L')) return lifetime(base62());
    if (take('K')) return constant();
    type();
  }

  void lifetime(uint64_t index) {
    out_ += '\'';
    if (index == 0) {
      out_ += '_';
    } else if (index > binders_) {
      ok_ = false;
    } else if (const uint64_t depth = binders_ - index; depth < 26) {
      out_ += static_cast<char>('a' + depth);
    } else {
      out_ += "_" + std::to_string(depth);
    }
  }

  /// `for<'a, 'b> `; returns how many lifetimes it brought.
  uint64_t binder() {
    if (!take('G')) return 0;
    const uint64_t count = base62() + 1;
    if (count > 64) ok_ = false;
    if (!ok_) return 0;
    out_ += "for<";
    for (uint64_t i = 0; i < count; ++i) {
      if (i > 0) out_ += ", ";
      ++binders_;
      lifetime(1);
    }
    out_ += "> ";
    return count;
  }

  void type() {
    const Level level(*this);
    const char tag = next();
    if (!ok_) return;
    if (const std::string_view basic = basic_type(tag); !basic.empty()) {
      out_ += basic;
      return;
    }
    switch (tag) {
      case 'A':
      case 'S':
        out_ += '[';
        type();
        if (tag == 'A') {
          out_ += "; ";
          constant();
        }
        out_ += ']';
        return;
      case 'T':
        return tuple();
      case 'R':
      case 'Q':
        return reference(tag == 'Q');
      case 'P':
      case 'O':
        out_ += tag == 'P' ? "*const " : "*mut ";
        return type();
      case 'F':
        return function();
      case 'D':
        return dynamic();
      case 'B':
        return back_reference([&] { type(); });
      default:
        --at_;
        path(false);
    }
  }

  void tuple() {
    out_ += '(';
    size_t count = 0;
    for (; ok_ && !take('E'); ++count) {
      if (count > 0) out_ += ", ";
      type();
    }
    out_ += count == 1 ? ",)" : ")";
  }

  void reference(bool is_mutable) {
    out_ += '&';
    if (take('L')) {
      if (const uint64_t index = base62(); index != 0) {
        lifetime(index);
        out_ += ' ';
      }
    }
    if (is_mutable) out_ += "mut ";
    type();
  }

  void function() {
    const uint64_t bound = binder();
    if (take('U')) out_ += "unsafe ";
    if (take('K')) {
      std::string abi = take('C') ? "C" : identifier();
      for (char& letter : abi) letter = letter == '_' ? '-' : letter;
      out_ += "extern \"" + abi + "\" ";
    }
    out_ += "fn(";
    for (bool first = true; ok_ && !take('E'); first = false) {
      if (!first) out_ += ", ";
      type();
    }
    out_ += ')';
    if (!take('u')) {
      out_ += " -> ";
      type();
    }
    binders_ -= bound;
  }

  void dynamic() {
    out_ += "dyn ";
    const uint64_t bound = binder();
    for (bool first = true; ok_ && !take('E'); first = false) {
      if (!first) out_ += " + ";
      dynamic_trait();
    }
    binders_ -= bound;
    if (!take('L')) ok_ = false;
    if (const uint64_t index = base62(); index != 0) {
      out_ += " + ";
      lifetime(index);
    }
  }

  /// A trait whose associated types join its generic arguments.
  void dynamic_trait() {
    path(false);
    bool open = false;
    while (ok_ && take('p')) {
      if (!open && out_.ends_with('>')) {
        out_.back() = ',';
        out_ += ' ';
      } else {
        out_ += open ? ", " : "<";
      }
      open = true;
      out_ += identifier() + " = ";
      type();
    }
    if (open) out_ += '>';
  }

  void constant() {
    const Level level(*this);
    if (take('B')) return back_reference([&] { constant(); });
    const char tag = next();
    if (tag == 'p') {
      out_ += '_';
      return;
    }
    const bool negative = take('n');
    const size_t begin = at_;
    while (ok_ && peek() != '_') next();
    if (!ok_) return;
    const std::string_view digits = text_.substr(begin, at_ - begin);
    take('_');
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    const bool fits = error == std::errc{} && end == digits.data() + digits.size();
    if (tag == 'b' && fits && value <= 1) {
      out_ += value == 1 ? "true" : "false";
    } else if (tag == 'c' && fits && value >= 0x20 && value < 0x7f) {
      out_ += {'\'', static_cast<char>(value), '\''};
    } else if (std::string_view("ahijlmnostxyc").find(tag) == std::string_view::npos) {
      ok_ = false;  // structures and strings as constants: not stable Rust
    } else {
      out_ += (negative ? "-" : "") + (fits ? std::to_string(value) : "0x" + std::string(digits));
    }
  }

  std::string_view text_;
  size_t at_ = 0;
  bool ok_ = true;
  int depth_ = 0;
  int steps_ = 0;
  uint64_t binders_ = 0;  ///< lifetimes bound around us
  std::string out_;
};

}  // namespace

std::optional<std::string> demangle_rust_v0(std::string_view symbol) {
  if (!symbol.starts_with("_R")) return std::nullopt;
  symbol.remove_prefix(2);
  symbol = symbol.substr(0, symbol.find_first_of(".$"));  // what later passes of the compiler added
  if (symbol.empty() || symbol.front() < 'A' || symbol.front() > 'Z') return std::nullopt;  // an encoding after ours
  return Parser(symbol).run();
}

}  // namespace stackwatch
