// SPDX-License-Identifier: Apache-2.0
#include "capture/parse_record.h"

#include <array>
#include <cmath>
#include <limits>
#include <utility>

namespace stackwatch {
namespace {

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();

uint64_t nanoseconds(JsonFields& fields, const char* name) {
  if (!fields.has(name)) return 0;
  return static_cast<uint64_t>(std::llround(fields.positive(name) * 1e9));
}

void read_counters(JsonFields& fields, ProcessSample& sample) {
  sample.on_cpu_ns = nanoseconds(fields, "on_cpu_s");
  sample.run_queue_ns = nanoseconds(fields, "run_queue_s");
  sample.voluntary_switches = fields.maybe_count("voluntary_switches");
  sample.involuntary_switches = fields.maybe_count("involuntary_switches");
  sample.minor_faults = fields.maybe_count("minor_faults");
  sample.major_faults = fields.maybe_count("major_faults");
  sample.rss_bytes = fields.maybe_count("rss_bytes");
  sample.read_bytes = fields.maybe_count("read_bytes");
  sample.write_bytes = fields.maybe_count("write_bytes");
  sample.threads = static_cast<uint32_t>(fields.maybe_integer("threads", 0, kMaxInt32, 0));
}

CaptureRecord read_process(JsonFields& fields) {
  CapturedProcess process;
  process.number = fields.small_count("process");
  ProcessIdentity& identity = process.identity;
  identity.pid_in_ns = static_cast<int32_t>(fields.integer("pid", 0, kMaxInt32));
  identity.key.pid = static_cast<int32_t>(fields.maybe_integer("initial_pid", 0, kMaxInt32, identity.pid_in_ns));
  identity.key.start_time_ns = fields.maybe_count("start_time_ns");
  identity.comm = fields.text("comm");
  identity.exe = fields.text("exe");
  identity.cgroup = fields.text("cgroup");
  identity.unit = fields.text("unit");
  if (const rapidjson::Value* totals = fields.find("totals"); totals != nullptr && totals->IsObject()) {
    JsonFields counters(*totals);
    ProcessSample& census = process.census.emplace();
    read_counters(counters, census);
    if (!counters.problem().empty()) fields.complain("totals", counters.problem());
    census.key = identity.key;
    census.pid_in_ns = identity.pid_in_ns;
    census.comm = identity.comm;
    census.cgroup = identity.cgroup;
    census.nice = static_cast<int8_t>(fields.maybe_integer("nice", -20, 19, 0));
    census.parent_pid = static_cast<int32_t>(fields.maybe_integer("parent_pid", 0, kMaxInt32, 0));
    census.uid = static_cast<uint32_t>(fields.maybe_integer("uid", 0, std::numeric_limits<uint32_t>::max(), 0));
    census.policy = static_cast<SchedulingPolicy>(
        fields.maybe_integer("policy", 0, static_cast<int64_t>(SchedulingPolicy::kExt), 0));
    census.kernel_thread = fields.flag("kernel_thread");
  }
  return process;
}

CaptureRecord read_object(JsonFields& fields) {
  return CapturedObject{fields.small_count("object"), fields.text("name")};
}

const rapidjson::Value* array_of(JsonFields& fields, const char* name) {
  const rapidjson::Value* value = fields.find(name);
  if (value != nullptr && value->IsArray()) return value;
  fields.complain(name, value == nullptr ? "is missing" : "is no array");
  return nullptr;
}

CaptureRecord read_stack(JsonFields& fields) {
  CapturedStack stack;
  stack.number = fields.count("stack");
  if (fields.has("process")) stack.process = fields.small_count("process");
  const rapidjson::Value* frames = array_of(fields, "frames");
  if (frames == nullptr) return stack;
  if (frames->Size() > kMaxCaptureFrames) return fields.complain("frames", "has too many of them"), stack;
  for (const rapidjson::Value& frame : frames->GetArray()) {
    if (!frame.IsString()) return fields.complain("frames", "holds something that is no string"), stack;
    stack.frames.emplace_back(frame.GetString(), frame.GetStringLength());
  }
  if (!fields.has("objects")) return stack;
  const rapidjson::Value* objects = array_of(fields, "objects");
  if (objects == nullptr) return stack;
  if (objects->Size() != stack.frames.size()) return fields.complain("objects", "is not as long as \"frames\""), stack;
  for (const rapidjson::Value& object : objects->GetArray()) {
    if (!object.IsUint()) return fields.complain("objects", "holds something that is no number"), stack;
    stack.objects.push_back(object.GetUint());
  }
  return stack;
}

CaptureRecord read_sample(JsonFields& fields) {
  CapturedSample sample;
  sample.t = fields.number("t");
  sample.process = fields.small_count("process");
  read_counters(fields, sample.difference);
  return sample;
}

Losses read_losses(JsonFields& fields) {
  Losses lost;
  const rapidjson::Value* object = fields.find("lost");
  if (object == nullptr) return lost;
  if (!object->IsObject()) return fields.complain("lost", "is no object"), lost;
  JsonFields counts(*object);
  for (size_t i = 0; i < kLossReasons; ++i) {
    lost.count[i] = counts.maybe_count(std::string(to_string(static_cast<LossReason>(i))).c_str());
  }
  if (!counts.problem().empty()) fields.complain("lost", counts.problem());
  return lost;
}

/// Nothing: a probe of a later version.
std::optional<ProbeKind> read_probe(JsonFields& fields) {
  if (!fields.has("probe")) fields.complain("probe", "is missing");
  return parse_counted_probe(fields.text("probe"));
}

std::optional<CaptureRecord> read_delta(JsonFields& fields) {
  const std::optional<ProbeKind> probe = read_probe(fields);
  if (!probe) return std::nullopt;
  CapturedDelta delta;
  delta.probe = *probe;
  delta.t = fields.number("t");
  delta.process = fields.small_count("process");
  delta.exposure_s = fields.positive("exposure_s");
  delta.interval_s = fields.maybe_positive("interval_s");
  delta.frequency_hz = fields.maybe_positive("frequency_hz");
  delta.lost = read_losses(fields);
  const rapidjson::Value* values = array_of(fields, "values");
  if (values == nullptr) return delta;
  delta.values.reserve(values->Size());
  for (const rapidjson::Value& value : values->GetArray()) {
    if (!value.IsArray() || value.Size() != 2 || !value[0].IsUint64() || !value[1].IsInt64()) {
      return fields.complain("values", "holds something that is no [stack, value]"), delta;
    }
    delta.values.push_back({value[0].GetUint64(), value[1].GetInt64()});
  }
  return delta;
}

std::optional<CaptureRecord> read_lost(JsonFields& fields) {
  const std::optional<ProbeKind> probe = read_probe(fields);
  if (!probe) return std::nullopt;
  return CapturedLosses{fields.small_count("process"), *probe, read_losses(fields)};
}

CaptureRecord read_end(JsonFields& fields, CapturedEnd::Kind kind) {
  return CapturedEnd{fields.number("t"), fields.small_count("process"), kind};
}

CaptureRecord read_tick(JsonFields& fields) {
  CapturedTick tick;
  tick.t = fields.number("t");
  constexpr int64_t kCentury = 3'000'000'000'000'000'000;
  if (fields.has("clock_ns")) tick.clock_ns = fields.integer("clock_ns", -kCentury, kCentury);
  return tick;
}

}  // namespace

std::optional<CaptureRecord> parse_record(std::string_view type, JsonFields& fields) {
  using enum CapturedEnd::Kind;
  if (type == "delta") return read_delta(fields);
  if (type == "sample") return read_sample(fields);
  if (type == "tick") return read_tick(fields);
  if (type == "stack") return read_stack(fields);
  if (type == "process") return read_process(fields);
  if (type == "object") return read_object(fields);
  if (type == "losses") return read_lost(fields);
  if (type == "exit") return read_end(fields, kExit);
  if (type == "detached") return read_end(fields, kDetached);
  if (type == "replaced") return read_end(fields, kReplaced);
  return std::nullopt;
}

}  // namespace stackwatch
