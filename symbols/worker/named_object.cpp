// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/named_object.h"

#include <fcntl.h>

#include <string>
#include <utility>
#include <vector>

#include "symbols/worker/debug_links.h"
#include "symbols/worker/demangle.h"

namespace stackwatch {
namespace {

/// The object's file as a further descriptor, for a reader of its own.
UniqueFd duplicate(int file) { return UniqueFd(::fcntl(file, F_DUPFD_CLOEXEC, 0)); }

std::string readable(const std::string& name) { return protocol::clean_name(demangle(name)); }

/// clean_name() keeps the beginning of what is too long; of a path the end tells more.
std::string readable_path(const std::string& path) {
  return protocol::clean_name(path.size() > protocol::kMaxFileBytes ? path.substr(path.size() - protocol::kMaxFileBytes)
                                                                    : path);
}

}  // namespace

Result<std::unique_ptr<NamedObject>> NamedObject::open(UniqueFd file, bool use_debug_info) {
  auto elf = ElfObject::open(std::move(file));
  if (!elf) return Failure(elf.error());
  std::unique_ptr<NamedObject> object(new NamedObject(std::move(*elf)));
  object->use_debug_info_ = use_debug_info;
  if (use_debug_info) object->debug_section_bytes_ = debug_section_bytes(object->elf_->file());
  return object;
}

void NamedObject::describe(protocol::ObjectInfo& info) const {
  info.build_id = elf_->build_id();
  info.has_debug_info = debug_section_bytes_ > 0;
  if (!use_debug_info_ || supplementary_) return;
  if (info.has_debug_info) {
    if (auto link = read_supplementary_link(debug_source())) {
      info.wish = protocol::Wish::kSupplementary;
      info.link = std::move(link->path);
      info.wish_id = std::move(link->build_id);
    }
    return;
  }
  if (debug_file_) return;  // its symbols are all it had
  const auto link = read_debug_link(elf_->file());
  if (!link && info.build_id.empty()) return;
  info.wish = protocol::Wish::kDebugFile;
  info.wish_id = info.build_id;
  if (link) info.link = link->name;
}

/// A build-id must be the same where both have one; a file that was found by its name must have the right checksum,
/// too.
bool NamedObject::is_ours(int file, bool check_crc) const {
  const auto other = ElfObject::open(duplicate(file));
  if (!other) return false;
  const auto& id = elf_->build_id();
  const auto& other_id = (*other)->build_id();
  if (!id.empty() && !other_id.empty() && id != other_id) return false;
  if (!check_crc) return !id.empty() && id == other_id;
  const auto link = read_debug_link(elf_->file());
  return link && checksum(file) == link->crc;
}

bool NamedObject::use(protocol::FileKind kind, UniqueFd file) {
  if (!use_debug_info_ || !file) return false;
  if (kind == protocol::FileKind::kSupplementary) {
    const auto link = read_supplementary_link(debug_source());
    const auto other = ElfObject::open(duplicate(file.get()));
    if (supplementary_ || !link || !other || (*other)->build_id() != link->build_id) return false;
    debug_section_bytes_ += debug_section_bytes(file.get());
    supplementary_ = std::move(file);
  } else {
    if (debug_file_ || debug_section_bytes_ > 0 || !is_ours(file.get(), kind == protocol::FileKind::kLinkedFile)) {
      return false;
    }
    debug_section_bytes_ = debug_section_bytes(file.get());
    debug_file_ = std::move(file);
    elf_->use_symbols_of(debug_file_.get());
  }
  debug_.reset();
  debug_failed_ = false;
  return true;
}

protocol::Name NamedObject::find(uint64_t file_offset) {
  protocol::Name name;
  const auto vaddr = elf_->vaddr_of(file_offset);
  if (!vaddr) return name;
  if (const auto found = elf_->find(file_offset)) {
    name.kind = found->name.empty() ? protocol::NameKind::kUnwindEntry : protocol::NameKind::kSymbol;
    name.start = found->start;
    name.name = readable(found->name);
  }
  if (debug_section_bytes_ > 0 && !debug_failed_) add_source(name, *vaddr);
  return name;
}

void NamedObject::add_source(protocol::Name& name, uint64_t vaddr) {
  if (!debug_) {
    auto opened = DebugInfo::open(debug_source(), supplementary_ ? supplementary_.get() : -1);
    debug_failed_ = !opened;
    if (!opened) return;
    debug_ = std::move(*opened);
  }
  std::vector<SourceFrame> frames = debug_->find(vaddr);
  if (frames.empty()) return;
  // The symbol is preferred: it knows parts that were split off (`f.cold`) and clones (`f.constprop.0`).
  if (name.kind != protocol::NameKind::kSymbol && !frames.back().function.empty()) {
    name.kind = protocol::NameKind::kSymbol;
    name.name = readable(frames.back().function);
  }
  name.file = readable_path(frames.back().file);
  name.line = frames.back().line;
  frames.pop_back();
  for (auto frame = frames.rbegin(); frame != frames.rend(); ++frame) {
    // Nameless where dwz's file is not there: the line is then the function's that it was inlined into.
    if (frame->function.empty()) continue;
    name.inlined.push_back({readable(frame->function), readable_path(frame->file), frame->line});
  }
}

}  // namespace stackwatch
