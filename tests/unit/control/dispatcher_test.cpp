// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/dispatcher.h"

#include <gtest/gtest.h>
#include <rapidjson/document.h>

#include "daemon/control/interface.h"
#include "tests/unit/control/fake_backend.h"

namespace stackwatch {
namespace {

constexpr Peer kRoot{1, 0, 0};
constexpr Peer kSomebody{2, 1000, 1000};
constexpr uint64_t kDay = 1'795'348'800'000'000'000;  // 2026-11-22T12:00:00Z

/// The fields of a reply or type in the interface's text: the names before the colons of its parenthesis.
std::vector<std::string> declared(std::string_view opening) {
  std::vector<std::string> names;
  const size_t at = kStackwatchInterface.find(opening);
  EXPECT_NE(at, std::string_view::npos) << opening;
  std::string_view body = kStackwatchInterface.substr(at + opening.size());
  body = body.substr(0, body.find("\n)"));
  for (size_t line = body.find('\n'); line != std::string_view::npos; line = body.find('\n', line + 1)) {
    const std::string_view text = body.substr(line + 3, body.find('\n', line + 1) - line - 3);
    if (text.starts_with("#")) continue;
    names.emplace_back(text.substr(0, text.find(':')));
  }
  return names;
}

std::vector<std::string> members(const rapidjson::Value& object) {
  std::vector<std::string> names;
  for (const auto& member : object.GetObject()) names.emplace_back(member.name.GetString());
  return names;
}

class DispatcherTest : public testing::Test {
 protected:
  Outcome handle(const std::string& message, const Peer& peer = kRoot) { return dispatcher_.handle(message, peer); }

  std::vector<rapidjson::Document> replies(const Outcome& outcome) {
    std::vector<rapidjson::Document> documents;
    for (size_t begin = 0; begin < outcome.output.size();) {
      const size_t end = outcome.output.find('\0', begin);
      EXPECT_NE(end, std::string::npos);
      documents.emplace_back().Parse(outcome.output.data() + begin, end - begin);
      EXPECT_FALSE(documents.back().HasParseError());
      begin = end + 1;
    }
    return documents;
  }
  rapidjson::Document call(const std::string& method, const std::string& parameters = "{}", const Peer& peer = kRoot) {
    auto all = replies(handle(R"({"method":")" + method + R"(","parameters":)" + parameters + "}", peer));
    EXPECT_EQ(all.size(), 1U);
    return std::move(all.at(0));
  }
  std::string error(const std::string& method, const std::string& parameters = "{}", const Peer& peer = kRoot) {
    const auto reply = call(method, parameters, peer);
    return reply.HasMember("error") ? reply["error"].GetString() : "none";
  }

