// SPDX-License-Identifier: Apache-2.0
// The part of Namer that turns what was read of an address space into mappings of known objects.
#include <algorithm>
#include <string_view>
#include <utility>

#include "symbols/namer_impl.h"

namespace stackwatch {
namespace {

constexpr uint32_t kNoObject = 0;
constexpr uint32_t kNotLookedUp = UINT32_MAX;

}  // namespace

void Namer::take_space(AddressSpaceReader::Space space) {
  Image* const image = find_image(space.process, space.exec);
  if (image == nullptr) return;
  const Process& owner = processes_.at(space.process);
  const bool current = image == &owner.images.back();
  // What was read after an exec belongs to the next image, whoever asked for it.
  if (space.alive && current) {
    fill_image(*image, space, owner.pid_in_ns);
    image->was_read = true;
    image->state = Image::State::kRead;
  } else {
    image->state = Image::State::kGone;  // what was read before stays in use
  }
  for (const uint64_t id : std::exchange(image->waiting, {})) {
    const auto stack = stacks_.find(id);
    if (stack == stacks_.end()) continue;
    place(id, stack->second);
    finish_if_named(id);
  }
}

void Namer::fill_image(Image& image, AddressSpaceReader::Space& space, int32_t pid_in_ns) {
  std::vector<Code> code;
  std::vector<uint32_t> file_objects(space.files.size(), kNotLookedUp);
  const uint32_t jit = use_jit(space.process, pid_in_ns, space);
  bool news = false;
  for (const AddressSpaceReader::Mapping& mapping : space.mappings) {
    code.push_back(make_code(space.process, pid_in_ns, space, mapping, file_objects, jit));
    const Code* const old = find_code(image, code.back().start);
    news = news || old == nullptr || old->end < code.back().end;
  }
  if (image.was_read && news) image.rereads = std::min(kRereads, image.rereads + 1);
  release_image(image);
  image.code = std::move(code);
  image.jit = jit;
}

uint32_t Namer::use_jit(const ProcessKey& process, int32_t pid_in_ns, AddressSpaceReader::Space& space) {
  if (!space.jit) return kNoObject;
  return objects_.use(*space.jit, ObjectTable::Place{process, pid_in_ns, 0, 0, true}).value_or(kNoObject);
}

Namer::Code Namer::make_code(const ProcessKey& process, int32_t pid_in_ns, AddressSpaceReader::Space& space,
                             const AddressSpaceReader::Mapping& mapping, std::vector<uint32_t>& file_objects,
                             uint32_t jit) {
  const MapsEntry& entry = mapping.entry;
  Code code{entry.start, entry.end, entry.file_offset, kNoObject, {}, entry.may_be_jit()};
  if (entry.path == "[vdso]") {
    code.object = protocol::kVdsoObject;
    code.file_offset = 0;
  } else if (code.may_be_jit && jit != kNoObject) {
    code.object = jit;
    code.file_offset = entry.start;  // offsets in a JIT's map are addresses
    objects_.retain(jit);
  } else if (mapping.file == AddressSpaceReader::kNoFile) {
    const bool named = entry.path.starts_with('[') && !entry.path.starts_with("[anon");
    code.name = functions_.intern("", named ? protocol::clean_name(entry.path) : std::string("[anon]"));
  } else {
    AddressSpaceReader::MappedFile& file = space.files[mapping.file];
    uint32_t& object = file_objects[mapping.file];
    if (object == kNotLookedUp) {
      const ObjectTable::Place place{process, pid_in_ns, entry.start, entry.end};
      object = file.identified ? objects_.use(file, place).value_or(kNoObject) : kNoObject;
    } else if (object != kNoObject) {
      objects_.retain(object);
    }
    code.object = object;
    if (object == kNoObject) {
      const std::string label = "[" + protocol::clean_name(object_basename(file.path)) + "]";
      code.name = functions_.intern(protocol::clean_name(file.path), label);
    }
  }
  return code;
}

const Namer::Code* Namer::find_code(const Image& image, uint64_t address) {
  const auto after = std::upper_bound(image.code.begin(), image.code.end(), address,
                                      [](uint64_t value, const Code& code) { return value < code.start; });
  if (after == image.code.begin() || address >= std::prev(after)->end) return nullptr;
  return &*std::prev(after);
}

void Namer::release_image(const Image& image) {
  release_code(image.code);
  if (image.jit != kNoObject) objects_.release(image.jit);
}

void Namer::release_code(const std::vector<Code>& code) {
  for (const Code& part : code) {
    if (part.object >= protocol::kFirstFileObject) objects_.release(part.object);
  }
}

void Namer::forget(const ProcessKey& process) {
  if (const auto owner = processes_.find(process); owner != processes_.end()) {
    for (const Image& image : owner->second.images) release_image(image);
    processes_.erase(owner);
  }
  std::erase_if(stacks_, [&](const auto& entry) { return entry.second.named.process == process; });
  std::erase_if(named_, [&](const NamedStack& named) { return named.process == process; });
}

}  // namespace stackwatch
