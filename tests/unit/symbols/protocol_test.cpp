// SPDX-License-Identifier: Apache-2.0
#include "symbols/protocol.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <random>

namespace stackwatch::protocol {
namespace {

struct Pair {
  Pair() {
    int fds[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    ours.reset(fds[0]);
    theirs.reset(fds[1]);
  }
  UniqueFd ours;
  UniqueFd theirs;
};

Names two_names() {
  Names names{7, 20, {}};
  names.names.push_back({1, NameKind::kSymbol, 0x1000, "dictFind", ""});
  names.names.push_back({0, NameKind::kNone, 0, "", ""});
  return names;
}

TEST(Protocol, EveryCutAndEveryExtensionOfAPacketIsRefused) {
  const Bytes info = encode(ObjectInfo{1, 16, ObjectStatus::kReadable, Bytes(20)});
  const Bytes names = encode(two_names()).at(0);
  const Bytes resolve = encode(Request(Resolve{1, 16, {1, 2, 3}}));
  const Bytes find = encode(Request(FindAllocator{1, 16}));
  const Bytes allocator = encode(Allocator{1, 16, true, {{AllocatorRole::kNew, false, 0x1000}}});
  for (const Bytes& whole : {info, names, resolve, find, allocator}) {
    for (size_t length = 0; length < whole.size(); ++length) {
      EXPECT_FALSE(parse_reply(std::span(whole).first(length))) << length;
      EXPECT_FALSE(parse_request(std::span(whole).first(length))) << length;
    }
    Bytes longer = whole;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(parse_reply(longer));
    EXPECT_FALSE(parse_request(longer));
  }
}

TEST(Protocol, PlacesOfAnAllocatorArriveAsTheyWere) {
  const Allocator sent{3, 17, true, {{AllocatorRole::kRealloc, true, 0x98ef3}, {AllocatorRole::kNewReturn, false, 1}}};
  const auto reply = parse_reply(encode(sent));
  ASSERT_TRUE(reply);
  const auto& got = std::get<Allocator>(*reply);
  EXPECT_EQ(got.sequence, 3U);
  EXPECT_EQ(got.object, 17U);
  EXPECT_TRUE(got.uncounted_new);
  EXPECT_EQ(got.places, sent.places);
}

TEST(Protocol, AnAllocatorOfAnUnknownRoleIsRefusedAndOneOfTooManyPlacesIsCutAndSaysSo) {
  EXPECT_FALSE(parse_reply(encode(Allocator{1, 16, false, {{AllocatorRole::kCount, false, 1}}})));
  const auto reply = parse_reply(encode(
      Allocator{1, 16, false, std::vector<AllocatorPlace>(kMaxAllocatorPlaces + 1, {AllocatorRole::kFree, false, 1})}));
  ASSERT_TRUE(reply);
  EXPECT_EQ(std::get<Allocator>(*reply).places.size(), kMaxAllocatorPlaces);
  EXPECT_TRUE(std::get<Allocator>(*reply).uncounted_new);
}

TEST(Protocol, AbsurdNumbersAreRefused) {
  const auto with = [](Bytes packet, size_t at, uint16_t value) {
    std::memcpy(packet.data() + at, &value, sizeof value);
    return packet;
  };
  const Bytes names = encode(two_names()).at(0);
  ASSERT_TRUE(parse_reply(names));
  EXPECT_FALSE(parse_reply(with(names, 0, 0))) << "magic";
  EXPECT_FALSE(parse_reply(with(names, 4, 99))) << "type";
  EXPECT_FALSE(parse_reply(with(names, 6, 0))) << "count";
  EXPECT_FALSE(parse_reply(with(names, 6, 3))) << "count";
  EXPECT_FALSE(parse_reply(with(names, 6, 0xffff))) << "count";
  EXPECT_FALSE(parse_reply(with(names, sizeof(Header) + 8, kMaxOffsets))) << "index";
  EXPECT_FALSE(parse_reply(with(names, sizeof(Header) + 10, 3))) << "kind";
  EXPECT_FALSE(parse_reply(with(names, sizeof(Header) + 12, 0xffff))) << "length of the name";
  EXPECT_FALSE(parse_reply(with(names, sizeof(Header) + 14, 0xffff))) << "length of the module";
  const Bytes info = encode(ObjectInfo{1, 16, ObjectStatus::kReadable, Bytes(20)});
  EXPECT_FALSE(parse_reply(with(info, sizeof(Header), 3))) << "status";
  EXPECT_FALSE(parse_reply(with(info, sizeof(Header) + 4, 0xffff))) << "length of the build-id";
}

TEST(Protocol, RandomBytesAreRefusedOrUnderstoodButNeverACrash) {
  std::mt19937 random(42);
  const Bytes whole = encode(two_names()).at(0);
  int refused = 0;
  int understood = 0;
  for (int round = 0; round < 20'000; ++round) {
    Bytes packet = whole;
    for (int i = 0; i < 3; ++i) packet[random() % packet.size()] = static_cast<std::byte>(random());
    ++(parse_reply(packet) ? understood : refused);
    static_cast<void>(parse_request(packet));
  }
  EXPECT_GT(refused, 1000) << "a broken header or length";
  EXPECT_GT(understood, 1000) << "other letters in a name";
}

TEST(Protocol, WhatIsWrittenIsRead) {
  const auto reply = parse_reply(encode(two_names()).at(0));
  ASSERT_TRUE(reply);
  const auto& names = std::get<Names>(*reply);
  EXPECT_EQ(names.sequence, 7U);
  EXPECT_EQ(names.object, 20U);
  ASSERT_EQ(names.names.size(), 2U);
  EXPECT_EQ(names.names[0].name, "dictFind");
  EXPECT_EQ(names.names[0].index, 1U);
  EXPECT_EQ(names.names[1].kind, NameKind::kNone);
  const auto request = parse_request(encode(Request(Resolve{3, 16, {5, 6}})));
  ASSERT_TRUE(request);
  EXPECT_EQ(std::get<Resolve>(*request).offsets, (std::vector<uint64_t>{5, 6}));
}

TEST(Protocol, ManyLongNamesAreSplitOverPackets) {
  Names names{1, 16, {}};
  for (uint16_t i = 0; i < kMaxOffsets; ++i) {
    names.names.push_back({i, NameKind::kSymbol, i, std::string(1 << 20, 'x'), std::string(500, 'm')});
  }
  size_t total = 0;
  for (const Bytes& packet : encode(names)) {
    EXPECT_LE(packet.size(), kMaxMessageBytes);
    const auto reply = parse_reply(packet);
    ASSERT_TRUE(reply);
    for (const Name& name : std::get<Names>(*reply).names) {
      EXPECT_EQ(name.index, total++);
      EXPECT_EQ(name.name.size(), kMaxNameBytes);
      EXPECT_EQ(name.module.size(), kMaxModuleBytes);
    }
  }
  EXPECT_EQ(total, kMaxOffsets);
}

TEST(ProtocolSocket, FilesTravelOnlyWhereTheyAreWanted) {
  Pair pair;
  const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const Bytes packet = encode(Request(AddObject{1, 16}));
  ASSERT_EQ(send_packet(pair.ours.get(), packet, file.get()), IoStatus::kDone);
  const Received wanted = receive_packet(pair.theirs.get(), true);
  EXPECT_TRUE(wanted.file);
  EXPECT_NE(::fcntl(wanted.file.get(), F_GETFD) & FD_CLOEXEC, 0);

  ASSERT_EQ(send_packet(pair.ours.get(), packet, file.get()), IoStatus::kDone);
  const UniqueFd next_free(::dup(file.get()));
  const int expected = next_free.get() + 1;
  const Received unwanted = receive_packet(pair.theirs.get(), false);
  EXPECT_EQ(unwanted.status, IoStatus::kDone);
  EXPECT_FALSE(unwanted.file);
  EXPECT_LE(::fcntl(expected, F_GETFD), -1) << "a descriptor was smuggled in";
}

TEST(ProtocolSocket, OversizedEmptyAndClosed) {
  Pair pair;
  EXPECT_EQ(receive_packet(pair.ours.get(), false).status, IoStatus::kWouldBlock);
  const Bytes large(kMaxMessageBytes + 1);
  ASSERT_EQ(send_packet(pair.theirs.get(), large), IoStatus::kDone);
  EXPECT_EQ(receive_packet(pair.ours.get(), false).status, IoStatus::kFailed);
  pair.theirs.reset();
  EXPECT_EQ(receive_packet(pair.ours.get(), false).status, IoStatus::kClosed);
  EXPECT_EQ(send_packet(pair.ours.get(), large), IoStatus::kClosed);
}

TEST(CleanName, NothingThatBreaksOutputSurvives) {
  EXPECT_EQ(clean_name("operator<<(std::ostream&)"), "operator<<(std::ostream&)");
  EXPECT_EQ(clean_name("a;b\nc\x1b[31m\x7f"), "a?b?c?[31m?");
  EXPECT_EQ(clean_name("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7"),
            "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7");
  EXPECT_EQ(clean_name("\xff\xc3"), "??");
  EXPECT_EQ(clean_name("\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80"), "?????????") << "overlong, surrogate, too high";
  EXPECT_EQ(clean_name(std::string_view("a\0b", 3)), "a?b");
}

TEST(CleanName, LongNamesAreCutBetweenCharacters) {
  EXPECT_EQ(clean_name(std::string(kMaxNameBytes, 'x')), std::string(kMaxNameBytes, 'x'));
  EXPECT_EQ(clean_name(std::string(kMaxNameBytes + 1, 'x')), std::string(kMaxNameBytes - 3, 'x') + "...");
  std::string euros;
  for (int i = 0; i < 1000; ++i) euros += "\xe2\x82\xac";
  const std::string cut = clean_name(euros);
  EXPECT_LE(cut.size(), kMaxNameBytes);
  EXPECT_EQ((cut.size() - 3) % 3, 0U);
  EXPECT_EQ(clean_name(cut), cut);
}

}  // namespace
}  // namespace stackwatch::protocol