  FakeBackend backend_;
  ControlCounters counters_;
  Dispatcher dispatcher_{backend_, counters_};
};

TEST_F(DispatcherTest, GarbageGetsAnErrorAndTheEndOfTheConnection) {
  const Outcome outcome = handle("GET / HTTP/1.1\r\n");
  EXPECT_TRUE(outcome.invalid);
  EXPECT_STREQ(replies(outcome).at(0)["error"].GetString(), "io.stackwatch.InvalidMessage");
}

TEST_F(DispatcherTest, UnknownNamesAreToldApart) {
  EXPECT_EQ(error("io.stackwatch.Nothing"), "org.varlink.service.MethodNotFound");
  EXPECT_EQ(error("org.varlink.service.Nothing"), "org.varlink.service.MethodNotFound");
  EXPECT_EQ(error("io.stackwatch.GetStatus.More"), "org.varlink.service.InterfaceNotFound");
  EXPECT_EQ(error("com.example.GetStatus"), "org.varlink.service.InterfaceNotFound");
  EXPECT_EQ(error("GetStatus"), "org.varlink.service.InterfaceNotFound");
  EXPECT_EQ(error(""), "org.varlink.service.InterfaceNotFound");
  EXPECT_STREQ(call("io.stackwatch.getStatus")["parameters"]["method"].GetString(), "io.stackwatch.getStatus");
}

TEST_F(DispatcherTest, WrongParametersAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"io.stackwatch.GetStatus", R"({"verbose":true})"},
      {"io.stackwatch.GetRanking", R"({"limit":0})"},
      {"io.stackwatch.GetRanking", R"({"limit":"5"})"},
      {"io.stackwatch.GetRanking", R"({"limit":99999999999})"},
      {"io.stackwatch.GetRanking", R"({"by":"colour"})"},
      {"io.stackwatch.GetStacks", "{}"},
      {"io.stackwatch.GetStacks", R"({"pid":-1})"},
      {"io.stackwatch.GetStacks", R"({"pid":4294967296})"},
      {"io.stackwatch.GetStacks", R"({"pid":4711,"probe":"off"})"},
      {"io.stackwatch.GetStacks", R"({"pid":4711,"since_s":-1})"},
      {"io.stackwatch.GetStacks", R"({"pid":4711,"series":1})"},
      {"io.stackwatch.AddWatch", R"({"nmae":"x"})"},
      {"io.stackwatch.AddWatch", R"({"name":5})"},
      {"io.stackwatch.AddWatch", R"({"pid":0})"},
      {"io.stackwatch.AddWatch", R"({"pid":4294967297})"},
      {"io.stackwatch.AddWatch", R"({"name":"x","start_time_ns":1})"},
      {"io.stackwatch.AddWatch", R"({"pid":5,"start_time_ns":-1})"},
      {"io.stackwatch.AddWatch", R"({"name":"x","probes":"on_cpu"})"},
      {"io.stackwatch.AddWatch", R"({"name":"x","probes":["on_cpu",1]})"},
      {"io.stackwatch.AddWatch", R"({"name":"x","frequency":-1})"},
      {"io.stackwatch.AddWatch", R"({"name":"x","children":1})"},
      {"io.stackwatch.RemoveWatch", "{}"},
      {"io.stackwatch.ListWatches", R"({"all":true})"},
      {"io.stackwatch.ListAlerts", R"({"since":"yesterday"})"},
      {"io.stackwatch.ListAlerts", R"({"since":"2026-11-22T12:00:00"})"},
      {"io.stackwatch.ListAlerts", R"({"state":"burning"})"},
      {"io.stackwatch.GetAlert", "{}"},
      {"io.stackwatch.Subscribe", R"({"state":"burning"})"},
      {"org.varlink.service.GetInterfaceDescription", "{}"},
  };
  for (const auto& [method, parameters] : cases) {
    EXPECT_EQ(error(method, parameters), "org.varlink.service.InvalidParameter") << method << parameters;
  }
}

TEST_F(DispatcherTest, ChangingIsForRoot) {
  EXPECT_EQ(error("io.stackwatch.AddWatch", R"({"name":"x"})", kSomebody), "org.varlink.service.PermissionDenied");
  EXPECT_EQ(error("io.stackwatch.RemoveWatch", R"({"id":"x"})", kSomebody), "org.varlink.service.PermissionDenied");
  EXPECT_TRUE(backend_.watches_.empty());
  EXPECT_EQ(error("io.stackwatch.GetStatus", "{}", kSomebody), "none");
  EXPECT_EQ(error("io.stackwatch.ListWatches", "{}", kSomebody), "none");
}

TEST_F(DispatcherTest, WhatIsWrongWithARuleIsToldInTheDaemonsWords) {
  const auto invalid = call("io.stackwatch.AddWatch", R"({"name":"x","frequency":5000})");
  EXPECT_STREQ(invalid["error"].GetString(), "io.stackwatch.InvalidWatch");
  EXPECT_STREQ(invalid["parameters"]["message"].GetString(), "watch rule, frequency: too high");
  const auto probe = call("io.stackwatch.AddWatch", R"({"name":"x","probes":["on_cpu","off_cpus"]})");
  EXPECT_STREQ(probe["error"].GetString(), "io.stackwatch.InvalidWatch");
  EXPECT_NE(std::string(probe["parameters"]["message"].GetString()).find("off_cpu"), std::string::npos) << "no hint";
  EXPECT_EQ(error("io.stackwatch.AddWatch", R"({"name":"x","probes":[]})"), "io.stackwatch.InvalidWatch");
  const auto failed = call("io.stackwatch.AddWatch", R"({"pid":1})");
  EXPECT_STREQ(failed["error"].GetString(), "io.stackwatch.Failed");
  EXPECT_STREQ(failed["parameters"]["message"].GetString(), "add a watch rule: no room");
  EXPECT_TRUE(backend_.watches_.empty());
  const auto unknown = call("io.stackwatch.RemoveWatch", R"({"id":"x"})");
  EXPECT_STREQ(unknown["error"].GetString(), "io.stackwatch.NoSuchWatch");
  EXPECT_STREQ(unknown["parameters"]["id"].GetString(), "x");
  EXPECT_STREQ(unknown["parameters"]["message"].GetString(), "remove a watch rule: there is no rule x");
}

