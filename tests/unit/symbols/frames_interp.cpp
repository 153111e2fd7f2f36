// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/symbols/frames_interp.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>
#include <memory>
#include <optional>

#include "symbols/worker/elf_object.h"
#include "symbols/worker/unwind_builder.h"

namespace stackwatch::interp {
namespace {

constexpr int64_t kWord = 8;
constexpr size_t kMaxExamples = 8;
/// Between functions there may be this much padding that a table says nothing about: the builder's bound.
constexpr uint64_t kPaddingBytes = 64;

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (true) {
    const size_t start = line.find_first_not_of(' ');
    if (start == std::string_view::npos) return words;
    const size_t end = std::min(line.find(' ', start), line.size());
    // Registers are "r1 (rdx)".
    if (line[start] != '(') words.push_back(line.substr(start, end - start));
    line.remove_prefix(end);
  }
}

std::optional<uint64_t> hex(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// "+8", "-16".
std::optional<int64_t> signed_number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Cell parse_cell(std::string_view text) {
  if (text == "u") return {};
  if (text == "s") return {Cell::How::kSame, 0};
  if (text == "exp") return {Cell::How::kExpression, 0};
  if (text.starts_with('c')) {
    if (const auto offset = signed_number(text.substr(1))) return {Cell::How::kOffset, *offset};
  }
  return {Cell::How::kOther, 0};
}

void parse_cfa(std::string_view text, Rule& rule) {
  rule.cfa = text == "exp" ? Rule::Cfa::kExpression : Rule::Cfa::kOther;
  if (!text.starts_with("rsp") && !text.starts_with("rbp")) return;
  const auto offset = signed_number(text.substr(3));
  if (!offset) return;
  rule.cfa = text[1] == 's' ? Rule::Cfa::kStack : Rule::Cfa::kFrame;
  rule.offset = *offset;
}

}  // namespace

void Reader::take(std::string_view line) {
  if (line.starts_with("Contents of the ")) return take_section(line);
  const auto words = words_of(line);
  if (words.size() < 2) return;
  if (words.size() >= 4 && (words[3] == "CIE" || words[3] == "FDE")) return take_entry(words);
  if (words[0] == "LOC") {
    columns_.clear();
    for (const std::string_view name : words) {
      columns_.push_back(name == "rbp" ? Column::kFrame : name == "ra" ? Column::kIp : Column::kOther);
    }
    return;
  }
  take_row(words);
}

void Reader::take_section(std::string_view line) {
  eh_ = line.find(".eh_frame ") != std::string_view::npos;
  in_cie_ = false;
  columns_.clear();
}

// "OFFSET LENGTH ID CIE …" or "OFFSET LENGTH ID FDE cie=OFFSET pc=START..END". An entry that says nothing more than its
// CIE has no rows of its own.
void Reader::take_entry(const std::vector<std::string_view>& words) {
  in_cie_ = words[3] == "CIE";
  columns_.clear();
  if (in_cie_) {
    offset_ = hex(words[0]).value_or(0);
    return;
  }
  uint64_t cie = 0;
  Entry entry;
  entry.eh = eh_;
  for (const std::string_view word : words) {
    if (word.starts_with("cie=")) cie = hex(word.substr(4)).value_or(0);
    const size_t dots = word.find("..");
    if (!word.starts_with("pc=") || dots == std::string_view::npos) continue;
    entry.start = hex(word.substr(3, dots - 3)).value_or(0);
    entry.end = hex(word.substr(dots + 2)).value_or(0);
  }
  entry.first = rows_.size();
  if (const auto known = cies_.find({eh_, cie}); known != cies_.end()) {
    rows_.push_back({entry.start, known->second});
    entry.count = 1;
  }
  entries_.push_back(entry);
}

void Reader::take_row(const std::vector<std::string_view>& words) {
  const auto address = hex(words[0]);
  if (words[1] == "ZERO") return;  // "OFFSET ZERO terminator": of the section, no row
  if (columns_.empty() || !address || words.size() != columns_.size()) return;
  Rule rule;
  parse_cfa(words[1], rule);
  for (size_t i = 2; i < words.size(); ++i) {
    if (columns_[i] == Column::kFrame) rule.frame = parse_cell(words[i]);
    if (columns_[i] == Column::kIp) rule.ip = parse_cell(words[i]);
  }
  if (in_cie_) {
    cies_[{eh_, offset_}] = rule;
    return;
  }
  if (entries_.empty()) return;
  Entry& entry = entries_.back();
  if (entry.count > 0 && rows_.back().address == *address) {
    rows_.back().rule = rule;  // also the CIE's own rule at the entry's start
    return;
  }
  rows_.push_back({*address, rule});
  ++entry.count;
}

namespace {

enum class Verdict : uint8_t { kDifferent, kEqual, kExpression, kFrameLost, kInexpressible };

bool expressible_words(int64_t bytes) {
  return bytes % kWord == 0 && bytes / kWord >= std::numeric_limits<int16_t>::min() &&
         bytes / kWord <= std::numeric_limits<int16_t>::max();
}

bool frame_agrees(const Cell& theirs, const UnwindRule& ours) {
  static constexpr int64_t kMostWords = 0x3ff;
  switch (theirs.how) {
    case Cell::How::kUnsaid:  // kLost: DW_CFA_undefined, as rare as hand-written starts of threads
      return ours.frame == FrameKind::kSame || ours.frame == FrameKind::kLost;
    case Cell::How::kSame:
      return ours.frame == FrameKind::kSame;
    case Cell::How::kOffset: {
      const int64_t words = -theirs.offset / kWord;
      if (theirs.offset % kWord != 0 || words <= 0 || words > kMostWords) return ours.frame == FrameKind::kLost;
      return ours.frame == FrameKind::kSaved && ours.frame_words == words;
    }
    case Cell::How::kExpression:
      return ours.frame == FrameKind::kAt || ours.frame == FrameKind::kLost;
    case Cell::How::kOther:
      return ours.frame == FrameKind::kLost;
  }
  return false;
}

Verdict judge_expression(const Rule& theirs, const UnwindRule& ours) {
  if (ours.kind == UnwindKind::kUnknown) return Verdict::kInexpressible;
  if (theirs.ip.how == Cell::How::kExpression) {
    const bool fits = ours.kind == UnwindKind::kSignal && theirs.frame.how == Cell::How::kExpression;
    return fits ? Verdict::kExpression : Verdict::kDifferent;
  }
  const bool fits = theirs.ip.how == Cell::How::kOffset && theirs.ip.offset == -kWord &&
                    (ours.kind == UnwindKind::kPlt || ours.kind == UnwindKind::kStack ||
                     ours.kind == UnwindKind::kFrame || ours.kind == UnwindKind::kStackDeref ||
                     ours.kind == UnwindKind::kStackDerefNext || ours.kind == UnwindKind::kFrameDeref);
  return fits && frame_agrees(theirs.frame, ours) ? Verdict::kExpression : Verdict::kDifferent;
}

Verdict judge(const Rule& theirs, const UnwindRule& ours) {
  if (theirs.ip.how == Cell::How::kUnsaid) return ours.kind == UnwindKind::kEnd ? Verdict::kEqual : Verdict::kDifferent;
  if (theirs.cfa == Rule::Cfa::kExpression) return judge_expression(theirs, ours);
  const bool expressible = theirs.cfa != Rule::Cfa::kOther && expressible_words(theirs.offset) &&
                           theirs.ip.how == Cell::How::kOffset && theirs.ip.offset == -kWord;
  if (!expressible) return ours.kind == UnwindKind::kUnknown ? Verdict::kInexpressible : Verdict::kDifferent;
  const auto kind = theirs.cfa == Rule::Cfa::kStack ? UnwindKind::kStack : UnwindKind::kFrame;
  if (ours.kind != kind || ours.cfa_words * kWord != theirs.offset) return Verdict::kDifferent;
  if (!frame_agrees(theirs.frame, ours)) return Verdict::kDifferent;
  return ours.frame == FrameKind::kLost ? Verdict::kFrameLost : Verdict::kEqual;
}

std::string describe(const Rule& theirs, const UnwindRule& ours) {
  return fmt::format("readelf: CFA {}{:+} rbp {}{:+} ra {}{:+}; ours: kind {}{:+} words, rbp {} -{} words",
                     static_cast<int>(theirs.cfa), theirs.offset, static_cast<int>(theirs.frame.how),
                     theirs.frame.offset, static_cast<int>(theirs.ip.how), theirs.ip.offset,
                     static_cast<int>(ours.kind), ours.cfa_words, static_cast<int>(ours.frame), ours.frame_words);
}

/// Compares two functions from addresses to rules, stretch by stretch.
class Comparer {
 public:
  Comparer(const Reader& theirs, const UnwindTable& ours, uint64_t base, uint64_t end)
      : theirs_(theirs), ours_(ours), base_(base), end_(end) {}

