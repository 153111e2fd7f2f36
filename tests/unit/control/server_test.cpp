// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <rapidjson/document.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <thread>

#include "core/unique_fd.h"
#include "daemon/control/dispatcher.h"
#include "tests/unit/control/fake_backend.h"
#include "tests/unit/control/temp_dir.h"

namespace stackwatch {
namespace {

using namespace std::string_view_literals;
constexpr auto kGetStatus = "{\"method\":\"io.stackwatch.GetStatus\"}\0"sv;
constexpr auto kSubscribe = "{\"method\":\"io.stackwatch.Subscribe\",\"more\":true}\0"sv;
constexpr auto kGetStacks = "{\"method\":\"io.stackwatch.GetStacks\",\"parameters\":{\"pid\":4711}}\0"sv;

struct LoopRelease {
  void operator()(sd_event* loop) const { sd_event_unref(loop); }
};

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    sd_event* loop = nullptr;
    ASSERT_GE(sd_event_new(&loop), 0);
    loop_.reset(loop);
  }
  void start(size_t max_clients = 64, uint64_t patience_us = 5'000'000) {
    auto server =
        ControlServer::start(loop_.get(), backend_, {path_, "no-such-group-stackwatch-test", max_clients, patience_us});
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
  }
  /// Lets the server do all that it can do now; gives up on one that never comes to rest.
  void pump() {
    for (int i = 0; i < 100'000; ++i) {
      const int dispatched = sd_event_run(loop_.get(), 0);
      ASSERT_GE(dispatched, 0);
      if (dispatched == 0) return;
    }
    FAIL() << "the server spins";
  }
  UniqueFd connect() {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path_.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0) << std::strerror(errno);
    return fd;
  }
  static void send_all(const UniqueFd& fd, std::string_view bytes) {
    ASSERT_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  /// What has come by now, and whether the server has closed the connection.
  static std::string receive(const UniqueFd& fd, bool* closed = nullptr) {
    std::string bytes;
    char chunk[65536];
    ssize_t count = 0;
    while ((count = recv(fd.get(), chunk, sizeof(chunk), 0)) > 0) bytes.append(chunk, static_cast<size_t>(count));
    if (closed != nullptr) *closed = count == 0 || errno != EAGAIN;
    return bytes;
  }
  static std::vector<rapidjson::Document> parse_all(const std::string& bytes) {
    std::vector<rapidjson::Document> replies;
    for (size_t begin = 0; begin < bytes.size();) {
      const size_t end = bytes.find('\0', begin);
      EXPECT_NE(end, std::string::npos);
      if (end == std::string::npos) break;
      replies.emplace_back().Parse(bytes.data() + begin, end - begin);
      EXPECT_FALSE(replies.back().HasParseError());
      begin = end + 1;
    }
    return replies;
  }
  void expect_alive() {
    const UniqueFd client = connect();
    send_all(client, kGetStatus);
    pump();
    const auto replies = parse_all(receive(client));
    ASSERT_EQ(replies.size(), 1U);
    EXPECT_TRUE(replies[0].HasMember("parameters"));
  }

  TempDir dir_;
  std::string path_ = dir_ / "io.stackwatch";
  FakeBackend backend_;
  std::unique_ptr<sd_event, LoopRelease> loop_;
  std::unique_ptr<ControlServer> server_;
};

TEST_F(ServerTest, GarbageGetsAnErrorAndIsDisconnected) {
  start();
  for (const auto garbage : {"GET / HTTP/1.1\r\n\r\n\0"sv, "\0"sv, "\xFF\xFE\0"sv, "[]\0"sv, "{\"method\":1}\0"sv}) {
    const UniqueFd client = connect();
    send_all(client, garbage);
    pump();
    bool closed = false;
    const auto replies = parse_all(receive(client, &closed));
    ASSERT_EQ(replies.size(), 1U);
    EXPECT_STREQ(replies[0]["error"].GetString(), "io.stackwatch.InvalidMessage");
    EXPECT_TRUE(closed);
  }
  EXPECT_EQ(server_->counters().invalid, 5U);
  EXPECT_EQ(server_->counters().clients, 0U);
  expect_alive();
}

