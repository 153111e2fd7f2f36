// SPDX-License-Identifier: Apache-2.0
// How much of object files has names, and what finding them costs: for each file given, a line with the places asked,
// how they are known, CPU time and memory. Debug files are looked for as the daemon does, in this machine's root.
// For bench/symbols.sh.
#include <fcntl.h>
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "symbols/worker/debug_links.h"
#include "symbols/worker/named_object.h"

using namespace stackwatch;

namespace {

constexpr size_t kPlaces = 20'000;

double cpu_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

UniqueFd open_file(const std::string& path) { return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)); }

std::string hex(const std::vector<std::byte>& bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

/// The debug file and dwz's, by build-id as packages install them.
void add_debug_files(NamedObject& object) {
  std::string from;
  for (int i = 0; i < 2; ++i) {
    protocol::ObjectInfo info;
    object.describe(info);
    if (info.wish == protocol::Wish::kNothing) return;
    const std::string id = hex(info.wish_id);
    if (id.size() < 3) return;
    std::string path = "/usr/lib/debug/.build-id/" + id.substr(0, 2) + "/" + id.substr(2) + ".debug";
    auto kind = protocol::FileKind::kDebugFile;
    if (info.wish == protocol::Wish::kSupplementary) {
      kind = protocol::FileKind::kSupplementary;
      path = std::filesystem::path(from).parent_path() / info.link;
    }
    if (!object.use(kind, open_file(path))) return;
    from = path;
  }
}

/// Places in code that belongs to functions, at random: padding between functions is nobody's.
std::vector<uint64_t> places_in(NamedObject& object) {
  std::vector<uint64_t> places;
  std::mt19937_64 random(1);
  std::vector<LoadedSegment> code;
  uint64_t bytes = 0;
  for (const LoadedSegment& segment : object.elf().segments()) {
    if (segment.executable) code.push_back(segment);
    if (segment.executable) bytes += segment.bytes;
  }
  for (size_t i = 0; bytes > 0 && i < kPlaces; ++i) {
    uint64_t at = random() % bytes;
    for (const LoadedSegment& segment : code) {
      if (at < segment.bytes) {
        const auto range = object.elf().range_of(segment.vaddr + at);
        if (range) places.push_back(segment.offset + at);
        break;
      }
      at -= segment.bytes;
    }
  }
  return places;
}

bool measure(const std::string& path) {
  auto opened = NamedObject::open(open_file(path));
  if (!opened) {
    fmt::print(stderr, "{}: {}\n", path, opened.error().message());
    return false;
  }
  NamedObject& object = **opened;
  add_debug_files(object);
  const auto places = places_in(object);
  if (places.empty()) return true;
  object.unload();
  const double before = cpu_ms();
  static_cast<void>(object.find(places[0]));
  const double first = cpu_ms();
  size_t by_symbol = 0;
  size_t by_frame = 0;
  size_t with_line = 0;
  size_t inlined = 0;
  for (const uint64_t place : places) {
    const protocol::Name name = object.find(place);
    by_symbol += name.kind == protocol::NameKind::kSymbol ? 1 : 0;
    by_frame += name.kind == protocol::NameKind::kUnwindEntry ? 1 : 0;
    with_line += name.line > 0 ? 1 : 0;
    inlined += name.inlined.size();
  }
  const double end = cpu_ms();
  const auto percent = [&](size_t count) {
    return 100.0 * static_cast<double>(count) / static_cast<double>(places.size());
  };
  fmt::print("{:34.34} {:7.1f} {:7.1f} {:7.1f} {:8.2f} {:9.1f} {:9.1f} {:9.1f} {:9.1f}\n",
             std::filesystem::path(path).filename().string(), percent(by_symbol), percent(by_frame), percent(with_line),
             static_cast<double>(inlined) / static_cast<double>(places.size()), first - before,
             (end - first) * 1e3 / static_cast<double>(places.size()), static_cast<double>(object.table_bytes()) / 1e6,
             static_cast<double>(object.debug_bytes()) / 1e6);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  fmt::print("{:34} {:>7} {:>7} {:>7} {:>8} {:>9} {:>9} {:>9} {:>9}\n", "object", "symbol%", "frame%", "line%",
             "inlined", "first ms", "next us", "tables MB", "DWARF MB");
  bool fine = true;
  for (int i = 1; i < argc; ++i) fine = measure(argv[i]) && fine;
  return fine ? 0 : 1;
}
