// SPDX-License-Identifier: Apache-2.0
#include <rapidjson/writer.h>

#include <string>

#include "cli/count_format.h"
#include "cli/probe_table.h"
#include "core/time_text.h"
#include "daemon/control/json.h"

namespace stackwatch {
namespace {

using Writer = rapidjson::Writer<TextStream>;

/// A finished piece of JSON: what is not plain goes through the control socket's writer, which lets no bytes of
/// strangers break the document.
void write_raw(Writer& json, std::string_view text, rapidjson::Type type) {
  json.RawValue(text.data(), text.size(), type);
}

void write_text(Writer& json, std::string_view text) {
  JsonWriter quoted;
  quoted.value(text);
  write_raw(json, quoted.text(), rapidjson::kStringType);
}

void write_stack(Writer& json, const CountRow& row, const CountNames& names) {
  json.StartObject();
  json.Key("value");
  json.Int64(row.value);
  json.Key("frames");
  json.StartArray();
  for (const FunctionId frame : names.stacks[row.stack]) write_text(json, names.functions[frame].name);
  json.EndArray();
  json.EndObject();
}

void write_probe(Writer& json, const CountReport::Probe& probe, const CountNames& names) {
  json.StartObject();
  json.Key("probe");
  write_text(json, to_string(probe.kind));
  json.Key("unit");
  write_text(json, units_of(probe.kind).json);
  if (probe.kind == ProbeKind::kOnCpu) {
    json.Key("frequency_hz");
    json.Double(probe.frequency_hz);
  }
  json.Key("total");
  json.Int64(probe.total);
  if (units_of(probe.kind).is_time) {
    json.Key("total_ms");
    json.Double(milliseconds(probe, probe.total));
  }
  JsonWriter lost;
  write_losses(lost, probe.lost);
  json.Key("lost");
  write_raw(json, lost.text(), rapidjson::kObjectType);
  json.Key("stacks");
  json.StartArray();
  for (const CountRow& row : sorted_rows(probe)) write_stack(json, row, names);
  json.EndArray();
  json.EndObject();
}

class JsonFormatter final : public CountFormatter {
 public:
  void print(const CountReport& report, const CountNames& names, TextStream& out) override {
    Writer json(out);
    json.StartObject();
    json.Key("begin");
    write_text(json, format_utc(report.begin_realtime_ns));
    json.Key("end");
    write_text(json, format_utc(report.end_realtime_ns));
    json.Key("interval_s");
    json.Double(report.seconds);
    json.Key("processes");
    json.StartArray();
    for (const CountReport::Process& process : report.processes) {
      json.StartObject();
      JsonWriter identity;
      write_process(identity, process.identity);
      json.Key("process");
      write_raw(json, identity.text(), rapidjson::kObjectType);
      json.Key("probes");
      json.StartArray();
      for (const CountReport::Probe& probe : process.probes) write_probe(json, probe, names);
      json.EndArray();
      json.EndObject();
    }
    json.EndArray();
    json.EndObject();
    out << "\n";
  }
};

}  // namespace

std::unique_ptr<CountFormatter> make_json_formatter() { return std::make_unique<JsonFormatter>(); }

}  // namespace stackwatch
