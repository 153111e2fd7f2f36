// SPDX-License-Identifier: Apache-2.0
#include "cli/watch.h"

#include <unistd.h>

#include <charconv>
#include <fstream>
#include <iterator>

#include "cli/output.h"
#include "cli/render.h"
#include "daemon/control/json.h"

namespace stackwatch {
namespace {

std::string id_parameters(const std::string& id) {
  JsonWriter json;
  json.begin_object();
  json.member("id", id);
  json.end_object();
  return std::string(json.text());
}

std::string add_parameters(const WatchRequest& request) {
  JsonWriter json;
  const auto optional_member = [&json](const char* name, const auto& value) {
    if (value) json.member(name, *value);
  };
  json.begin_object();
  optional_member("id", request.id);
  optional_member("name", request.name);
  optional_member("exe", request.exe);
  optional_member("cmdline", request.cmdline);
  optional_member("cgroup", request.cgroup);
  optional_member("unit", request.unit);
  optional_member("user", request.user);
  optional_member("pid", request.pid);
  if (request.pid) optional_member("start_time_ns", start_time_of(*request.pid));
  if (!request.probes.empty()) {
    json.key("probes");
    json.begin_array();
    for (const std::string& probe : request.probes) json.value(probe);
    json.end_array();
  }
  optional_member("frequency", request.frequency_hz);
  if (request.children) json.member("children", true);
  if (request.mmap) json.member("mmap", true);
  json.end_object();
  return std::string(json.text());
}

Result<void> print(const std::string& text) { return write_output(STDOUT_FILENO, text); }

Result<void> print_json(std::string document) { return print(std::move(document) + "\n"); }

}  // namespace

std::optional<uint64_t> start_time_of_stat(std::string_view stat, uint64_t ticks_per_s) {
  constexpr int kStartTimeField = 22;  // proc(5)
  constexpr uint64_t kNsPerS = 1'000'000'000;
  const size_t name_end = stat.rfind(')');  // a name may hold anything, brackets and blanks too
  if (name_end == std::string_view::npos || ticks_per_s == 0) return std::nullopt;
  std::string_view rest = stat.substr(name_end + 1);
  for (int field = 3; field < kStartTimeField; ++field) {
    const size_t blank = rest.find(' ', 1);
    if (blank == std::string_view::npos) return std::nullopt;
    rest = rest.substr(blank);
  }
  rest.remove_prefix(1);
  uint64_t ticks = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), ticks);
  if (error != std::errc{} || end == rest.data()) return std::nullopt;
  return ticks * (kNsPerS / ticks_per_s);
}

std::optional<uint64_t> start_time_of(int32_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string stat{std::istreambuf_iterator<char>(file), {}};
  return start_time_of_stat(stat, static_cast<uint64_t>(sysconf(_SC_CLK_TCK)));
}

Result<std::string> add_watch(Client& client, const WatchRequest& request) {
  const Result<Reply> reply = client.call("AddWatch", add_parameters(request));
  if (!reply) return Failure(reply.error());
  return std::string(text_of(reply->parameters(), "id"));
}

Result<void> wait_until_loaded(Client& client, int32_t pid, const Clock& clock) {
  constexpr uint64_t kLoadPatienceS = 10;
  constexpr useconds_t kPauseUs = 10'000;
  const uint64_t end_ns = clock.monotonic_ns() + kLoadPatienceS * 1'000'000'000;
  while (clock.monotonic_ns() < end_ns) {
    const Result<Reply> reply = client.call("ListAttachments");
    if (!reply) return Failure(reply.error());
    bool loading = false;
    for (const JsonValue& row : array_of(reply->parameters(), "attachments").GetArray()) {
      loading = loading || (integer_of(object_of(row, "process"), "pid") == pid && !array_of(row, "loading").Empty());
    }
    if (!loading) return {};
    usleep(kPauseUs);
  }
  return {};
}

Result<void> remove_watch(Client& client, const std::string& id) {
  const Result<Reply> reply = client.call("RemoveWatch", id_parameters(id));
  if (!reply) return Failure(reply.error());
  return {};
}

Result<void> run_watch_add(Client& client, const Options& options) {
  const Result<std::string> id = add_watch(client, options.watch);
  if (!id) return Failure(id.error());
  return options.json ? print_json(id_parameters(*id)) : print(*id + "\n");
}

Result<void> run_watch_remove(Client& client, const Options& options) {
  if (auto removed = remove_watch(client, options.watch_id); !removed) return removed;
  return options.json ? print_json(id_parameters(options.watch_id)) : Result<void>();
}

Result<void> run_watch_list(Client& client, const Options& options, const Style& style) {
  const Result<Reply> reply = client.call("ListWatches");
  if (!reply) return Failure(reply.error());
  if (!options.json) return print(render_watches(reply->parameters(), style));
  const Result<std::string> line = to_json_line(reply->parameters());
  if (!line) return Failure(line.error());
  return print(*line);
}

}  // namespace stackwatch
