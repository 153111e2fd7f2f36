// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/dispatcher.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>

#include "config/units.h"
#include "core/time_text.h"
#include "daemon/control/interface.h"
#include "daemon/control/off_cpu.h"

namespace stackwatch {
namespace {

/// A screenful; whoever wants more says so.
constexpr int64_t kDefaultRankingRows = 20;
/// More processes than a machine has: pid_max is at most 2^22.
constexpr int64_t kMaxRankingRows = 1 << 22;
/// A hundred years: as long as the durations of the command line can be.
constexpr double kMaxSince_s = 100 * 366 * 86400.0;

constexpr std::array<std::string_view, 6> kMetrics = {"on_cpu", "run_queue", "switches", "faults", "rss", "io"};

/// True, and the error appended, where a parameter is wrong.
bool refuse_bad(const Parameters& parameters, Outcome& outcome) {
  const std::optional<std::string> bad = parameters.bad();
  if (bad) append_error(outcome.output, control_error::kInvalidParameter, "parameter", *bad);
  return bad.has_value();
}

void append_empty_error(std::string& output, std::string_view error) {
  append_error(output, error, [](JsonWriter& json) {
    json.begin_object();
    json.end_object();
  });
}

/// A reply that is one list: `{"NAME":[…]}`, with `omitted` where it had to end early.
template <class WriteList>
void append_list(std::string& output, std::string_view name, WriteList write_list) {
  append_reply(output, false, [&](JsonWriter& json) {
    json.begin_object();
    json.key(name);
    const size_t omitted = write_list(json);
    if (omitted > 0) json.member("omitted", omitted);
    json.end_object();
  });
}

void append_process_error(std::string& output, const Error& error, int64_t pid) {
  const bool unknown = error.kind == ErrorKind::kUsage;
  append_error(output, unknown ? control_error::kNoSuchProcess : control_error::kNotAttached, [&](JsonWriter& json) {
    json.begin_object();
    json.member("pid", pid);
    json.member("message", error.message());
    json.end_object();
  });
}

void append_watch_error(std::string& output, const Error& error) {
  const bool invalid = error.kind == ErrorKind::kUsage;
  append_error(output, invalid ? control_error::kInvalidWatch : control_error::kFailed, "message", error.message());
}

struct AlertFilter {
  std::optional<uint64_t> since_ns;
  std::optional<AlertState> state;
};

AlertFilter take_alert_filter(Parameters& parameters) {
  AlertFilter filter;
  if (const auto since = parameters.text("since")) {
    filter.since_ns = parse_time(*since, ZonelessTime::kRefused);
    if (!filter.since_ns) parameters.reject("since");
  }
  if (const auto state = parameters.text("state")) {
    filter.state = parse_alert_state(*state);
    if (!filter.state) parameters.reject("state");
  }
  return filter;
}

}  // namespace

struct Dispatcher::Method {
  std::string_view name;
  void (Dispatcher::*run)(const VarlinkCall&, Outcome&) const;
  bool changes = false;  ///< for those alone who may_change()
};

const Dispatcher::Method Dispatcher::kMethods[] = {
    {"org.varlink.service.GetInfo", &Dispatcher::get_info},
    {"org.varlink.service.GetInterfaceDescription", &Dispatcher::get_interface_description},
    {"io.stackwatch.GetStatus", &Dispatcher::get_status},
    {"io.stackwatch.GetRanking", &Dispatcher::get_ranking},
    {"io.stackwatch.ListAttachments", &Dispatcher::list_attachments},
    {"io.stackwatch.GetStacks", &Dispatcher::get_stacks},
    {"io.stackwatch.ListAlerts", &Dispatcher::list_alerts},
    {"io.stackwatch.GetAlert", &Dispatcher::get_alert},
    {"io.stackwatch.Subscribe", &Dispatcher::subscribe},
    {"io.stackwatch.AddWatch", &Dispatcher::add_watch, true},
    {"io.stackwatch.RemoveWatch", &Dispatcher::remove_watch, true},
    {"io.stackwatch.ListWatches", &Dispatcher::list_watches},
};

const Dispatcher::Method* Dispatcher::find(std::string_view name) const {
  const auto* found = std::ranges::find(kMethods, name, &Method::name);
  return found == std::end(kMethods) ? nullptr : found;
}

Outcome Dispatcher::handle(std::string_view message, const Peer& peer) const {
  Outcome outcome;
  const Result<VarlinkCall> call = parse_call(message);
  if (!call) {
    append_invalid_message(outcome.output, call.error().why);
    outcome.invalid = true;
    return outcome;
  }
  const Method* method = find(call->method);
  if (method == nullptr) {
    const std::string interface = call->method.substr(0, call->method.rfind('.'));
    if (interface == kStackwatchName || interface == kServiceName) {
      append_error(outcome.output, control_error::kMethodNotFound, "method", call->method);
    } else {
      append_error(outcome.output, control_error::kInterfaceNotFound, "interface", interface);
    }
  } else if (method->changes && !may_change(peer)) {
    append_empty_error(outcome.output, control_error::kPermissionDenied);
  } else if (call->upgrade) {
    append_error(outcome.output, control_error::kInvalidParameter, "parameter", "upgrade");
  } else {
    (this->*method->run)(*call, outcome);
  }
  if (call->oneway) outcome = {};
  return outcome;
}

void Dispatcher::get_info(const VarlinkCall& call, Outcome& outcome) const {
  if (refuse_bad(Parameters(call.parameters), outcome)) return;
  append_reply(outcome.output, false, [](JsonWriter& json) {
    json.begin_object();
    json.member("vendor", "stackwatch");
    json.member("product", "stackwatchd");
    json.member("version", STACKWATCH_VERSION);
    json.member("url", "");
    json.key("interfaces");
    json.begin_array();
    json.value(kServiceName);
    json.value(kStackwatchName);
    json.end_array();
    json.end_object();
  });
}

void Dispatcher::get_interface_description(const VarlinkCall& call, Outcome& outcome) const {
  Parameters parameters(call.parameters);
  const std::optional<std::string> interface = parameters.text("interface");
  if (!interface) parameters.reject("interface");
  if (refuse_bad(parameters, outcome)) return;
  if (*interface != kStackwatchName && *interface != kServiceName) {
    append_error(outcome.output, control_error::kInterfaceNotFound, "interface", *interface);
    return;
  }
  append_reply(outcome.output, false, [&](JsonWriter& json) {
    json.begin_object();
    json.member("description", *interface == kServiceName ? kServiceInterface : kStackwatchInterface);
    json.end_object();
  });
}

void Dispatcher::get_status(const VarlinkCall& call, Outcome& outcome) const {
  if (refuse_bad(Parameters(call.parameters), outcome)) return;
  Status status = backend_.status();
  status.control_clients = counters_.clients;
  status.control_refused = counters_.refused;
  status.control_dropped = counters_.dropped;
  append_reply(outcome.output, false, [&](JsonWriter& json) { write_status(json, status); });
}

void Dispatcher::get_ranking(const VarlinkCall& call, Outcome& outcome) const {
  Parameters parameters(call.parameters);
  const int64_t limit = parameters.integer("limit", 1, kMaxRankingRows).value_or(kDefaultRankingRows);
  const std::string by = parameters.text("by").value_or("");
  const bool by_stacks = by == "stacks";
  if (!by.empty() && !by_stacks && std::ranges::find(kMetrics, by) == kMetrics.end()) parameters.reject("by");
  if (refuse_bad(parameters, outcome)) return;
  if (by_stacks) {
    const std::vector<UnusualStack> stacks = backend_.unusual_stacks(static_cast<size_t>(limit));
    append_list(outcome.output, "stacks", [&](JsonWriter& json) { return write_unusual_stack_list(json, stacks); });
    return;
  }
  const auto rows = backend_.ranking(static_cast<size_t>(limit), by);
  if (!rows) {
    append_error(outcome.output, control_error::kFailed, "message", rows.error().message());
    return;
  }
  append_list(outcome.output, "ranking", [&](JsonWriter& json) { return write_ranking_list(json, *rows); });
}

void Dispatcher::list_attachments(const VarlinkCall& call, Outcome& outcome) const {
  if (refuse_bad(Parameters(call.parameters), outcome)) return;
  const std::vector<AttachmentRow> rows = backend_.attachments();
  append_list(outcome.output, "attachments", [&](JsonWriter& json) { return write_attachment_list(json, rows); });
}

void Dispatcher::get_stacks(const VarlinkCall& call, Outcome& outcome) const {
  Parameters parameters(call.parameters);
  const std::optional<int64_t> pid = parameters.integer("pid", 1, std::numeric_limits<int32_t>::max());
  const std::string probe_name = parameters.text("probe").value_or("on_cpu");
  const bool off_cpu = probe_name == "off_cpu";
  const std::optional<ProbeKind> probe = off_cpu ? ProbeKind::kBlocked : parse_counted_probe(probe_name);
  const double since_s = parameters.number("since_s", 0, kMaxSince_s).value_or(0);
  const bool series = parameters.flag("series").value_or(false);
  if (!pid) parameters.reject("pid");
  if (!probe) parameters.reject("probe");
  if (refuse_bad(parameters, outcome)) return;
  const auto stacks = [&](ProbeKind kind) {
    return backend_.stacks(static_cast<int32_t>(*pid), kind, since_s, series);
  };
  Result<StacksReport> report = stacks(*probe);
  if (report && off_cpu) {
    // Half of it would be taken for the whole: both or none.
    Result<StacksReport> run_queue = stacks(ProbeKind::kRunQueue);
    report = run_queue ? off_cpu_report(std::move(*report), std::move(*run_queue)) : std::move(run_queue);
  }
  if (!report) {
    append_process_error(outcome.output, report.error(), *pid);
    return;
  }
  append_reply(outcome.output, false, [&](JsonWriter& json) { write_stacks(json, *report); });
}

void Dispatcher::list_alerts(const VarlinkCall& call, Outcome& outcome) const {
  Parameters parameters(call.parameters);
  const AlertFilter filter = take_alert_filter(parameters);
  if (refuse_bad(parameters, outcome)) return;
  const std::vector<Alert> alerts = backend_.alerts(filter.since_ns, filter.state);
  append_list(outcome.output, "alerts", [&](JsonWriter& json) { return write_alert_list(json, alerts); });
}

void Dispatcher::get_alert(const VarlinkCall& call, Outcome& outcome) const {
  Parameters parameters(call.parameters);
  const std::optional<std::string> id = parameters.text("id");
  if (!id) parameters.reject("id");
  if (refuse_bad(parameters, outcome)) return;
  const std::optional<Alert> alert = backend_.alert(*id);
  if (!alert) {
    append_error(outcome.output, control_error::kNoSuchAlert, "id", *id);
    return;
  }
  append_reply(outcome.output, false, [&](JsonWriter& json) {
    json.begin_object();
    json.key("alert");
    write_alert(json, *alert);
    json.end_object();
  });
}

void Dispatcher::add_watch(const VarlinkCall& call, Outcome& outcome) const {
  Parameters parameters(call.parameters);
  WatchRule rule;
  rule.id = parameters.text("id").value_or("");
  rule.name = parameters.text("name");
  rule.exe = parameters.text("exe");
  rule.cmdline = parameters.text("cmdline");
  rule.cgroup = parameters.text("cgroup");
  rule.unit = parameters.text("unit");
  rule.user = parameters.text("user");
  const std::optional<int64_t> pid = parameters.integer("pid", 1, std::numeric_limits<int32_t>::max());
  if (pid) rule.pid = static_cast<int32_t>(*pid);
  const auto start_time_ns = parameters.integer("start_time_ns", 0, std::numeric_limits<int64_t>::max());
  if (start_time_ns && !pid) parameters.reject("start_time_ns");
  const auto probes = parameters.texts("probes");
  // Which frequencies there are is the rule's own matter, and its message says so.
  rule.frequency_hz = parameters.number("frequency", 0, std::numeric_limits<double>::max()).value_or(rule.frequency_hz);
  rule.children = parameters.flag("children").value_or(false);
  rule.mmap = parameters.flag("mmap").value_or(false);
  if (refuse_bad(parameters, outcome)) return;
  if (probes) {
    auto kinds = parse_probes(*probes);
    if (!kinds) return append_watch_error(outcome.output, kinds.error());
    rule.probes = std::move(*kinds);
  }
  const Result<std::string> id = backend_.add_watch(std::move(rule), start_time_ns);
  if (!id) return append_watch_error(outcome.output, id.error());
  append_reply(outcome.output, false, [&](JsonWriter& json) {
    json.begin_object();
    json.member("id", *id);
    json.end_object();
  });
}

void Dispatcher::remove_watch(const VarlinkCall& call, Outcome& outcome) const {
  Parameters parameters(call.parameters);
  const std::optional<std::string> id = parameters.text("id");
  if (!id) parameters.reject("id");
  if (refuse_bad(parameters, outcome)) return;
  if (const Result<void> removed = backend_.remove_watch(*id); !removed) {
    append_error(outcome.output, control_error::kNoSuchWatch, [&](JsonWriter& json) {
      json.begin_object();
      json.member("id", *id);
      json.member("message", removed.error().message());
      json.end_object();
    });
    return;
  }
  append_reply(outcome.output, false, [](JsonWriter& json) {
    json.begin_object();
    json.end_object();
  });
}

void Dispatcher::list_watches(const VarlinkCall& call, Outcome& outcome) const {
  if (refuse_bad(Parameters(call.parameters), outcome)) return;
  const std::vector<WatchRow> rows = backend_.watches();
  append_list(outcome.output, "watches", [&](JsonWriter& json) { return write_watch_list(json, rows); });
}

void Dispatcher::subscribe(const VarlinkCall& call, Outcome& outcome) const {
  Parameters parameters(call.parameters);
  const AlertFilter filter = take_alert_filter(parameters);
  if (refuse_bad(parameters, outcome)) return;
  if (!call.more) {
    append_empty_error(outcome.output, control_error::kExpectedMore);
    return;
  }
  if (counters_.subscribers >= kMaxSubscribers) {
    append_error(outcome.output, control_error::kTooManyClients, [](JsonWriter& json) {
      json.begin_object();
      json.member("limit", kMaxSubscribers);
      json.end_object();
    });
    return;
  }
  if (filter.since_ns) {
    // Newest first from the backend; the oldest are left out where all of them are too much.
    std::vector<std::string> changes;
    size_t bytes = 0;
    for (const Alert& alert : backend_.alerts(filter.since_ns, filter.state)) {
      if (bytes > kMaxListBytes) break;
      append_alert_change(changes.emplace_back(), alert);
      bytes += changes.back().size();
    }
    for (auto change = changes.rbegin(); change != changes.rend(); ++change) outcome.output += *change;
  }
  outcome.subscription = Subscription{filter.state};
}

void append_alert_change(std::string& output, const Alert& alert) {
  append_reply(output, true, [&](JsonWriter& json) {
    json.begin_object();
    json.key("alert");
    write_alert(json, alert);
    json.end_object();
  });
}

void append_invalid_message(std::string& output, std::string_view reason) {
  append_error(output, control_error::kInvalidMessage, "reason", reason);
}

}  // namespace stackwatch
