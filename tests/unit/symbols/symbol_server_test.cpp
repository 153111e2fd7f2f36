// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <string>
#include <thread>
#include <variant>
#include <vector>

namespace stackwatch {
namespace {

constexpr uint32_t kObject = 7;
constexpr off_t kElfHeader = 64;

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
  protocol::Bytes name_something(uint32_t sequence, uint32_t object = kObject) {
    return ask(protocol::Resolve{sequence, object, {0x1300, 0x1320}});
  }
  /// The names alone: an answer tells of which object they are.
  std::vector<std::string> names_of(uint32_t object) {
    const auto reply = protocol::parse_reply(name_something(2, object));
    const auto* names = reply ? std::get_if<protocol::Names>(&*reply) : nullptr;
    std::vector<std::string> all;
    if (names == nullptr) return all;
    for (const protocol::Name& name : names->names) all.push_back(name.name + " " + name.file);
    return all;
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

// A file that could not be read, as one that did not fit into memory: nothing of it is kept, and that is no answer for
// ever.
TEST_F(SymbolServerTest, WhatCouldNotBeReadIsReadAgain) {
  const UniqueFd program(open(DEBUG_DWARF5, O_RDONLY | O_CLOEXEC));
  struct stat info {};
  ASSERT_EQ(fstat(program.get(), &info), 0);
  const UniqueFd file(memfd_create("program", MFD_CLOEXEC));
  std::vector<char> bytes(static_cast<size_t>(info.st_size));
  ASSERT_EQ(pread(program.get(), bytes.data(), bytes.size(), 0), info.st_size);
  ASSERT_EQ(pwrite(file.get(), bytes.data(), bytes.size(), 0), info.st_size);
  serve(50);
  ask(protocol::AddObject{1, kObject + 1}, program.get());
  const std::vector<std::string> right = names_of(kObject + 1);
  usleep(2'000'000);  // nothing is kept of the other one either
  ask(protocol::AddObject{3, kObject}, file.get());
  const std::vector<char> nothing(bytes.size() - kElfHeader);
  ASSERT_EQ(pwrite(file.get(), nothing.data(), nothing.size(), kElfHeader), static_cast<ssize_t>(nothing.size()));
  EXPECT_NE(names_of(kObject), right);
  ASSERT_EQ(pwrite(file.get(), bytes.data(), bytes.size(), 0), info.st_size);
  usleep(2'000'000);
  EXPECT_EQ(names_of(kObject), right);
  end();
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
