// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/debug_info.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "debug_files.h"
#include "elf_builder.h"
#include "symbols/worker/elf_object.h"

namespace stackwatch {
namespace {

UniqueFd open_path(const std::string& path) { return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)); }

std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// `file:line` of each frame, innermost first; the file without its directories.
std::string describe(const std::vector<SourceFrame>& frames) {
  std::string text;
  for (const SourceFrame& frame : frames) {
    text += std::filesystem::path(frame.file).filename().string() + ":" + std::to_string(frame.line) + " ";
  }
  return text;
}

/// What binutils say about addresses, as describe() writes it. Where they have no line (code of the compiler's own,
/// named by the symbol table's files), nothing.
std::vector<std::string> ask_addr2line(const std::string& program, const std::vector<uint64_t>& addresses) {
  std::ostringstream input;
  for (const uint64_t address : addresses) input << "0x" << std::hex << address << "\n";
  char name[] = "/tmp/stackwatch-addresses-XXXXXX";
  ::close(::mkstemp(name));
  std::ofstream(name) << input.str();
  FILE* const pipe = ::popen(("addr2line -a -i -e " + program + " < " + name).c_str(), "r");
  std::vector<std::string> answers;
  std::array<char, 8192> line{};
  while (pipe != nullptr && std::fgets(line.data(), line.size(), pipe) != nullptr) {
    std::string place(line.data());
    place.resize(std::min(place.find('\n'), place.find(" (discriminator")));
    if (place.starts_with("0x")) {
      answers.emplace_back();
      continue;
    }
    place = place.substr(place.rfind('/') + 1);
    if (!place.ends_with(":0") && !place.ends_with(":?")) answers.back() += place + " ";
  }
  if (pipe != nullptr) ::pclose(pipe);
  std::filesystem::remove(name);
  return answers;
}

/// Every fifth byte of the code.
std::vector<uint64_t> places_in(const std::string& program) {
  const auto object = ElfObject::open(open_path(program));
  std::vector<uint64_t> places;
  for (const LoadedSegment& segment : (*object)->segments()) {
    if (!segment.executable) continue;
    for (uint64_t at = 0; at < segment.bytes; at += 5) places.push_back(segment.vaddr + at);
  }
  return places;
}

class AgainstAddr2line : public ::testing::TestWithParam<const char*> {};

TEST_P(AgainstAddr2line, FilesAndLinesOfAllCallsAreTheSame) {
  if (!std::filesystem::exists("/usr/bin/addr2line")) GTEST_SKIP() << "REQUIRES addr2line of binutils";
  const auto places = places_in(GetParam());
  const auto theirs = ask_addr2line(GetParam(), places);
  ASSERT_EQ(theirs.size(), places.size());
  const UniqueFd file = open_path(GetParam());
  auto info = DebugInfo::open(file.get(), -1);
  ASSERT_TRUE(info) << info.error().message();
  size_t known = 0;
  size_t equal = 0;
  size_t inlined = 0;
  for (size_t i = 0; i < places.size(); ++i) {
    if (theirs[i].empty()) continue;
    ++known;
    const auto frames = (*info)->find(places[i]);
    const std::string ours = describe(frames);
    if (frames.size() > 1) ++inlined;
    equal += ours == theirs[i] ? 1 : 0;
    if (ours != theirs[i] && known - equal < 20) {
      std::printf("at %lx\n  ours   %s\n  theirs %s\n", static_cast<unsigned long>(places[i]), ours.c_str(),
                  theirs[i].c_str());
    }
  }
  std::printf("%zu places with source, %zu with inlined calls, %zu equal\n", known, inlined, equal);
  EXPECT_GT(known, 400U);
  EXPECT_GT(inlined, 200U);
  EXPECT_GE(static_cast<double>(equal), 0.99 * static_cast<double>(known));
}