TEST_F(ServerTest, AHundredMegabytesWithoutAnEndCostNothing) {
  start();
  const UniqueFd client = connect();
  const std::string chunk(65536, '[');
  size_t taken = 0;
  bool refused = false;
  while (taken < 100'000'000 && !refused) {
    const ssize_t count = send(client.get(), chunk.data(), chunk.size(), MSG_NOSIGNAL);
    if (count > 0) taken += static_cast<size_t>(count);
    refused = count < 0 && errno != EAGAIN;
    pump();
  }
  EXPECT_TRUE(refused);
  EXPECT_LT(taken, 1'000'000U);
  const auto replies = parse_all(receive(client));
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_STREQ(replies[0]["error"].GetString(), "io.stackwatch.InvalidMessage");
  expect_alive();
}

TEST_F(ServerTest, AMessageMayComeByteByByte) {
  start();
  const UniqueFd client = connect();
  for (const char byte : kGetStatus) {
    EXPECT_EQ(receive(client), "");
    send_all(client, {&byte, 1});
    pump();
  }
  EXPECT_EQ(parse_all(receive(client)).size(), 1U);
}

TEST_F(ServerTest, PipelinedRequestsAreAnsweredInOrder) {
  start();
  const UniqueFd client = connect();
  std::string requests;
  for (int i = 0; i < 200; ++i) {
    requests += R"({"method":"io.stackwatch.GetAlert","parameters":{"id":")" + std::to_string(i) + "\"}}";
    requests.push_back('\0');
  }
  send_all(client, requests);
  pump();
  const auto replies = parse_all(receive(client));
  ASSERT_EQ(replies.size(), 200U);
  for (size_t i = 0; i < replies.size(); ++i) {
    EXPECT_STREQ(replies[i]["parameters"]["id"].GetString(), std::to_string(i).c_str());
  }
}

TEST_F(ServerTest, AClientThatHasSaidAllStillGetsItsReplies) {
  start();
  const UniqueFd client = connect();
  send_all(client, kGetStatus);
  send_all(client, kGetStatus.substr(0, 10));
  shutdown(client.get(), SHUT_WR);
  pump();
  bool closed = false;
  EXPECT_EQ(parse_all(receive(client, &closed)).size(), 1U);
  EXPECT_TRUE(closed);
}

TEST_F(ServerTest, LeavingInTheMiddleOfAnythingIsHarmless) {
  start();
  for (size_t length = 0; length <= kGetStatus.size(); ++length) {
    UniqueFd client = connect();
    if (length > 0) send_all(client, kGetStatus.substr(0, length));
    if (length % 2 == 0) pump();
    client.reset();
    pump();
    EXPECT_EQ(server_->counters().clients, 0U);
  }
  UniqueFd subscriber = connect();
  send_all(subscriber, kSubscribe);
  pump();
  EXPECT_EQ(server_->counters().subscribers, 1U);
  subscriber.reset();
  server_->broadcast(FakeBackend::make_alert("a", AlertState::kFiring, 1));
  pump();
  EXPECT_EQ(server_->counters().subscribers, 0U);
  EXPECT_EQ(server_->counters().clients, 0U);
}

TEST_F(ServerTest, AClientThatDoesNotReadIsNotAnsweredFurther) {
  backend_.stacks_report.rows.assign(64, {{std::string(65536, 'f')}, 1, {}});  // 4 MiB a reply
  start();
  const UniqueFd client = connect();
  constexpr int kRequests = 12;  // three times what all clients together may leave unread
  for (int i = 0; i < kRequests; ++i) send_all(client, kGetStacks);
  pump();
  EXPECT_EQ(server_->counters().dropped, 0U);
  std::ptrdiff_t replies = 0;
  for (int i = 0; i < 10'000 && replies < kRequests; ++i) {
    replies += std::ranges::count(receive(client), '\0');
    pump();
  }
  EXPECT_EQ(replies, kRequests);
}

TEST_F(ServerTest, WhatAllClientsLeaveUnreadIsBoundedAndTheLargestIsDropped) {
  backend_.stacks_report.rows.assign(64, {{std::string(65536, 'f')}, 1, {}});
  start();
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(connect());
    send_all(clients.back(), kGetStacks);
    pump();
  }
  EXPECT_GE(server_->counters().dropped, 5U);
  EXPECT_LE(server_->counters().clients, 5U);
  expect_alive();
}

