// SPDX-License-Identifier: Apache-2.0
#include "cli/client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "tests/unit/cli/fake_daemon.h"

namespace stackwatch {
namespace {

/// A socket that accepts one client, reads its request, and answers with fixed bytes.
class ScriptedDaemon {
 public:
  explicit ScriptedDaemon(std::string answer) : answer_(std::move(answer)) {
    listener_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(listener_.get(), 1), 0);
    thread_ = std::thread([this] {
      const UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      char request[4096];
      static_cast<void>(!read(client.get(), request, sizeof(request)));
      static_cast<void>(send(client.get(), answer_.data(), answer_.size(), MSG_NOSIGNAL));
    });
  }
  ~ScriptedDaemon() { thread_.join(); }

  TempDir dir;
  std::string path = dir / "s";

 private:
  std::string answer_;
  UniqueFd listener_;
  std::thread thread_;
};

Error call_error(const std::string& answer) {
  const SystemClock clock;
  ScriptedDaemon daemon(answer);
  auto client = Client::connect(daemon.path, clock);
  EXPECT_TRUE(client);
  const auto reply = client->call("GetStatus");
  EXPECT_FALSE(reply) << answer;
  return reply ? Error{} : reply.error();
}

std::string message(const std::string& text) { return text + std::string(1, '\0'); }

TEST(ClientTest, WithoutADaemonTheExitCodeIsFour) {
  const SystemClock clock;
  TempDir dir;
  EXPECT_EQ(Client::connect(dir / "none", clock).error().kind, ErrorKind::kNoDaemon);
  EXPECT_EQ(Client::connect(dir / "no/dir", clock).error().kind, ErrorKind::kNoDaemon);
  std::ofstream(dir / "file") << "x";
  EXPECT_EQ(Client::connect(dir / "file", clock).error().kind, ErrorKind::kNoDaemon);
  EXPECT_EQ(Client::connect(dir / "file/s", clock).error().kind, ErrorKind::kNoDaemon);
  EXPECT_EQ(Client::connect(dir / std::string(200, 'x'), clock).error().kind, ErrorKind::kUsage);
  EXPECT_EQ(Client::connect("", clock).error().kind, ErrorKind::kUsage);
}

TEST(ClientTest, AnAnswerThatIsNoneIsAnError) {
  EXPECT_EQ(call_error("").why, "it closed the connection");
  EXPECT_EQ(call_error("{\"parameters\":{}}").why, "it closed the connection");
  EXPECT_EQ(call_error(message("HTTP/1.1 400")).why, "its answer is no Varlink reply");
  EXPECT_EQ(call_error(message("[]")).why, "its answer is no Varlink reply");
  EXPECT_EQ(call_error(message(R"({"error":"x.Y"})")).why, "it answered x.Y");
}

TEST(ClientTest, ErrorsOfTheDaemonHaveTheExitCodesOfTheContract) {
  const auto kind = [](const std::string& error) {
    return call_error(message(R"({"error":")" + error + R"(","parameters":{"message":"m","method":"M"}})")).kind;
  };
  EXPECT_EQ(kind("org.varlink.service.PermissionDenied"), ErrorKind::kUnsupported);
  EXPECT_EQ(kind("org.varlink.service.MethodNotFound"), ErrorKind::kFailed);
  EXPECT_EQ(kind("org.varlink.service.InterfaceNotFound"), ErrorKind::kFailed);
  EXPECT_EQ(kind("io.stackwatch.NoSuchProcess"), ErrorKind::kFailed);
  EXPECT_EQ(kind("io.stackwatch.TooManyClients"), ErrorKind::kFailed);
}

TEST(ClientTest, ADaemonThatHangsIsWaitedForOnlySoLong) {
  const SystemClock clock;
  TempDir dir;
  const std::string path = dir / "s";
  const UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listener.get(), 0), 0);
  constexpr double kShort_s = 0.1;
  auto client = Client::connect(path, clock, kShort_s);
  ASSERT_TRUE(client);
  const auto reply = client->call("GetStatus");
  ASSERT_FALSE(reply);
  EXPECT_NE(reply.error().why.find("did not answer"), std::string::npos);

  std::vector<Client> queue;  // fills the listener's backlog, which nobody takes from
  for (int i = 0; i < 10; ++i) {
    auto next = Client::connect(path, clock, kShort_s);
    if (!next) {
      EXPECT_NE(next.error().why.find("did not answer"), std::string::npos) << next.error().message();
      return;
    }
    queue.push_back(std::move(*next));
  }
  FAIL() << "the backlog has no end";
}

TEST(ClientTest, ARefusedClientLearnsWhy) {
  const SystemClock clock;
  FakeDaemon daemon;
  daemon.start(1);
  auto first = Client::connect(daemon.path, clock);
  ASSERT_TRUE(first);
  ASSERT_TRUE(first->call("GetStatus"));
  auto second = Client::connect(daemon.path, clock);
  ASSERT_TRUE(second);
  const auto reply = second->call("GetStatus");
  ASSERT_FALSE(reply);
  EXPECT_NE(reply.error().why.find("as many clients"), std::string::npos) << reply.error().message();
}

TEST(ClientTest, ManyCallsUseOneConnection) {
  const SystemClock clock;
  FakeDaemon daemon;
  daemon.start();
  auto client = Client::connect(daemon.path, clock);
  ASSERT_TRUE(client);
  for (int i = 0; i < 50; ++i) {
    const auto reply = client->call("GetStatus");
    ASSERT_TRUE(reply);
    EXPECT_EQ(integer_of(reply->parameters(), "control_clients"), 1);
  }
}

}  // namespace
}  // namespace stackwatch