TEST_F(DispatcherTest, ARuleArrivesWholeAndIsListedAndRemoved) {
  const auto added = call("io.stackwatch.AddWatch",
                          R"({"id":"mine","name":"a*","exe":"/b","cmdline":"c","cgroup":"/d",)"
                          R"("unit":"e.service","user":"f","pid":7,"start_time_ns":90000000,)"
                          R"("probes":["off_cpu","memory","on_cpu"],"frequency":49,"children":true,"mmap":true})");
  EXPECT_STREQ(added["parameters"]["id"].GetString(), "mine");
  ASSERT_EQ(backend_.watches_.size(), 1U);
  WatchRule expected;
  expected.id = "mine";
  expected.name = "a*";
  expected.exe = "/b";
  expected.cmdline = "c";
  expected.cgroup = "/d";
  expected.unit = "e.service";
  expected.user = "f";
  expected.pid = 7;
  expected.probes = {ProbeKind::kOnCpu, ProbeKind::kBlocked, ProbeKind::kRunQueue, ProbeKind::kMemory};
  expected.frequency_hz = 49;
  expected.children = true;
  expected.mmap = true;
  EXPECT_EQ(backend_.watches_[0].rule, expected);
  EXPECT_EQ(backend_.start_times_ns.back(), 90'000'000U);
  const auto listed = call("io.stackwatch.ListWatches");
  EXPECT_EQ(members(listed["parameters"]["watches"][0]), declared("type Watch ("));
  EXPECT_STREQ(listed["parameters"]["watches"][0]["probes"][2].GetString(), "run_queue");
  EXPECT_EQ(error("io.stackwatch.RemoveWatch", R"({"id":"mine"})"), "none");
  EXPECT_EQ(call("io.stackwatch.ListWatches")["parameters"]["watches"].Size(), 0U);

  EXPECT_STREQ(call("io.stackwatch.AddWatch", R"({"name":"b"})")["parameters"]["id"].GetString(), "added-1");
  WatchRule plain;
  plain.id = "added-1";
  plain.name = "b";
  EXPECT_EQ(backend_.watches_[0].rule, plain) << "what is not given has the configuration's defaults";
  EXPECT_FALSE(backend_.start_times_ns.back());
}

TEST_F(DispatcherTest, UnusualStacksAreARankingOfTheirOwn) {
  const auto reply = call("io.stackwatch.GetRanking", R"({"by":"stacks","limit":5})");
  ASSERT_EQ(reply["parameters"]["stacks"].Size(), 1U);
  EXPECT_FALSE(reply["parameters"].HasMember("ranking"));
  const auto& stack = reply["parameters"]["stacks"][0];
  EXPECT_EQ(members(stack), declared("type UnusualStack ("));
  EXPECT_EQ(stack["frames"].Size(), 3U);
  EXPECT_EQ(stack["processes"][0]["process"]["pid"].GetInt(), FakeBackend::kAttachedPid);
  EXPECT_DOUBLE_EQ(stack["processes"][0]["now_cores"].GetDouble(), 0.3);
}