TEST_F(ServerTest, ASubscriberThatDoesNotReadIsDroppedAndTheOthersHearAll) {
  start();
  const UniqueFd slow = connect();
  const UniqueFd quick = connect();
  send_all(slow, kSubscribe);
  send_all(quick, kSubscribe);
  pump();
  Alert alert = FakeBackend::make_alert("a", AlertState::kFiring, 1);
  alert.stack.assign(1, std::string(100'000, 'f'));
  std::ptrdiff_t heard = 0;
  for (int i = 0; i < 200; ++i) {
    server_->broadcast(alert);
    for (int tries = 0; tries < 100 && heard <= i; ++tries) {
      heard += std::ranges::count(receive(quick), '\0');
      pump();
    }
  }
  EXPECT_EQ(heard, 200);
  EXPECT_EQ(server_->counters().dropped, 1U);
  EXPECT_EQ(server_->counters().clients, 1U);
  EXPECT_EQ(server_->counters().subscribers, 1U);
}

TEST_F(ServerTest, ASubscriberHearsOfItsStateAloneAndOfNothingElse) {
  start();
  const UniqueFd client = connect();
  send_all(client,
           "{\"method\":\"io.stackwatch.Subscribe\",\"more\":true,\"parameters\":{\"state\":\"resolved\"}}\0"sv);
  send_all(client, kGetStatus);  // waits behind a call that never ends
  pump();
  server_->broadcast(FakeBackend::make_alert("a", AlertState::kFiring, 1));
  server_->broadcast(FakeBackend::make_alert("b", AlertState::kResolved, 1));
  pump();
  const auto replies = parse_all(receive(client));
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_STREQ(replies[0]["parameters"]["alert"]["id"].GetString(), "b");
  EXPECT_TRUE(replies[0]["continues"].GetBool());
}

TEST_F(ServerTest, ClientsOverTheLimitAreRefusedAndTheOthersServed) {
  start(3);
  std::vector<UniqueFd> idle;
  for (int i = 0; i < 3; ++i) idle.push_back(connect());
  pump();
  const UniqueFd refused = connect();
  pump();
  bool closed = false;
  const auto replies = parse_all(receive(refused, &closed));
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_STREQ(replies[0]["error"].GetString(), "io.stackwatch.TooManyClients");
  EXPECT_EQ(replies[0]["parameters"]["limit"].GetInt(), 3);
  EXPECT_TRUE(closed);
  EXPECT_EQ(server_->counters().refused, 1U);

  send_all(idle[0], kGetStatus);
  pump();
  EXPECT_EQ(parse_all(receive(idle[0])).size(), 1U);
  idle.pop_back();
  pump();
  expect_alive();
}

// Half a message, replies that nobody reads, nothing at all: whoever has been stuck longest makes room. A subscriber
// who has read everything keeps its place.
TEST_F(ServerTest, WhereAllPlacesAreTakenByStuckClientsANewOneIsServed) {
  start(4, 0);
  const UniqueFd subscriber = connect();
  send_all(subscriber, kSubscribe);
  pump();
  receive(subscriber);
  const UniqueFd silent = connect();
  pump();
  const UniqueFd half = connect();
  send_all(half, kGetStatus.substr(0, 10));
  pump();
  const UniqueFd deaf = connect();
  for (int i = 0; i < 4; ++i) send_all(deaf, kGetStacks);
  pump();
  EXPECT_EQ(server_->counters().clients, 4U);

  std::vector<UniqueFd> served;
  for (const UniqueFd* gone : {&silent, &half, &deaf}) {
    served.push_back(connect());
    send_all(served.back(), kGetStatus);
    pump();
    EXPECT_EQ(parse_all(receive(served.back())).size(), 1U);
    bool closed = false;
    receive(*gone, &closed);
    EXPECT_TRUE(closed);
  }
  EXPECT_EQ(server_->counters().dropped, 3U);
  bool closed = false;
  receive(subscriber, &closed);
  EXPECT_FALSE(closed);
}

TEST_F(ServerTest, AByteNowAndThenIsNoProgress) {
  start(2, 20'000);
  const UniqueFd trickling = connect();
  const UniqueFd busy = connect();
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    send_all(trickling, kGetStatus.substr(i, 1));
    send_all(busy, kGetStatus);
    pump();
    EXPECT_EQ(parse_all(receive(busy)).size(), 1U);
  }
  const UniqueFd client = connect();
  send_all(client, kGetStatus);
  pump();
  EXPECT_EQ(parse_all(receive(client)).size(), 1U);
  bool closed = false;
  receive(trickling, &closed);
  EXPECT_TRUE(closed);
  receive(busy, &closed);
  EXPECT_FALSE(closed);
}

TEST_F(ServerTest, SubscribersDoNotTakeAllPlaces) {
  start();
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(connect());
    send_all(clients.back(), kSubscribe);
    pump();
  }
  EXPECT_EQ(server_->counters().subscribers, Dispatcher::kMaxSubscribers);
  const auto replies = parse_all(receive(clients.back()));
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_STREQ(replies[0]["error"].GetString(), "io.stackwatch.TooManyClients");
  EXPECT_EQ(replies[0]["parameters"]["limit"].GetUint(), Dispatcher::kMaxSubscribers);
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  clients.push_back(connect());
  send_all(clients.back(), kGetStatus);
  pump();
  EXPECT_EQ(parse_all(receive(clients.back())).size(), 1U);
}

// As another user the clients may be as busy as they like, and root gets an answer at once.
TEST_F(ServerTest, NobodyKeepsRootAway) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be somebody else";
  start(3, 5'000'000);
  ASSERT_EQ(chmod(path_.c_str(), 0666), 0);
  ASSERT_EQ(chmod(std::filesystem::path(path_).parent_path().c_str(), 0711), 0);
  ASSERT_EQ(seteuid(65534), 0);
  std::vector<UniqueFd> others;
  for (int i = 0; i < 3; ++i) others.push_back(connect());
  ASSERT_EQ(seteuid(0), 0);
  send_all(others[0], kSubscribe);
  pump();
  send_all(others[1], kGetStatus);
  pump();
  const UniqueFd root = connect();
  send_all(root, kGetStatus);
  pump();
  EXPECT_EQ(parse_all(receive(root)).size(), 1U);
  EXPECT_EQ(server_->counters().clients, 3U);
  ASSERT_EQ(seteuid(65534), 0);
  const UniqueFd one_more = connect();
  ASSERT_EQ(seteuid(0), 0);
  pump();
  EXPECT_EQ(server_->counters().refused, 1U) << "who is not root waits";
}