  Comparison run() {
    uint64_t covered = base_;
    for (const Entry& entry : chosen()) {
      if (entry.start < covered) {
        result_.covered += entry.count;
        continue;
      }
      compare_gap(covered, entry.start);
      compare_entry(entry);
      covered = entry.end;
    }
    compare_gap(covered, end_);
    return std::move(result_);
  }

 private:
  // In ascending order: those of .eh_frame, and those of .debug_frame whose code none of .eh_frame has.
  std::vector<Entry> chosen() {
    std::vector<Entry> eh;
    std::vector<Entry> more;
    for (const Entry& entry : theirs_.entries()) {
      if (entry.start >= entry.end || entry.count == 0) continue;
      if (entry.start < base_ || entry.end > end_) {
        result_.outside += entry.count;
      } else {
        (entry.eh ? eh : more).push_back(entry);
      }
    }
    std::ranges::stable_sort(eh, {}, &Entry::start);
    const size_t known = eh.size();
    for (const Entry& entry : more) {
      const auto last = eh.begin() + static_cast<ptrdiff_t>(known);
      const auto after = std::upper_bound(eh.begin(), last, entry.start,
                                          [](uint64_t at, const Entry& other) { return at < other.start; });
      const bool inside = after != eh.begin() && std::prev(after)->end > entry.start;
      if (inside || (after != last && after->start < entry.end)) {
        result_.covered += entry.count;
      } else {
        eh.push_back(entry);
      }
    }
    std::ranges::stable_sort(eh, {}, &Entry::start);
    return eh;
  }