TEST_F(DispatcherTest, OffCpuIsBothOfItsProbesOrNone) {
  const auto reply = call("io.stackwatch.GetStacks", R"({"pid":4711,"probe":"off_cpu","series":true})");
  const auto& report = reply["parameters"];
  EXPECT_STREQ(report["probe"].GetString(), "off_cpu");
  EXPECT_EQ(report["total"].GetInt(), 200);
  EXPECT_EQ(report["run_queue"].GetInt(), 100);
  ASSERT_EQ(report["stacks"].Size(), 2U);
  EXPECT_EQ(report["stacks"][0]["value"].GetInt(), 140);
  EXPECT_EQ(report["stacks"][0]["series"][1].GetInt(), 80);
  backend_.missing_probe = ProbeKind::kRunQueue;
  EXPECT_EQ(error("io.stackwatch.GetStacks", R"({"pid":4711,"probe":"off_cpu"})"), "io.stackwatch.NotAttached");
  EXPECT_EQ(error("io.stackwatch.GetStacks", R"({"pid":4711,"probe":"blocked"})"), "none");
}

TEST_F(DispatcherTest, MissingThingsHaveErrorsOfTheirOwn) {
  EXPECT_EQ(error("io.stackwatch.GetStacks", R"({"pid":1})"), "io.stackwatch.NoSuchProcess");
  EXPECT_EQ(error("io.stackwatch.GetStacks", R"({"pid":4712})"), "io.stackwatch.NotAttached");
  EXPECT_EQ(error("io.stackwatch.GetAlert", R"({"id":"x"})"), "io.stackwatch.NoSuchAlert");
  EXPECT_EQ(error("org.varlink.service.GetInterfaceDescription", R"({"interface":"x"})"),
            "org.varlink.service.InterfaceNotFound");
  EXPECT_EQ(error("io.stackwatch.Subscribe"), "org.varlink.service.ExpectedMore");
}

TEST_F(DispatcherTest, NobodyUpgradesAndOnewayGetsNoReply) {
  EXPECT_STREQ(replies(handle(R"({"method":"io.stackwatch.GetStatus","upgrade":true})")).at(0)["error"].GetString(),
               "org.varlink.service.InvalidParameter");
  EXPECT_TRUE(handle(R"({"method":"io.stackwatch.GetStatus","oneway":true})").output.empty());
  EXPECT_TRUE(handle(R"({"method":"io.stackwatch.Nothing","oneway":true})").output.empty());
}

TEST_F(DispatcherTest, EveryMethodOfTheInterfaceIsThereAndTheOtherWayRound) {
  size_t methods = 0;
  for (size_t at = 0; (at = kStackwatchInterface.find("\nmethod ", at)) != std::string_view::npos; ++methods) {
    at += 8;
    const std::string name(kStackwatchInterface.substr(at, kStackwatchInterface.find('(', at) - at));
    const std::string answer = error("io.stackwatch." + name);
    EXPECT_NE(answer, "org.varlink.service.MethodNotFound") << name;
    EXPECT_NE(answer, "org.varlink.service.MethodNotImplemented") << name;
  }
  EXPECT_EQ(methods, 10U);
}

TEST_F(DispatcherTest, StatusTellsOfTheClientsToo) {
  counters_.clients = 3;
  counters_.refused = 2;
  counters_.dropped = 1;
  const auto reply = call("io.stackwatch.GetStatus");
  EXPECT_EQ(reply["parameters"]["control_clients"].GetInt(), 3);
  EXPECT_EQ(reply["parameters"]["control_refused"].GetInt(), 2);
  EXPECT_EQ(reply["parameters"]["control_dropped"].GetInt(), 1);
  EXPECT_EQ(reply["parameters"]["census_method"], "fake");
}