INSTANTIATE_TEST_SUITE_P(Compiled, AgainstAddr2line, ::testing::Values(DEBUG_DWARF5, DEBUG_DWARF4, DEBUG_SMALL));

TEST(DebugInfoBadInput, FilesWithoutItAreRefused) {
  EXPECT_FALSE(DebugInfo::open(memory_file("").get(), -1));
  EXPECT_FALSE(DebugInfo::open(memory_file("not ELF at all").get(), -1));
  EXPECT_FALSE(DebugInfo::open(memory_file(ElfBuilder().symbol("f", 0, 16).build()).get(), -1));
  EXPECT_FALSE(DebugInfo::open(-1, -1));
}

/// Cut anywhere, and with bytes turned anywhere: some answer or none, but no harm. (The sanitizers look on.)
TEST(DebugInfoBadInput, CutAndDamagedFilesDoNoHarm) {
  const std::string whole = slurp(DEBUG_DWARF5);
  const auto places = places_in(DEBUG_DWARF5);
  std::mt19937 random(7);
  const UniqueFd sound = memory_file(whole);
  ASSERT_TRUE(DebugInfo::open(sound.get(), -1)) << "undamaged it is read";
  for (int i = 0; i < 40; ++i) {
    std::string bytes = whole;
    if (i % 2 == 0) bytes.resize(random() % bytes.size());
    // The sections of debug information are in the second half of the file.
    for (int turn = 0; turn < 30 && bytes.size() > 100; ++turn) {
      bytes[bytes.size() / 3 + random() % (bytes.size() - bytes.size() / 3)] = static_cast<char>(random());
    }
    const UniqueFd file = memory_file(bytes);
    auto info = DebugInfo::open(file.get(), -1);
    for (size_t at = 0; info && at < places.size(); at += 97) static_cast<void>((*info)->find(places[at]));
  }
}

TEST(DebugInfoBadInput, FileThatShrinksWhileItIsRead) {
  const UniqueFd file = memory_file(slurp(DEBUG_DWARF5));
  const auto places = places_in(DEBUG_DWARF5);
  auto info = DebugInfo::open(file.get(), -1);
  ASSERT_TRUE(info);
  ASSERT_EQ(::ftruncate(file.get(), 4096), 0);
  for (size_t at = 0; at < places.size(); at += 31) static_cast<void>((*info)->find(places[at]));
}

TEST(DebugInfo, TellsTheMemoryItTakes) {
  const UniqueFd file = open_path(DEBUG_DWARF5);
  auto info = DebugInfo::open(file.get(), -1);
  ASSERT_TRUE(info);
  EXPECT_GE((*info)->bytes(), debug_section_bytes(file.get()));
  const size_t before = (*info)->bytes();
  for (const uint64_t place : places_in(DEBUG_DWARF5)) static_cast<void>((*info)->find(place));
  EXPECT_GT((*info)->bytes(), before);
}

TEST(DebugInfo, WorthItsMemoryOnly) {
  // A section that says it is 3 GB when uncompressed: libelf would believe it.
  std::string bytes = slurp(DEBUG_SMALL);
  Elf64_Ehdr header;
  std::memcpy(&header, bytes.data(), sizeof header);
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr section;
    std::memcpy(&section, bytes.data() + header.e_shoff + i * sizeof section, sizeof section);
    if ((section.sh_flags & SHF_COMPRESSED) == 0) continue;
    Elf64_Chdr compressed;
    std::memcpy(&compressed, bytes.data() + section.sh_offset, sizeof compressed);
    compressed.ch_size = 3ULL << 30;
    std::memcpy(bytes.data() + section.sh_offset, &compressed, sizeof compressed);
  }
  EXPECT_FALSE(DebugInfo::open(memory_file(bytes).get(), -1));
  EXPECT_TRUE(DebugInfo::open(memory_file(slurp(DEBUG_SMALL)).get(), -1));
}

}  // namespace
}  // namespace stackwatch
