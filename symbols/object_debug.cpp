// SPDX-License-Identifier: Apache-2.0
// The part of ObjectTable that finds separate debug files for the worker.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "symbols/object_table.h"

namespace stackwatch {
namespace {

constexpr std::string_view kDebugRoot = "/usr/lib/debug";

/// `/usr/lib/debug/.build-id/ab/cdef….debug`; nothing where the build-id is too short for that.
void add_by_build_id(std::vector<std::string>& paths, const std::string& id) {
  if (id.size() <= 2) return;
  paths.push_back(std::string(kDebugRoot) + "/.build-id/" + id.substr(0, 2) + "/" + id.substr(2) + ".debug");
}

/// With the last `/`; empty where there is none.
std::string directory_of(std::string_view path) { return std::string(path.substr(0, path.rfind('/') + 1)); }

/// Where gdb looks, too. A link that is more than a file's name is somebody's try to have other files read.
std::vector<std::string> paths_of_debug_file(std::string_view object, const std::string& build_id,
                                             const std::string& link) {
  std::vector<std::string> paths;
  add_by_build_id(paths, build_id);
  static constexpr std::string_view kDeleted = " (deleted)";
  if (object.ends_with(kDeleted)) object.remove_suffix(kDeleted.size());
  const std::string directory = directory_of(object);
  if (!directory.starts_with('/') || link.empty() || link.find('/') != std::string::npos) return paths;
  paths.push_back(directory + link);
  paths.push_back(directory + ".debug/" + link);
  paths.push_back(std::string(kDebugRoot) + directory + link);
  // /lib and /usr/lib are the same since usrmerge, but packages were made for either.
  static constexpr std::string_view kUsr = "/usr";
  if (directory.starts_with("/usr/")) paths.push_back(std::string(kDebugRoot) + directory.substr(kUsr.size()) + link);
  return paths;
}

/// dwz's link is relative to the file that has it.
std::vector<std::string> paths_of_supplementary(const std::string& from, const std::string& build_id,
                                                const std::string& link) {
  std::vector<std::string> paths;
  if (!link.empty()) paths.push_back(link.starts_with('/') ? link : directory_of(from) + link);
  add_by_build_id(paths, build_id);
  return paths;
}

}  // namespace

std::string hex(std::span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<unsigned>(byte) >> 4U];
    text += kDigits[std::to_integer<unsigned>(byte) & 0xfU];
  }
  return text;
}

void ObjectTable::drop_debug(Object& object) {
  held_files_ -= object.debug_files.size();
  object.debug_files.clear();
  object.offered = false;
  object.wish = protocol::Wish::kNothing;
}

/// Has the file looked for that the worker wishes for. What cannot be had is done without.
void ObjectTable::search_debug(uint32_t id, Object& object, const protocol::ObjectInfo& info) {
  object.debug = Debug::kSettled;
  object.wish = info.wish;
  if (info.wish != protocol::Wish::kNothing && !object.places.empty()) {
    const Place& place = object.places.back();
    const bool supplementary = info.wish == protocol::Wish::kSupplementary;
    const std::string wanted = hex(info.wish_id);
    const std::string& from = object.debug_path.empty() ? object.path : object.debug_path;
    auto paths = supplementary ? paths_of_supplementary(from, wanted, info.link)
                               : paths_of_debug_file(object.path, wanted, info.link);
    if (reader_.search({place.process, place.pid_in_ns, object.identity, supplementary, std::move(paths)})) {
      object.debug = Debug::kSearching;
    }
  }
  if (object.debug == Debug::kSettled) enqueue(id, object);
}

void ObjectTable::take_searched(AddressSpaceReader::Searched searched) {
  const auto known = index_.find(searched.identity);
  if (known == index_.end()) return;
  Object& object = objects_.at(known->second);
  const bool for_this = searched.supplementary == (object.wish == protocol::Wish::kSupplementary);
  if (object.debug != Debug::kSearching || !for_this) return;
  for (AddressSpaceReader::FoundFile& found : searched.files) {
    if (held_files_ >= kMaxHeldFiles) break;
    ++held_files_;
    object.debug_files.push_back(std::move(found));
  }
  object.debug = object.debug_files.empty() ? Debug::kSettled : Debug::kOffering;
  enqueue(known->second, object);
}

/// False where the worker could not take it now.
bool ObjectTable::offer_debug(uint32_t id, Object& object) {
  if (object.offered || object.debug_files.empty()) return true;
  AddressSpaceReader::FoundFile& found = object.debug_files.front();
  const auto kind = object.wish == protocol::Wish::kSupplementary         ? protocol::FileKind::kSupplementary
                    : found.path.find("/.build-id/") != std::string::npos ? protocol::FileKind::kDebugFile
                                                                          : protocol::FileKind::kLinkedFile;
  if (!worker_.add_debug_file(id, found.file.get(), kind)) return false;
  object.offered = true;
  object.debug_path = std::move(found.path);
  object.debug_files.pop_front();
  --held_files_;
  return true;
}

void ObjectTable::take_word_on_debug(uint32_t id, Object& object, const protocol::ObjectInfo& info) {
  object.offered = false;
  if (info.status == protocol::ObjectStatus::kReadable) {
    ++debug_files_;
    object.has_debug_info = object.has_debug_info || info.has_debug_info;
    drop_debug(object);
    search_debug(id, object, info);
    return;
  }
  if (object.debug_files.empty()) object.debug = Debug::kSettled;
  enqueue(id, object);
}

}  // namespace stackwatch
