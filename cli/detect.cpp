// SPDX-License-Identifier: Apache-2.0
#include "cli/detect.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/output.h"
#include "detectors/series.h"
#include "detectors/series_csv.h"

namespace stackwatch {
namespace {

/// A thousand columns of twenty digits have 20 kB; what is longer is no series.
constexpr size_t kMaxLine = size_t{1} << 20U;
constexpr size_t kReadAtOnce = size_t{64} << 10U;

/// From lines to answers.
class Answers {
 public:
  explicit Answers(const std::vector<std::string>& columns) : csv_(columns) {}

  Result<void> take(std::string_view line) {
    if (!detector_) {
      if (auto read = csv_.read_header(line); !read) return read;
      detector_ = std::make_unique<SeriesDetector>(csv_.columns());
      return {};
    }
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      csv_.skip_line();
      return {};
    }
    const Result<SeriesRow> row = csv_.read_row(line);
    if (!row) return Failure(row.error());
    const double score = detector_->observe(row->values);
    // A timestamp with a comma in it is none, so no cell needs quotes.
    fmt::format_to(std::back_inserter(text_), "{},{:.6f}\n", row->timestamp, score);
    return {};
  }

  Result<void> write(int fd) {
    const Result<void> done = write_output(fd, text_);
    text_.clear();
    return done;
  }
  [[nodiscard]] bool has_header() const { return detector_ != nullptr; }

 private:
  SeriesCsv csv_;
  std::unique_ptr<SeriesDetector> detector_;
  std::string text_;
};

Result<void> take_lines(std::string& pending, Answers& answers) {
  size_t begin = 0;
  Result<void> done;
  for (size_t end = pending.find('\n'); done && end != std::string::npos; end = pending.find('\n', begin)) {
    done = answers.take(std::string_view(pending).substr(begin, end - begin));
    begin = end + 1;
  }
  pending.erase(0, begin);
  return done;
}

}  // namespace

Result<void> run_detect(const Options& options, int in_fd, int out_fd) {
  Answers answers(options.columns);
  std::string pending;
  std::vector<char> buffer(kReadAtOnce);
  for (;;) {
    const ssize_t count = read(in_fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno("read the series", errno);
    Result<void> done;
    if (count > 0) {
      pending.append(buffer.data(), static_cast<size_t>(count));
      done = take_lines(pending, answers);
    } else if (!pending.empty()) {
      done = answers.take(pending);  // the last line may lack its end
    }
    // What was understood is answered, whatever comes next.
    if (auto written = answers.write(out_fd); !written) return written;
    if (!done) return done;
    if (pending.size() > kMaxLine) {
      return fail("read the series", fmt::format("a line has more than {} bytes", kMaxLine), "it should be CSV");
    }
    if (count == 0) break;
  }
  if (!answers.has_header())
    return fail("read the series", "it is empty", "it begins with a line that names its columns");
  return {};
}

}  // namespace stackwatch
