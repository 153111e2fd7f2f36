// SPDX-License-Identifier: Apache-2.0
#include "symbols/object_table.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "symbols/maps.h"

namespace stackwatch {
namespace {

/// Deaths of the worker that an object may be guilty of, counted in strikes: a death by its own doing is two, one
/// that may have been chance is one.
constexpr int kStrikesOfACrash = 2;
constexpr int kStrikesOfChance = 1;
constexpr int kMaxFailures = 2;
/// Places kept of each object: libc is mapped by everybody, and one of a few will be alive when it must be reopened.
constexpr size_t kMaxPlaces = 4;
constexpr uint64_t kSweepNs = 1'000'000'000;

}  // namespace

ObjectTable::ObjectTable(FunctionTable& functions, const Clock& clock, AddressSpaceReader& reader, int epoll,
                         std::unique_ptr<WorkerSpawner> spawner, std::string proc_root)
    : functions_(functions),
      clock_(clock),
      reader_(reader),
      proc_root_(std::move(proc_root)),
      places_(1),
      worker_(clock, epoll, std::move(spawner)) {
  add_builtin(protocol::kKernelObject, State::kAbsent, "kernel", "[kernel]_[k]");
  add_builtin(protocol::kVdsoObject, State::kGiven, "[vdso]", "[vdso]");
}

void ObjectTable::add_builtin(uint32_t id, State state, std::string_view name, std::string_view label) {
  Object& object = objects_[id];
  object.state = state;
  object.name = name;
  object.label = label;
  object.users = 1;  // ours, for good
  object.debug = Debug::kSettled;
}

std::optional<uint32_t> ObjectTable::use(AddressSpaceReader::MappedFile& file, const Place& place) {
  const auto known = index_.find(file.identity);
  if (known == index_.end() && objects_.size() >= kMaxObjects && !make_room()) return std::nullopt;
  const uint32_t id = known != index_.end() ? known->second : next_id_++;
  Object& object = objects_[id];
  if (known == index_.end()) {
    index_.emplace(file.identity, id);
    object.identity = file.identity;
    object.path = protocol::clean_name(file.path);
    object.is_jit = place.is_jit;
    object.label = place.is_jit ? "[jit]" : "[" + protocol::clean_name(object_basename(file.path)) + "]";
    object.name = place.is_jit ? "[jit]" : object.path;
  }
  ++object.users;
  if (object.places.size() == kMaxPlaces) object.places.erase(object.places.begin());
  object.places.push_back(place);
  if (object.state == State::kAbsent || object.state == State::kOpening) {
    if (file.file) {
      take_file(id, object, std::move(file.file));
    } else if (object.state == State::kAbsent) {
      fetch(id, object);
    }
  }
  return id;
}

void ObjectTable::retain(uint32_t id) {
  if (const auto found = objects_.find(id); found != objects_.end()) ++found->second.users;
}

void ObjectTable::release(uint32_t id) {
  const auto found = objects_.find(id);
  if (found == objects_.end() || found->second.users == 0) return;
  if (--found->second.users == 0) found->second.unused_since_ns = clock_.monotonic_ns();
}

FunctionId ObjectTable::fallback(uint32_t id) {
  const auto found = objects_.find(id);
  if (found == objects_.end()) return functions_.intern("", "[unknown]");
  return functions_.intern(found->second.name, found->second.label);
}

std::optional<ObjectTable::Frames> ObjectTable::find(uint32_t id, uint64_t offset, Asker asker) {
  const auto found = objects_.find(id);
  if (found == objects_.end()) return Frames{{fallback(id)}};
  Object& object = found->second;
  if (const auto known = object.names.find(offset); known != object.names.end()) return known->second;
  if (object.state == State::kAbsent) id == protocol::kKernelObject ? open_kernel(object) : fetch(id, object);
  if (object.state == State::kBad || object.state == State::kAbsent) return Frames{{fallback(id)}};
  const auto [askers, is_new] = object.askers.try_emplace(offset);
  askers->second.push_back(asker);
  if (is_new) {
    object.unsent.push_back(offset);
    enqueue(id, object);
  }
  return std::nullopt;
}

void ObjectTable::open_kernel(Object& kernel) {
  const std::string path = proc_root_ + "/kallsyms";
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  kernel_loaded_ns_ = clock_.monotonic_ns();
  if (file) {
    take_file(protocol::kKernelObject, kernel, std::move(file));
    return;
  }
  events_.push_back(
      fail_errno("read the kernel's symbols from " + path, errno, "kernel functions have no names").value());
  mark_bad(protocol::kKernelObject, kernel);
}

void ObjectTable::take_file(uint32_t id, Object& object, UniqueFd file) {
  if (held_files_ >= kMaxHeldFiles) {
    object.state = State::kAbsent;  // it is opened again when a name is asked for
    return;
  }
  ++held_files_;
  object.file = std::move(file);
  object.state = State::kHere;
  if (id >= protocol::kFirstFileObject) reader_.hold(object.identity);
  enqueue(id, object);
}

void ObjectTable::drop_file(Object& object) {
  if (!object.file) return;
  object.file.reset();
  --held_files_;
}

/// Answers of the worker are about the file that it was given; kallsyms may wait here to replace it meanwhile.
bool ObjectTable::is_with_worker(const Object& object) {
  return object.state == State::kGiven || object.state == State::kHere;
}

/// Has the file opened again at one of the places where it was seen. Those that fail are not tried twice.
void ObjectTable::fetch(uint32_t id, Object& object) {
  object.state = State::kAbsent;
  if (id < protocol::kFirstFileObject || object.places.empty()) return;
  const Place place = object.places.back();
  const AddressSpaceReader::Source source{place.process, place.pid_in_ns, place.start,
                                          place.end,     object.path,     place.is_jit};
  if (!reader_.reopen(source, object.identity)) return;
  object.places.pop_back();
  object.state = State::kOpening;
}

void ObjectTable::take_reopened(AddressSpaceReader::Reopened reopened) {
  const auto known = index_.find(reopened.identity);
  if (known == index_.end()) return;
  Object& object = objects_.at(known->second);
  if (object.state != State::kOpening) return;
  if (reopened.file) {
    take_file(known->second, object, std::move(reopened.file));
    return;
  }
  fetch(known->second, object);
  if (object.state == State::kAbsent) give_up(object);
}

/// Nobody can say more about the offsets that are asked for at the moment.
void ObjectTable::give_up(Object& object) {
  const FunctionId function = functions_.intern(object.name, object.label);
  for (const auto& [offset, askers] : object.askers) {
    for (const Asker& asker : askers) answers_.push_back({asker, {{function}}});
  }
  object.askers.clear();
  object.unsent.clear();
}

void ObjectTable::mark_bad(uint32_t id, Object& object) {
  object.state = State::kBad;
  ++bad_objects_;
  drop_file(object);
  drop_debug(object);
  give_up(object);
  if (id >= protocol::kFirstFileObject) reader_.hold(object.identity);  // nobody needs to open it again
}

void ObjectTable::enqueue(uint32_t id, Object& object) {
  if (object.in_queue || (object.state != State::kHere && object.state != State::kGiven)) return;
  object.in_queue = true;
  work_.push_back(id);
}

void ObjectTable::on_object(const protocol::ObjectInfo& info) {
  const auto found = objects_.find(info.object);
  if (found == objects_.end() || !is_with_worker(found->second)) return;
  Object& object = found->second;
  if (object.debug == Debug::kOffering) {
    take_word_on_debug(info.object, object, info);
    return;
  }
  if (info.status == protocol::ObjectStatus::kReadable) {
    if (info.object < protocol::kFirstFileObject) return;
    if (!info.build_id.empty()) object.name = hex(info.build_id);
    object.has_debug_info = info.has_debug_info;
    search_debug(info.object, object, info);
    return;
  }
  if (info.object == protocol::kKernelObject) {
    events_.push_back(Error{ErrorKind::kUnsupported, "name kernel functions", "the kernel hides its addresses",
                            "give the daemon CAP_SYSLOG, or set kernel.kptr_restrict to 0 or 1"});
  }
  mark_bad(info.object, object);
}

void ObjectTable::on_name(uint32_t id, uint64_t offset, const protocol::Name& name) {
  const auto found = objects_.find(id);
  if (found == objects_.end() || !is_with_worker(found->second)) return;
  Object& object = found->second;
  Frames frames{{intern(id, object, name), intern_place(name.file, name.line)}};
  for (const protocol::Inlined& call : name.inlined) {
    if (call.name.empty() || id == protocol::kKernelObject) continue;
    frames.push_back(
        {functions_.intern(object.name, protocol::clean_name(call.name)), intern_place(call.file, call.line)});
  }
  const bool unknown_kernel = id == protocol::kKernelObject && name.kind == protocol::NameKind::kNone;
  if (unknown_kernel) {
    kernel_stale_ = true;  // asked again when kallsyms was read again
  } else if (!object.is_jit) {
    remember(object, offset, frames);  // a JIT may put other code there
  }
  answer(object, offset, frames);
}

uint32_t ObjectTable::intern_place(const std::string& file, uint32_t line) {
  if (file.empty()) return 0;
  std::string place = protocol::clean_name(file);
  if (line > 0) place += ":" + std::to_string(line);
  if (const auto known = place_index_.find(place); known != place_index_.end()) return known->second;
  if (places_.size() >= kMaxSourcePlaces) return 0;
  const auto id = static_cast<uint32_t>(places_.size());
  places_.push_back(place);
  place_index_.emplace(std::move(place), id);
  return id;
}

std::string_view ObjectTable::place(uint32_t id) const {
  return id < places_.size() ? std::string_view(places_[id]) : std::string_view();
}

FunctionId ObjectTable::intern(uint32_t id, const Object& object, const protocol::Name& name) {
  if (name.kind == protocol::NameKind::kUnwindEntry) {
    char start[32];
    std::snprintf(start, sizeof start, "+0x%llx", static_cast<unsigned long long>(name.start));
    return functions_.intern(object.name, object.label + start);
  }
  if (name.kind == protocol::NameKind::kNone || name.name.empty()) {
    return functions_.intern(object.name, object.label);
  }
  const std::string clean = protocol::clean_name(name.name);
  if (id != protocol::kKernelObject) return functions_.intern(object.name, clean);
  const std::string module = protocol::clean_name(name.module);
  return functions_.intern(module.empty() ? std::string_view(object.name) : module, clean + "_[k]");
}

void ObjectTable::remember(Object& object, uint64_t offset, const Frames& frames) {
  if (cached_names_ >= kMaxCachedNames) {
    for (auto& [id, other] : objects_) other.names.clear();
    cached_names_ = 0;
  }
  cached_names_ += object.names.emplace(offset, frames).second ? 1 : 0;
}

void ObjectTable::answer(Object& object, uint64_t offset, const Frames& frames) {
  const auto asked = object.askers.find(offset);
  if (asked == object.askers.end()) return;
  for (const Asker& asker : asked->second) answers_.push_back({asker, frames});
  object.askers.erase(asked);
}

void ObjectTable::on_death(std::optional<uint32_t> culprit, bool certain) {
  drops_.clear();
  for (auto& [id, object] : objects_) {
    object.unsent.clear();
    for (const auto& [offset, askers] : object.askers) object.unsent.push_back(offset);
    if (id >= protocol::kFirstFileObject) {
      drop_debug(object);
      object.debug = Debug::kUnasked;
    }
    if (object.state == State::kGiven && id != protocol::kVdsoObject) {
      object.state = State::kAbsent;
      if (id >= protocol::kFirstFileObject) reader_.let_go(object.identity);
    }
  }
  if (const auto found = culprit ? objects_.find(*culprit) : objects_.end(); found != objects_.end()) {
    punish(*culprit, found->second, certain);
  }
  for (auto& [id, object] : objects_) {
    if (object.state == State::kAbsent && object.users > 0 && id != protocol::kKernelObject) fetch(id, object);
    if (id == protocol::kKernelObject && object.state == State::kAbsent && !object.unsent.empty()) open_kernel(object);
    if (object.state == State::kAbsent) give_up(object);
    enqueue(id, object);
  }
}

/// What a file loses that ended a worker: first its debug information, the most of what was read of it, then its names.
void ObjectTable::punish(uint32_t id, Object& object, bool certain) {
  object.strikes += certain ? kStrikesOfACrash : kStrikesOfChance;
  if (object.strikes < kMaxFailures) return;
  const bool has_debug = object.has_debug_info && !object.symbols_only;
  events_.push_back(Error{ErrorKind::kFailed, "read " + object.path, "it ended the process that reads symbols",
                          has_debug ? "its functions are named by its symbol table alone"
                                    : "its functions are all called " + object.label});
  if (!has_debug) return mark_bad(id, object);
  object.symbols_only = true;
  object.strikes = kMaxFailures - 1;  // no more patience than that
}

void ObjectTable::dispatch() {
  worker_.dispatch(*this);
  if (kernel_stale_) reload_kernel();
  drop_unused();
  send();
}

void ObjectTable::send() {
  send_drops();
  send_work();
}

void ObjectTable::reload_kernel() {
  if (clock_.monotonic_ns() - kernel_loaded_ns_ < kKernelReloadNs) return;
  kernel_stale_ = false;
  Object& kernel = objects_.at(protocol::kKernelObject);
  if (kernel.state == State::kGiven) open_kernel(kernel);
}

void ObjectTable::send_work() {
  while (!work_.empty() && worker_.has_room()) {
    const uint32_t id = work_.front();
    work_.pop_front();
    const auto found = objects_.find(id);
    if (found == objects_.end()) continue;
    Object& object = found->second;
    object.in_queue = false;
    const bool sent = send_one(id, object);
    const bool may_ask = object.debug == Debug::kSettled && !object.unsent.empty();
    if (object.file || may_ask || (!object.offered && !object.debug_files.empty())) enqueue(id, object);
    if (!sent) return;
  }
}

bool ObjectTable::send_one(uint32_t id, Object& object) {
  if (object.state == State::kHere) {
    const auto kind = object.is_jit         ? protocol::FileKind::kJit
                      : object.symbols_only ? protocol::FileKind::kElfSymbols
                                            : protocol::FileKind::kElf;
    if (!worker_.add_object(id, object.file.get(), kind)) return false;
    drop_file(object);
    object.state = State::kGiven;
  }
  if (object.debug == Debug::kOffering) return offer_debug(id, object);
  if (object.state != State::kGiven || object.unsent.empty() || object.debug != Debug::kSettled) return true;
  const size_t count = std::min(object.unsent.size(), protocol::kMaxOffsets);
  if (!worker_.resolve(id, std::span(object.unsent).last(count))) return false;
  object.unsent.resize(object.unsent.size() - count);
  return true;
}

void ObjectTable::send_drops() {
  while (!drops_.empty() && worker_.drop_object(drops_.front())) drops_.pop_front();
}

void ObjectTable::drop_unused() {
  const uint64_t now = clock_.monotonic_ns();
  if (now - swept_ns_ < kSweepNs) return;
  swept_ns_ = now;
  for (auto at = objects_.begin(); at != objects_.end();) {
    Object& object = at->second;
    // One that may have killed the worker must be known when it comes back.
    const bool keep = object.strikes > 0 || now - object.unused_since_ns < kKeepUnusedNs;
    at = keep || object.users > 0 || !object.askers.empty() ? std::next(at) : erase(at);
  }
}

/// Gives up the object that has been unused longest, whatever is known about it.
bool ObjectTable::make_room() {
  auto oldest = objects_.end();
  for (auto at = objects_.begin(); at != objects_.end(); ++at) {
    if (at->second.users > 0 || !at->second.askers.empty()) continue;
    if (oldest == objects_.end() || at->second.unused_since_ns < oldest->second.unused_since_ns) oldest = at;
  }
  if (oldest == objects_.end()) return false;
  erase(oldest);
  return true;
}

ObjectTable::Objects::iterator ObjectTable::erase(Objects::iterator at) {
  Object& object = at->second;
  if (object.state == State::kGiven) drops_.push_back(at->first);
  drop_file(object);
  drop_debug(object);
  cached_names_ -= object.names.size();
  reader_.let_go(object.identity);
  index_.erase(object.identity);
  return objects_.erase(at);
}

std::vector<Error> ObjectTable::take_events() {
  std::vector<Error> events = worker_.take_events();
  events.insert(events.end(), events_.begin(), events_.end());
  events_.clear();
  return events;
}

}  // namespace stackwatch