  // The row of ours that holds at an address; the place after it is `next`.
  UnwindRule rule_at(uint64_t address, size_t& next) const {
    const auto after = std::ranges::upper_bound(ours_.rows, address - base_, {}, &UnwindRow::address);
    next = static_cast<size_t>(after - ours_.rows.begin());
    return next == 0 ? UnwindRule{} : UnwindRule::unpack(ours_.rows[next - 1].rule);
  }

  void compare_entry(const Entry& entry) {
    for (size_t i = 0; i < entry.count; ++i) {
      const Row& row = theirs_.rows()[entry.first + i];
      const uint64_t end = i + 1 < entry.count ? theirs_.rows()[entry.first + i + 1].address : entry.end;
      if (row.address >= std::min(end, entry.end)) continue;
      compare_row(row, std::min(end, entry.end));
    }
  }

  void compare_row(const Row& row, uint64_t end) {
    ++result_.rows;
    size_t next = 0;
    UnwindRule ours = rule_at(row.address, next);
    Verdict verdict = judge(row.rule, ours);
    for (; next < ours_.rows.size() && ours_.rows[next].address < end - base_; ++next) {
      ours = UnwindRule::unpack(ours_.rows[next].rule);
      if (judge(row.rule, ours) != verdict) verdict = Verdict::kDifferent;
    }
    result_.expressions += verdict == Verdict::kExpression ? 1 : 0;
    result_.frame_lost += verdict == Verdict::kFrameLost ? 1 : 0;
    if (verdict == Verdict::kInexpressible) {
      ++result_.inexpressible;
    } else if (verdict == Verdict::kDifferent) {
      differ(row.address, describe(row.rule, ours));
    } else {
      ++result_.equal;
    }
  }

