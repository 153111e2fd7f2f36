// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "capture/line_reader.h"
#include "core/result.h"

namespace stackwatch {

/// The first line of a sample in the text of `perf script`. Views into the line.
struct PerfHeader {
  std::string_view comm;
  std::optional<int32_t> pid;  ///< of the process, where the text has pid/tid
  int32_t tid = 0;
  std::optional<uint32_t> cpu;
  double time_s = 0;
  std::optional<uint64_t> period;
  std::string_view event;  ///< with its modifiers: "cpu-clock:ppp"
  std::string_view rest;  ///< behind the event: empty before a call chain, else its one frame, or a tracepoint's fields
};

/// `COMM [PID/]TID [[CPU]] SECONDS.FRACTION: [PERIOD] EVENT: …`. COMM may hold blanks, digits, colons and brackets, and
/// look like the beginning of what follows. Nothing where the line is none of these.
[[nodiscard]] std::optional<PerfHeader> parse_perf_header(std::string_view line);

/// One line of a call chain: `ADDRESS SYMBOL[+0xOFFSET] (OBJECT)`.
struct PerfFrame {
  std::string_view symbol;  ///< without its offset; "[unknown]"
  std::string_view object;  ///< a path or [NAME]; empty where unknown
  bool kernel = false;
};
[[nodiscard]] std::optional<PerfFrame> parse_perf_frame(std::string_view line);

/// What an event is called without modifiers and PMU: "cycles" of "cpu_core/cycles/P", "cpu-clock" of "cpu-clock:ppp".
/// Tracepoints keep both their parts.
[[nodiscard]] std::string_view perf_event_name(std::string_view event);

/// A sample: views that are valid until the next one is read.
struct PerfSample {
  PerfHeader header;
  struct Frame {
    std::string_view symbol;
    std::string_view object;
    bool kernel = false;
  };
  std::vector<Frame> frames;  ///< leaf first
  bool truncated = false;     ///< it had more frames than are kept
};

/// The samples of one event in the text of `perf script`, in constant memory.
class PerfScriptReader {
 public:
  struct Options {
    std::string event;            ///< empty: see pick_event()
    bool skip_bad_lines = false;  ///< count them instead of failing; a sample with one is left out
  };
  struct Counters {
    uint64_t samples = 0;
    uint64_t bad_lines = 0;
    uint64_t first_bad_line = 0;
    /// Samples of other events by name; at most kMaxSkippedNames of them, the rest under "others".
    std::map<std::string, uint64_t> skipped;
  };
  static constexpr size_t kMaxSkippedNames = 64;

  PerfScriptReader(std::unique_ptr<ByteSource> source, const std::string& name, Options options);

  /// The next sample of the event; nothing at the end. An error names the line, comes after all samples before it, and
  /// stays.
  [[nodiscard]] Result<std::optional<PerfSample>> next();
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] uint64_t line() const { return lines_.line(); }
  [[nodiscard]] Error problem(std::string why) const { return lines_.problem(std::move(why), kHint); }
  /// The caller refuses the last sample: counted like a bad line, or the error.
  [[nodiscard]] Result<void> refuse(std::string why);

 private:
  static constexpr const char* kHint = "what comes before it was read; --skip-bad-lines leaves such lines out";
  struct Span {
    size_t begin = 0;
    size_t size = 0;
  };
  struct HeldFrame {
    Span symbol;
    Span object;
    bool kernel = false;
  };
  enum class State : uint8_t { kBetween, kWanted, kUnwanted, kBad };

  [[nodiscard]] Result<bool> take_line(std::string_view line);
  [[nodiscard]] Result<bool> bad(std::string why);
  void begin(const PerfHeader& header);
  void add_frame(const PerfFrame& frame);
  void skip(std::string_view event);
  Span keep(std::string_view text);
  [[nodiscard]] PerfSample finished();
  [[nodiscard]] bool is_wanted(std::string_view event) const;

  LineReader lines_;
  Options options_;
  Counters counters_;
  State state_ = State::kBetween;
  std::string text_;  ///< what the sample under construction is made of
  PerfHeader header_;
  Span comm_;
  Span event_;
  std::vector<HeldFrame> frames_;
  bool truncated_ = false;
  std::string held_line_;  ///< a header that ended the sample before it
  bool holds_line_ = false;
  std::optional<Error> error_;
  std::string given_;  ///< text of the sample that was given last
};

/// Frequencies that a sampling clock may have.
inline constexpr double kLeastPerfHz = 0.1;
inline constexpr double kMostPerfHz = 1e6;

/// What the first megabytes of a text tell about all of it.
struct PerfScriptSurvey {
  std::map<std::string, uint64_t> events;  ///< samples by event as written
  std::string event;                       ///< the one to read, by its perf_event_name()
  std::optional<double> frequency_hz;      ///< how often a busy CPU is sampled
  std::string frequency_from;              ///< how that is known
  bool has_pids = false;                   ///< pid/tid, not tid alone
};

/// `wanted` empty: cpu-clock, task-clock, cycles or cpu-cycles, whichever comes first in this list, else the only event
/// there is. The frequency is that of the median period where the event counts nanoseconds (the clocks), else of the
/// median distance of two samples of one CPU. Error (kUsage): no event, or several that it cannot choose from.
[[nodiscard]] Result<PerfScriptSurvey> survey_perf_script(std::string_view front, const std::string& wanted);

}  // namespace stackwatch
