// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/peer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/unique_fd.h"

namespace stackwatch {
namespace {

TEST(Peer, WhatIsNoSocketHasNone) {
  const UniqueFd fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(peer_of(fd.get()));
}

TEST(Peer, IsWhoMadeTheConnection) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd one(pair[0]);
  const UniqueFd other(pair[1]);
  const auto peer = peer_of(one.get());
  ASSERT_TRUE(peer);
  EXPECT_EQ(peer->pid, getpid());
  EXPECT_EQ(peer->uid, geteuid());
  EXPECT_EQ(peer->gid, getegid());
}

TEST(Peer, OnlyRootMayChangeAnything) {
  EXPECT_TRUE(may_change({1, 0, 1000}));
  EXPECT_FALSE(may_change({1, 1000, 0}));  // root's group is not root
  EXPECT_FALSE(may_change({1, 1, 1}));
  EXPECT_FALSE(may_change({1, static_cast<uid_t>(-1), 0}));
}

}  // namespace
}  // namespace stackwatch
