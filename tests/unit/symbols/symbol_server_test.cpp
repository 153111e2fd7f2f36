// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <thread>

namespace stackwatch {
namespace {

constexpr uint32_t kObject = 7;

/// A server in a thread, with a program that has debug information.
class SymbolServerTest : public testing::Test {
 protected:
  void serve(int idle_ms) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    mine_.reset(ends[0]);
    its_.reset(ends[1]);
    const timeval idle{.tv_sec = idle_ms / 1000, .tv_usec = idle_ms % 1000 * 1000};
    ASSERT_EQ(setsockopt(its_.get(), SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle), 0);
    thread_ = std::thread([this] { EXPECT_TRUE(server_.serve(its_.get())); });
    EXPECT_FALSE(receive().empty());  // hello
  }
  protocol::Bytes receive() {
    const auto received = protocol::receive_packet(mine_.get(), false);
    EXPECT_EQ(received.status, protocol::IoStatus::kDone);
    return received.packet;
  }
  protocol::Bytes ask(const protocol::Request& request, int file = -1) {
    EXPECT_EQ(protocol::send_packet(mine_.get(), protocol::encode(request), file), protocol::IoStatus::kDone);
    return receive();
  }
  protocol::Bytes name_something(uint32_t sequence) {
    return ask(protocol::Resolve{sequence, kObject, {0x1300, 0x1320}});
  }
  void end() {
    mine_.reset();
    thread_.join();
  }

  SymbolServer server_;
  UniqueFd mine_;
  UniqueFd its_;
  std::thread thread_;
};

TEST_F(SymbolServerTest, WhoIsAskedForNothingGivesItsMemoryBackAndAnswersAsBefore) {
  serve(50);
  const UniqueFd program(open(DEBUG_DWARF5, O_RDONLY | O_CLOEXEC));
  ask(protocol::AddObject{1, kObject}, program.get());
  const auto before = name_something(2);
  usleep(2'000'000);
  EXPECT_EQ(name_something(2), before);
  usleep(2'000'000);
  end();
  EXPECT_EQ(server_.kept_bytes(), 0U);
}

TEST_F(SymbolServerTest, WhoIsBusyKeepsWhatItHasRead) {
  serve(60'000);
  const UniqueFd program(open(DEBUG_DWARF5, O_RDONLY | O_CLOEXEC));
  ask(protocol::AddObject{1, kObject}, program.get());
  name_something(2);
  end();
  EXPECT_GT(server_.kept_bytes(), 1000U);
}

}  // namespace
}  // namespace stackwatch