  // Where no entry is: nothing is known, but for padding.
  void compare_gap(uint64_t start, uint64_t end) {
    if (start >= end) return;
    size_t next = 0;
    const UnwindRule first = rule_at(start, next);
    if (end - start >= kPaddingBytes && first.kind != UnwindKind::kNone) differ(start, "ours has a rule where none is");
    for (; next < ours_.rows.size() && ours_.rows[next].address < end - base_; ++next) {
      if (UnwindRule::unpack(ours_.rows[next].rule).kind == UnwindKind::kNone) continue;
      differ(base_ + ours_.rows[next].address, "ours has a row where none is");
    }
  }

  void differ(uint64_t address, const std::string& how) {
    ++result_.different;
    if (result_.examples.size() < kMaxExamples) result_.examples.push_back(fmt::format("{:#x}: {}", address, how));
  }

  const Reader& theirs_;
  const UnwindTable& ours_;
  uint64_t base_;
  uint64_t end_;
  Comparison result_;
};

/// Runs readelf; nothing where that fails.
bool run_readelf(const std::string& path, Reader& reader) {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return false;
  UniqueFd output(ends[0]);
  UniqueFd input(ends[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, input.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  // N: of this file alone, not of its debug file.
  std::string program = "readelf";
  std::string option = "-wNF";
  std::string file = path;
  std::string locale = "LC_ALL=C";
  std::string search = std::string("PATH=") + (::getenv("PATH") != nullptr ? ::getenv("PATH") : "/usr/bin:/bin");
  std::array<char*, 4> arguments{program.data(), option.data(), file.data(), nullptr};
  std::array<char*, 3> environment{locale.data(), search.data(), nullptr};
  pid_t pid = -1;
  const int failed = ::posix_spawnp(&pid, "readelf", &actions, nullptr, arguments.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  input.reset();
  if (failed != 0) return false;
  std::string rest;
  std::vector<char> buffer(size_t{1} << 16U);
  for (;;) {
    const ssize_t got = ::read(output.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    rest.append(buffer.data(), static_cast<size_t>(got));
    size_t done = 0;
    for (size_t end = 0; (end = rest.find('\n', done)) != std::string::npos; done = end + 1) {
      reader.take(std::string_view(rest).substr(done, end - done));
    }
    rest.erase(0, done);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) != 127;
}

}  // namespace

Comparison& Comparison::operator+=(const Comparison& other) {
  rows += other.rows;
  equal += other.equal;
  expressions += other.expressions;
  inexpressible += other.inexpressible;
  frame_lost += other.frame_lost;
  different += other.different;
  outside += other.outside;
  covered += other.covered;
  return *this;
}

Comparison compare(const Reader& theirs, const UnwindTable& ours, uint64_t base, uint64_t end) {
  return Comparer(theirs, ours, base, end).run();
}

Result<Comparison> compare_file(const std::string& path) {
  static constexpr const char* kWhat = "compare call frames";
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail_errno(kWhat, errno);
  auto object = ElfObject::open(std::move(file));
  if (!object) return Failure(object.error());
  const auto table = build_unwind_table(**object);
  if (!table) return Failure(table.error());
  uint64_t base = std::numeric_limits<uint64_t>::max();
  uint64_t end = 0;
  for (const LoadedSegment& segment : (*object)->segments()) {
    if (!segment.executable) continue;
    base = std::min(base, segment.vaddr);
    end = std::max(end, segment.vaddr + segment.bytes);
  }
  Reader reader;
  if (!run_readelf(path, reader)) return fail(kWhat, "readelf cannot be run", "package binutils");
  return compare(reader, *table, base, end);
}

bool have_readelf() {
  Reader reader;
  return run_readelf("/dev/null", reader);
}

}  // namespace stackwatch::interp
