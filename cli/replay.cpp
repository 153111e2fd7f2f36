// SPDX-License-Identifier: Apache-2.0
#include "cli/replay.h"

#include <rapidjson/document.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "capture/reader.h"
#include "cli/output.h"
#include "cli/render.h"
#include "config/load.h"
#include "daemon/capture_source.h"
#include "daemon/control/json.h"
#include "daemon/daemon.h"
#include "daemon/detection.h"
#include "daemon/detector_schema.h"
#include "daemon/pipeline.h"

namespace stackwatch {
namespace {

/// What the table at the end may hold: a capture of months.
constexpr size_t kMaxAlerts = 10'000;
constexpr size_t kMaxAlertBytes = size_t{64} << 20U;

Result<Config> configuration(const Options& options) {
  if (options.config_file.empty()) return parse_config("", "the built-in defaults", detector_schemas());
  return load_config(ConfigFiles::of(options.config_file), detector_schemas());
}

/// JSON lines for a sink: the shape of `stackwatch alerts --follow --json`.
class JsonLines final : public Sink {
 public:
  [[nodiscard]] std::string_view name() const override { return "standard output"; }
  Result<void> publish(const Alert& alert) override { return write_output(STDOUT_FILENO, alert_to_json(alert) + "\n"); }
};

Result<void> print_table(const AlertPolicy& policy, const Style& style) {
  JsonWriter json;
  json.begin_object();
  json.key("alerts");
  const size_t omitted = write_alert_list(json, policy.all()) + policy.counters().forgotten;
  if (omitted > 0) json.member("omitted", omitted);
  json.end_object();
  rapidjson::Document reply;
  reply.Parse(json.text().data(), json.text().size());
  return write_output(STDOUT_FILENO, render_alerts(reply, style));
}

Result<void> run_pipeline(Pipeline& pipeline) {
  for (;;) {
    auto outcome = pipeline.tick();
    if (!outcome) return Failure(outcome.error());
    if (outcome->ended) return {};
    if (!outcome->sink_errors.empty()) return Failure(outcome->sink_errors.front());
  }
}

}  // namespace

Result<void> run_replay(const Options& options, const Style& style) {
  auto config = configuration(options);
  if (!config) return Failure(config.error());
  auto reader = CaptureReader::open(options.input);
  if (!reader) return Failure(reader.error());
  CaptureSource source(std::move(*reader));

  DetectionPolicy policy_of_detectors = detection_policy(*config);
  policy_of_detectors.tick_s = source.header().tick_s;  // as it was recorded, whatever is configured now
  Detection detection(policy_of_detectors, detector_settings(*config));
  AlertPolicyOptions alerting = alert_policy_options(*config);
  alerting.history = kMaxAlerts;
  alerting.history_bytes = kMaxAlertBytes;
  AlertPolicy policy(
      std::move(alerting), source.clock(), sequential_alert_ids(),
      AlertContext{[&source](const ProcessKey& process) { return source.identify(process); },
                   [&source](const ProcessKey& process, ProbeKind probe) { return source.losses(process, probe); }});
  Pipeline pipeline(source, detection, policy);
  JsonLines lines;
  if (options.json) pipeline.add_sink(lines);

  auto replayed = run_pipeline(pipeline);
  if (!options.json) {
    if (auto printed = print_table(policy, style); !printed) return printed;
  }
  return replayed;
}

}  // namespace stackwatch