TEST_F(ServerTest, WithoutDescriptorsClientsWaitAndTheLoopDoesNotSpin) {
  start();
  const UniqueFd client = connect();
  send_all(client, kGetStatus);
  rlimit old{};
  getrlimit(RLIMIT_NOFILE, &old);
  const rlimit none{3, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  pump();
  setrlimit(RLIMIT_NOFILE, &old);
  EXPECT_EQ(server_->counters().accepted, 0U);
  while (server_->counters().accepted == 0) ASSERT_GT(sd_event_run(loop_.get(), 5'000'000), 0);
  pump();
  EXPECT_EQ(parse_all(receive(client)).size(), 1U);
}

TEST_F(ServerTest, ASecondServerOnTheSameSocketIsToldAndTheFirstLivesOn) {
  start();
  const auto second = ControlServer::start(loop_.get(), backend_, {path_, "x", 64});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().why, "another daemon runs on this socket");
  expect_alive();
}

TEST_F(ServerTest, AnEndLeavesNoFileAndNoDescriptor) {
  const auto open_fds = [] {
    const std::filesystem::directory_iterator fds("/proc/self/fd");
    return std::distance(begin(fds), end(fds));
  };
  start();
  server_.reset();
  const auto before = open_fds();
  for (int i = 0; i < 20; ++i) {
    start();
    const UniqueFd client = connect();
    send_all(client, kSubscribe);
    pump();
    server_.reset();
  }
  EXPECT_EQ(open_fds(), before);
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / ""));
}

TEST_F(ServerTest, HundredsOfClientsOneAfterTheOtherLeaveNothing) {
  start(4);
  for (int i = 0; i < 300; ++i) expect_alive();
  pump();
  EXPECT_EQ(server_->counters().clients, 0U);
  EXPECT_EQ(server_->counters().accepted, 300U);
}

}  // namespace
}  // namespace stackwatch