TEST_F(DispatcherTest, WhatIsSentIsWhatTheInterfaceDeclares) {
  const auto status = call("io.stackwatch.GetStatus");
  EXPECT_EQ(members(status["parameters"]), declared("method GetStatus() -> ("));
  EXPECT_EQ(members(status["parameters"]["lost"]), declared("type Losses ("));
  const auto ranking = call("io.stackwatch.GetRanking");
  EXPECT_EQ(members(ranking["parameters"]["ranking"][0]), declared("type RankingRow ("));
  EXPECT_EQ(members(ranking["parameters"]["ranking"][0]["process"]), declared("type Process ("));
  const auto attachments = call("io.stackwatch.ListAttachments");
  EXPECT_EQ(members(attachments["parameters"]["attachments"][0]), declared("type Attachment ("));
  const auto stacks = call("io.stackwatch.GetStacks", R"({"pid":4711,"series":true})");
  EXPECT_EQ(members(stacks["parameters"]["stacks"][0]), declared("type Stack ("));
  Alert full = FakeBackend::make_alert("a", AlertState::kResolved, kDay);
  full.processes = {{full.process, full.onset_ns, 1, 2, true}, {full.process, full.onset_ns, 1, 2, false}};
  full.processes_omitted = 1;
  full.shift = {"moved", "left", "right", "dispatch", "leaf"};
  full.parts = {{ProbeKind::kCensus, "rate", "", full.onset_ns, 1, 2, "cores", true}};
  full.named_ns = kDay;
  backend_.all_alerts = {full};
  const auto answer = call("io.stackwatch.GetAlert", R"({"id":"a"})");
  const auto& alert = answer["parameters"]["alert"];
  EXPECT_EQ(members(alert), declared("type Alert ("));
  EXPECT_EQ(members(alert["processes"][0]), declared("type AlertProcess ("));
  EXPECT_EQ(members(alert["shift"]), declared("type Shift ("));
  EXPECT_EQ(members(alert["parts"][0]), declared("type AlertPart ("));
}

TEST_F(DispatcherTest, RankingPassesItsParametersOn) {
  EXPECT_EQ(call("io.stackwatch.GetRanking", R"({"limit":1,"by":"rss"})")["parameters"]["ranking"].Size(), 1U);
  EXPECT_EQ(backend_.last_by, "rss");
  EXPECT_EQ(call("io.stackwatch.GetRanking")["parameters"]["ranking"].Size(), 2U);
  EXPECT_EQ(backend_.last_by, "");
}

TEST_F(DispatcherTest, AlertsAreFilteredByTimeAndState) {
  backend_.all_alerts = {FakeBackend::make_alert("new", AlertState::kFiring, kDay + 10),
                         FakeBackend::make_alert("old", AlertState::kResolved, kDay - 10)};
  EXPECT_EQ(call("io.stackwatch.ListAlerts")["parameters"]["alerts"].Size(), 2U);
  const auto since = call("io.stackwatch.ListAlerts", R"({"since":"2026-11-22T12:00:00Z"})");
  ASSERT_EQ(since["parameters"]["alerts"].Size(), 1U);
  EXPECT_STREQ(since["parameters"]["alerts"][0]["id"].GetString(), "new");
  const auto state = call("io.stackwatch.ListAlerts", R"({"state":"resolved"})");
  ASSERT_EQ(state["parameters"]["alerts"].Size(), 1U);
  EXPECT_STREQ(state["parameters"]["alerts"][0]["id"].GetString(), "old");
}

TEST_F(DispatcherTest, ASubscriptionBeginsWithThePastWhereAskedOldestFirst) {
  backend_.all_alerts = {FakeBackend::make_alert("new", AlertState::kFiring, kDay + 10),
                         FakeBackend::make_alert("old", AlertState::kFiring, kDay + 5)};
  const Outcome plain = handle(R"({"method":"io.stackwatch.Subscribe","more":true})");
  EXPECT_TRUE(plain.output.empty());
  ASSERT_TRUE(plain.subscription);
  EXPECT_FALSE(plain.subscription->state);

  const Outcome since = handle(R"({"method":"io.stackwatch.Subscribe","more":true,)"
                               R"("parameters":{"since":"2026-11-22T12:00:00Z","state":"firing"}})");
  ASSERT_TRUE(since.subscription);
  EXPECT_TRUE(since.subscription->wants(backend_.all_alerts[0]));
  EXPECT_FALSE(since.subscription->wants(FakeBackend::make_alert("x", AlertState::kResolved, 1)));
  const auto all = replies(since);
  ASSERT_EQ(all.size(), 2U);
  EXPECT_STREQ(all[0]["parameters"]["alert"]["id"].GetString(), "old");
  EXPECT_TRUE(all[0]["continues"].GetBool());
}

}  // namespace
}  // namespace stackwatch
