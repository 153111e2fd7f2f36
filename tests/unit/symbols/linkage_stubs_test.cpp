// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/linkage_stubs.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "symbols/maps.h"
#include "symbols/worker/elf_object.h"

namespace stackwatch {
namespace {

/// What binutils calls the stubs of a file, by their addresses; nothing where it has no objdump.
std::optional<std::map<uint64_t, std::string>> stubs_by_objdump(const std::string& path) {
  const std::string command = "objdump -d -j .plt -j .plt.got -j .plt.sec '" + path + "' 2>/dev/null";
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return std::nullopt;
  std::map<uint64_t, std::string> stubs;
  char line[8192];
  while (std::fgets(line, sizeof line, pipe) != nullptr) {
    unsigned long long address = 0;
    char name[4096];
    if (std::sscanf(line, "%llx <%4095[^>]>:", &address, name) != 2) continue;
    std::string text = name;
    // Those that lead to the object itself have no name in .dynsym.
    if (text.ends_with("@plt") && !text.starts_with('*')) stubs[address] = std::move(text);
  }
  if (::pclose(pipe) != 0) return std::nullopt;
  return stubs;
}

std::optional<uint64_t> offset_of(const ElfObject& object, uint64_t vaddr) {
  for (const LoadedSegment& segment : object.segments()) {
    if (vaddr >= segment.vaddr && vaddr - segment.vaddr < segment.bytes) return vaddr - segment.vaddr + segment.offset;
  }
  return std::nullopt;
}

std::set<std::string> own_objects() {
  std::ifstream file("/proc/self/maps");
  std::set<std::string> paths;
  for (const MapsEntry& entry : parse_maps(std::string(std::istreambuf_iterator<char>(file), {}))) {
    if (entry.path.starts_with('/')) paths.insert(entry.path);
  }
  return paths;
}

TEST(LinkageStubs, AreCalledAsBinutilsCallThem) {
  size_t compared = 0;
  for (const std::string& path : own_objects()) {
    const auto expected = stubs_by_objdump(path);
    if (!expected) continue;
    auto object = ElfObject::open(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
    ASSERT_TRUE(object) << path;
    for (const auto& [address, name] : *expected) {
      for (const uint64_t inside : {0, 7}) {
        const auto offset = offset_of(**object, address + inside);
        ASSERT_TRUE(offset) << path << ' ' << name;
        const auto found = (*object)->find(*offset);
        ASSERT_TRUE(found) << path << ' ' << name;
        EXPECT_EQ(found->name, name) << path;
        EXPECT_EQ(found->start, address) << path << ' ' << name;
      }
      ++compared;
    }
  }
  if (compared == 0) GTEST_SKIP() << "REQUIRES objdump (package binutils)";
  EXPECT_GT(compared, 200U);
  RecordProperty("stubs", static_cast<int>(compared));
}

}  // namespace
}  // namespace stackwatch
