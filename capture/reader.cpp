// SPDX-License-Identifier: Apache-2.0
#include "capture/reader.h"

#include <rapidjson/error/en.h>

#include <utility>

#include "capture/line_reader.h"
#include "capture/parse_record.h"
#include "core/exact_json.h"
#include "core/time_text.h"

namespace stackwatch {
namespace {

constexpr const char* kHint = "what comes before it was read";

using Document = rapidjson::Document;

std::optional<CaptureHeader> read_header(JsonFields& fields) {
  CaptureHeader header;
  const int64_t version = fields.integer("version", 1, 1'000'000);
  if (version > 1) fields.complain("version", std::to_string(version) + " is newer than this program");
  const auto started_ns = parse_time(fields.text("started"), ZonelessTime::kRefused);
  if (!started_ns && fields.has("started")) fields.complain("started", "is no time in ISO 8601 with a zone");
  // The text has microseconds.
  header.started_ns = fields.has("started_ns") ? fields.count("started_ns") : started_ns.value_or(0);
  header.host = fields.text("host");
  if (fields.has("tick_s")) header.tick_s = fields.number("tick_s", 86400);
  if (!(header.tick_s >= 1e-3)) fields.complain("tick_s", "is shorter than a millisecond");
  header.origin_s = fields.maybe_integer("origin_s", 0, 4'000'000'000, 0);
  header.marks_ticks = fields.flag("marks_ticks");
  if (!fields.problem().empty()) return std::nullopt;
  return header;
}

}  // namespace

struct CaptureReader::Impl {
  Impl(std::unique_ptr<ByteSource> source, const std::string& name)
      : lines(std::move(source), name, kMaxCaptureLineBytes) {}

  Failure broken(std::string why) {
    error = lines.problem("broken line: " + std::move(why), kHint);
    return Failure(*error);
  }
  Result<bool> read_line();
  Result<void> read_first();
  Result<std::optional<CaptureRecord>> read_record();

  LineReader lines;
  CaptureHeader header;
  rapidjson::MemoryPoolAllocator<> memory;
  std::optional<Document> document;
  std::optional<Error> error;
};

// False at the end. A blank line has no type and is left to the parser, which says so.
Result<bool> CaptureReader::Impl::read_line() {
  auto text = lines.next();
  if (!text) {
    error = text.error();
    return Failure(*error);
  }
  if (!text->has_value()) return false;
  document.reset();
  memory.Clear();
  document.emplace(&memory);
  if (const auto parsed = parse_exact(**text, *document); parsed.IsError()) {
    if (lines.is_cut()) return broken("the capture ends in the middle of it");
    return broken(std::string(rapidjson::GetParseError_En(parsed.Code())) + " (column " +
                  std::to_string(parsed.Offset() + 1) + ")");
  }
  if (!document->IsObject()) return broken("it is no JSON object");
  return true;
}

Result<void> CaptureReader::Impl::read_first() {
  constexpr const char* kNoCapture = "it is no capture: its first line is not {\"type\":\"capture\",…}";
  const auto any = read_line();
  if (!any && lines.line() != 1) return Failure(any.error());
  if (!any) return Failure(lines.problem(kNoCapture));
  if (!*any) return fail("read " + lines.name(), "it is empty");
  JsonFields fields(*document);
  if (fields.text("type") != "capture") return Failure(lines.problem(kNoCapture));
  const auto read = read_header(fields);
  if (!read) return broken(fields.problem());
  header = *read;
  return {};
}

Result<std::optional<CaptureRecord>> CaptureReader::Impl::read_record() {
  if (error) return Failure(*error);
  for (;;) {
    auto any = read_line();
    if (!any) return Failure(any.error());
    if (!*any) return std::optional<CaptureRecord>();
    JsonFields fields(*document);
    if (!fields.has("type")) fields.complain("type", "is missing");
    const std::string type = fields.text("type");
    if (type == "capture") return broken("another capture begins here");
    auto record = parse_record(type, fields);
    if (!fields.problem().empty()) return broken(fields.problem());
    if (record) return record;
  }
}

CaptureReader::CaptureReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CaptureReader::~CaptureReader() = default;
CaptureReader::CaptureReader(CaptureReader&&) noexcept = default;
CaptureReader& CaptureReader::operator=(CaptureReader&&) noexcept = default;

Result<CaptureReader> CaptureReader::open(const std::string& path) {
  auto file = open_file(path);
  if (!file) return Failure(file.error());
  return create(std::move(*file), path == "-" ? "standard input" : path);
}

Result<CaptureReader> CaptureReader::create(std::unique_ptr<ByteSource> source, const std::string& name) {
  auto plain = decompressed(std::move(source));
  if (!plain) return fail("read " + name, plain.error().why);
  auto impl = std::make_unique<Impl>(std::move(*plain), name);
  if (auto first = impl->read_first(); !first) return Failure(first.error());
  return CaptureReader(std::move(impl));
}

const CaptureHeader& CaptureReader::header() const { return impl_->header; }

Result<std::optional<CaptureRecord>> CaptureReader::next() { return impl_->read_record(); }

Error CaptureReader::problem(std::string why) const { return impl_->lines.problem(std::move(why), kHint); }

}  // namespace stackwatch
