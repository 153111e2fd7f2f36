// SPDX-License-Identifier: Apache-2.0
#include "capture/perf_script.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "capture/records.h"

namespace stackwatch {
namespace {

/// Names of C++ functions can be thousands of bytes long; lines of perf are not bounded by themselves.
constexpr size_t kMaxLineBytes = size_t{64} << 10U;
/// As the daemon's own names (symbols/protocol.h).
constexpr size_t kMaxNameBytes = 1024;
/// Names of tasks in the kernel have 15 bytes; some kernel workers are shown with more.
constexpr size_t kCommBytes = 15;
constexpr size_t kMaxCommBytes = 64;

bool is_blank(char c) { return c == ' ' || c == '\t'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && (is_blank(text.back()) || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

/// Takes pieces off the front of a text; each says whether it was there, and leaves the text as it is otherwise.
class Scan {
 public:
  explicit Scan(std::string_view text) : rest_(text) {}

  bool skip(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool blanks() {
    const size_t before = rest_.size();
    while (!rest_.empty() && is_blank(rest_.front())) rest_.remove_prefix(1);
    return rest_.size() < before;
  }
  template <class T>
  bool number(T& value, int base = 10) {
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value, base);
    if (error != std::errc()) return false;
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return true;
  }
  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

/// `SECONDS.FRACTION:`, six digits or nine.
bool scan_time(Scan& scan, double& time_s) {
  uint64_t seconds = 0;
  if (!scan.number(seconds) || seconds > 4'000'000'000 || !scan.skip('.')) return false;
  const std::string_view before = scan.rest();
  uint64_t fraction = 0;
  if (before.empty() || !is_digit(before.front()) || !scan.number(fraction)) return false;
  const size_t digits = before.size() - scan.rest().size();
  if (digits > 9 || !scan.skip(':')) return false;
  static constexpr std::array<double, 10> kScale = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};
  time_s = static_cast<double>(seconds) + static_cast<double>(fraction) / kScale[digits];
  return true;
}

/// `[PERIOD] EVENT: rest`.
bool scan_event(Scan scan, PerfHeader& header) {
  uint64_t period = 0;
  Scan behind = scan;
  if (behind.number(period) && behind.blanks()) {
    header.period = period;
    scan = behind;
  }
  const std::string_view rest = scan.rest();
  // An event has no blanks; the colon that ends it is followed by one, or by nothing.
  const size_t blank = std::min(rest.find_first_of(" \t\r"), rest.size());
  if (blank < 2 || rest[blank - 1] != ':') return false;
  header.event = rest.substr(0, blank - 1);
  header.rest = trim(rest.substr(blank));
  return true;
}

/// `[PID/]TID [[CPU]] TIME: …` at the beginning of a text.
bool scan_behind_comm(std::string_view text, PerfHeader& header) {
  header = PerfHeader{};
  Scan scan(text);
  int32_t first = 0;
  if (!scan.number(first)) return false;
  header.tid = first;
  if (scan.skip('/')) {
    header.pid = first;
    if (!scan.number(header.tid)) return false;
  }
  if (!scan.blanks()) return false;
  if (scan.skip('[')) {
    uint32_t cpu = 0;
    if (!scan.number(cpu) || !scan.skip(']') || !scan.blanks()) return false;
    header.cpu = cpu;
  }
  if (!scan_time(scan, header.time_s)) return false;
  scan.blanks();
  return scan_event(scan, header);
}

/// Where the object's parenthesis begins, in a text that ends in ')'; npos where there is none.
size_t object_begin(std::string_view text) {
  int depth = 0;
  for (size_t i = text.size(); i > 0; --i) {
    if (text[i - 1] == ')') ++depth;
    if (text[i - 1] == '(' && --depth == 0) {
      return i > 1 && is_blank(text[i - 2]) ? i - 1 : std::string_view::npos;
    }
  }
  const size_t at = text.rfind(" (");  // a path with a parenthesis of its own
  return at == std::string_view::npos ? at : at + 1;
}

std::string_view without_offset(std::string_view symbol) {
  const size_t at = symbol.rfind("+0x");
  if (at == std::string_view::npos || at == 0) return symbol;
  const std::string_view digits = symbol.substr(at + 3);
  const bool hex = !digits.empty() && digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  return hex ? symbol.substr(0, at) : symbol;
}

bool is_kernel(std::string_view object, uint64_t address) {
  constexpr uint64_t kVsyscall = 0xffffffffff600000;
  constexpr uint64_t kUpperHalf = 0x8000000000000000;
  if (object == "[vsyscall]" || (address & ~uint64_t{0xfff}) == kVsyscall) return false;
  if (object.starts_with("[kernel") || object.starts_with("[guest.kernel") || object == "[k]") return true;
  if (object.ends_with(".ko") || object.find(".ko.") != std::string_view::npos) return true;
  // Modules are shown as [NAME], programs of BPF by the name of their symbol: both lie in the upper half.
  return !object.starts_with('/') && address >= kUpperHalf;
}

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

bool counts_nanoseconds(std::string_view event) { return event == "cpu-clock" || event == "task-clock"; }

}  // namespace

std::optional<PerfHeader> parse_perf_header(std::string_view line) {
  size_t begin = 0;
  while (begin < line.size() && is_blank(line[begin])) ++begin;
  std::optional<PerfHeader> best;
  // Each blank may be the one behind the name. Where several fit the last one that leaves a name of 15 bytes is right:
  // what comes before it is part of the name.
  for (size_t at = begin; at < line.size() && at - begin <= kMaxCommBytes + 1; ++at) {
    const bool signed_number = line[at] == '-' && at + 1 < line.size() && is_digit(line[at + 1]);
    if ((!is_digit(line[at]) && !signed_number) || (at > begin && !is_blank(line[at - 1]))) continue;
    PerfHeader header;
    if (!scan_behind_comm(line.substr(at), header)) continue;
    header.comm = trim(line.substr(begin, at - begin));
    if (best && header.comm.size() > kCommBytes) break;
    best = header;
  }
  return best;
}

std::optional<PerfFrame> parse_perf_frame(std::string_view line) {
  line = trim(line);
  Scan scan(line);
  uint64_t address = 0;
  if (!scan.number(address, 16) || !scan.blanks()) return std::nullopt;
  const std::string_view rest = scan.rest();
  if (rest.empty()) return std::nullopt;
  PerfFrame frame;
  const size_t at = rest.ends_with(')') ? object_begin(rest) : std::string_view::npos;
  if (at == std::string_view::npos) {
    frame.symbol = without_offset(rest);  // printed without objects
  } else {
    frame.symbol = without_offset(trim(rest.substr(0, at)));
    frame.object = rest.substr(at + 1, rest.size() - at - 2);
  }
  if (frame.object == "[unknown]" || frame.object == "inlined") frame.object = {};
  frame.kernel = is_kernel(frame.object, address);
  if (frame.symbol.empty()) frame.symbol = "[unknown]";
  return frame;
}

std::string_view perf_event_name(std::string_view event) {
  if (const size_t slash = event.find('/'); slash != std::string_view::npos) {  // PMU/event,terms/modifiers
    event = event.substr(slash + 1);
    return event.substr(0, event.find_first_of("/,"));
  }
  const size_t colon = event.rfind(':');
  if (colon == std::string_view::npos) return event;
  const bool modifiers = event.substr(colon + 1).find_first_not_of("ukhHGIpPSDeWb") == std::string_view::npos;
  return modifiers ? event.substr(0, colon) : event;
}

PerfScriptReader::PerfScriptReader(std::unique_ptr<ByteSource> source, const std::string& name, Options options)
    : lines_(std::move(source), name, kMaxLineBytes), options_(std::move(options)) {}

bool PerfScriptReader::is_wanted(std::string_view event) const {
  return event == options_.event || perf_event_name(event) == options_.event;
}

Result<std::optional<PerfSample>> PerfScriptReader::next() {
  if (error_) return Failure(*error_);
  for (;;) {
    if (std::exchange(holds_line_, false)) {
      const std::string line = std::move(held_line_);
      auto whole = take_line(line);
      if (!whole) return Failure(whole.error());
      if (*whole) return std::optional(finished());
      continue;
    }
    auto line = lines_.next();
    if (!line) {
      error_ = line.error();
      return Failure(*error_);
    }
    if (!line->has_value()) {
      if (state_ != State::kWanted) return std::optional<PerfSample>();
      state_ = State::kBetween;
      return std::optional(finished());
    }
    if (lines_.is_cut()) {
      if (auto told = bad("the text ends in the middle of a line"); !told) return Failure(told.error());
      continue;
    }
    auto whole = take_line(**line);
    if (!whole) return Failure(whole.error());
    if (*whole) return std::optional(finished());
  }
}

// True where a sample is complete.
Result<bool> PerfScriptReader::take_line(std::string_view line) {
  const bool blank = trim(line).empty();
  if (blank) return std::exchange(state_, State::kBetween) == State::kWanted;
  if (state_ == State::kBad) return false;
  if (state_ != State::kBetween) {
    if (const auto frame = parse_perf_frame(line); frame && is_blank(line.front())) {
      if (state_ == State::kWanted) add_frame(*frame);
      return false;
    }
  }
  if (line.front() == '#') return false;
  const auto header = parse_perf_header(line);
  if (!header) {
    return bad(state_ == State::kBetween ? "it is neither the first line of a sample nor blank"
                                         : "it is no frame: ADDRESS SYMBOL (OBJECT)");
  }
  if (state_ == State::kWanted) {  // the sample before it had no blank line behind it
    held_line_ = line;
    holds_line_ = true;
    state_ = State::kBetween;
    return true;
  }
  begin(*header);
  return false;
}

// What follows the event is a frame (without call chains), or fields of a tracepoint; a call chain may follow these.
void PerfScriptReader::begin(const PerfHeader& header) {
  if (!is_wanted(header.event)) {
    skip(header.event);
    state_ = State::kUnwanted;
    return;
  }
  text_.clear();
  frames_.clear();
  truncated_ = false;
  header_ = header;
  comm_ = keep(header.comm);
  event_ = keep(header.event);
  state_ = State::kWanted;
  if (const auto frame = parse_perf_frame(header.rest)) add_frame(*frame);
}

Result<bool> PerfScriptReader::bad(std::string why) {
  if (!options_.skip_bad_lines) {
    error_ = problem(std::move(why));
    return Failure(*error_);
  }
  if (counters_.bad_lines++ == 0) counters_.first_bad_line = lines_.line();
  state_ = State::kBad;  // until a blank line: what follows may belong to it
  return false;
}

Result<void> PerfScriptReader::refuse(std::string why) {
  const State state = state_;
  auto told = bad(std::move(why));
  state_ = state;
  if (!told) return Failure(told.error());
  return {};
}

PerfScriptReader::Span PerfScriptReader::keep(std::string_view text) {
  const Span span{text_.size(), std::min(text.size(), kMaxNameBytes)};
  text_ += text.substr(0, span.size);
  return span;
}

void PerfScriptReader::add_frame(const PerfFrame& frame) {
  if (frames_.size() == kMaxCaptureFrames) {
    truncated_ = true;
    return;
  }
  frames_.push_back({keep(frame.symbol), keep(frame.object), frame.kernel});
}

void PerfScriptReader::skip(std::string_view event) {
  const std::string name(event.substr(0, kMaxNameBytes));
  const bool room = counters_.skipped.size() < kMaxSkippedNames || counters_.skipped.contains(name);
  ++counters_.skipped[room ? name : "others"];
}

PerfSample PerfScriptReader::finished() {
  ++counters_.samples;
  given_.swap(text_);  // the sample's views stay valid while the next one is read
  const auto view = [this](Span span) { return std::string_view(given_).substr(span.begin, span.size); };
  PerfSample sample;
  sample.header = header_;
  sample.header.comm = view(comm_);
  sample.header.event = view(event_);
  sample.header.rest = {};
  sample.truncated = truncated_;
  sample.frames.reserve(frames_.size());
  for (const HeldFrame& frame : frames_)
    sample.frames.push_back({view(frame.symbol), view(frame.object), frame.kernel});
  return sample;
}

namespace {

/// The event to read where several may be in a text.
Result<std::string> pick_event(const std::map<std::string, uint64_t>& events, const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  for (const char* event : {"cpu-clock", "task-clock", "cycles", "cpu-cycles"}) {
    if (std::ranges::any_of(events, [&](const auto& known) { return perf_event_name(known.first) == event; })) {
      return std::string(event);
    }
  }
  if (events.size() == 1) return events.begin()->first;
  constexpr size_t kListed = 8;
  std::string listed;
  size_t count = 0;
  for (const auto& [name, samples] : events) {
    if (count++ < kListed) listed += (listed.empty() ? "" : ", ") + name;
  }
  if (count > kListed) listed += " and " + std::to_string(count - kListed) + " more";
  return fail(ErrorKind::kUsage, "import", "there are several events: " + listed, "choose one with --event");
}

void find_frequency(const std::vector<PerfHeader>& headers, PerfScriptSurvey& survey) {
  std::vector<double> periods;
  std::vector<double> gaps;
  std::unordered_map<uint32_t, double> last;
  for (const PerfHeader& header : headers) {
    if (header.event != survey.event && perf_event_name(header.event) != survey.event) continue;
    if (header.period && *header.period > 0) periods.push_back(static_cast<double>(*header.period));
    if (!header.cpu) continue;
    const auto [entry, is_new] = last.try_emplace(*header.cpu, header.time_s);
    const double gap = header.time_s - std::exchange(entry->second, header.time_s);
    if (!is_new && gap > 0) gaps.push_back(gap);
  }
  constexpr size_t kFew = 20;
  if (counts_nanoseconds(perf_event_name(survey.event)) && !periods.empty()) {
    survey.frequency_hz = 1e9 / median(periods);
    survey.frequency_from = "the period of the samples";
  } else if (gaps.size() >= kFew) {
    survey.frequency_hz = 1 / median(gaps);
    survey.frequency_from = "the distance of samples on one CPU";
  }
  // Numbers that no clock of perf has say that they mean something else.
  const double hz = survey.frequency_hz.value_or(0);
  if (hz < kLeastPerfHz || hz > kMostPerfHz) survey.frequency_hz.reset();
}

}  // namespace

Result<PerfScriptSurvey> survey_perf_script(std::string_view front, const std::string& wanted) {
  PerfScriptSurvey survey;
  std::vector<PerfHeader> headers;
  constexpr size_t kEnough = 20'000;
  for (size_t at = 0; at < front.size() && headers.size() < kEnough;) {
    const size_t end = front.find('\n', at);
    if (end == std::string_view::npos) break;
    const std::string_view line = front.substr(at, end - at);
    at = end + 1;
    if (line.empty() || line.front() == '\t' || line.front() == '#' || line.size() > kMaxLineBytes) continue;
    const auto header = parse_perf_header(line);
    if (!header) continue;
    ++survey.events[std::string(header->event.substr(0, kMaxNameBytes))];
    survey.has_pids |= header->pid.has_value();
    headers.push_back(*header);
  }
  if (survey.events.empty()) {
    return fail(ErrorKind::kFailed, "import", "there are no samples as `perf script` prints them",
                "perf record -a -g -F 997, then perf script");
  }
  auto event = pick_event(survey.events, wanted);
  if (!event) return Failure(event.error());
  survey.event = std::move(*event);
  find_frequency(headers, survey);
  return survey;
}

}  // namespace stackwatch
