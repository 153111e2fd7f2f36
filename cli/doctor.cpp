// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "cli/output.h"
#include "cli/text.h"
#include "daemon/alerting/console_sink.h"
#include "daemon/control/json.h"

namespace stackwatch {
namespace {

std::string marked(CheckState state, const Style& style) {
  switch (state) {
    case CheckState::kOk:
      return style.good("ok     ");
    case CheckState::kLimited:
      return style.warning("limited");
    case CheckState::kMissing:
      break;
  }
  return style.alarm("missing");
}

}  // namespace

std::string_view to_string(CheckState state) {
  switch (state) {
    case CheckState::kOk:
      return "ok";
    case CheckState::kLimited:
      return "limited";
    case CheckState::kMissing:
      break;
  }
  return "missing";
}

int DoctorReport::exit_code() const {
  const bool missing =
      std::ranges::any_of(checks, [](const Check& check) { return check.state == CheckState::kMissing; });
  return missing ? static_cast<int>(ErrorKind::kUnsupported) : 0;
}

ProcessFacts own_facts() {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {};
  return {.memlock_bytes = limit.rlim_cur};
}

std::string render_doctor(const DoctorReport& report, const Style& style) {
  constexpr size_t kIdColumns = 20;
  std::string text = "Linux " + safe_text(report.kernel) + "\n";
  for (const Check& check : report.checks) {
    text += marked(check.state, style) + "  " + check.id;
    text += std::string(kIdColumns - std::min(kIdColumns - 1, check.id.size()), ' ') + safe_text(check.found) + "\n";
    if (!check.advice.empty()) text += "         -> " + safe_text(check.advice) + "\n";
  }
  text += report.exit_code() == 0 ? "All probes work here.\n" : "Something that probes need is missing here.\n";
  return text;
}

std::string doctor_to_json(const DoctorReport& report) {
  JsonWriter json;
  json.begin_object();
  json.member("kernel", report.kernel);
  json.member("works", report.exit_code() == 0);
  json.key("checks");
  json.begin_array();
  for (const Check& check : report.checks) {
    json.begin_object();
    json.member("id", check.id);
    json.member("state", to_string(check.state));
    json.member("found", check.found);
    json.key("advice");
    if (check.advice.empty()) {
      json.null();
    } else {
      json.value(check.advice);
    }
    json.end_object();
  }
  json.end_array();
  json.end_object();
  return std::string(json.text()) + "\n";
}

Result<int> run_doctor(const Options& options, const Clock& clock) {
  const DoctorReport report = examine("", own_facts(), try_everything(clock, options.socket));
  const Style style{wants_colour(STDOUT_FILENO)};
  const auto done = write_output(STDOUT_FILENO, options.json ? doctor_to_json(report) : render_doctor(report, style));
  if (!done) return Failure(done.error());
  return report.exit_code();
}

}  // namespace stackwatch
