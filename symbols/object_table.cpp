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
constexpr int kMaxStrikes = 2;
/// Places kept of each object: libc is mapped by everybody, and one of a few will be alive when it must be reopened.
constexpr size_t kMaxPlaces = 4;
constexpr uint64_t kSweepNs = 1'000'000'000;

std::string hex(std::span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<unsigned>(byte) >> 4U];
    text += kDigits[std::to_integer<unsigned>(byte) & 0xfU];
  }
  return text;
}

}  // namespace

ObjectTable::ObjectTable(FunctionTable& functions, const Clock& clock, AddressSpaceReader& reader, int epoll,
                         std::unique_ptr<WorkerSpawner> spawner, std::string proc_root)
    : functions_(functions),
      clock_(clock),
      reader_(reader),
      proc_root_(std::move(proc_root)),
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
    object.label = "[" + protocol::clean_name(object_basename(file.path)) + "]";
    object.name = object.path;
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

std::optional<FunctionId> ObjectTable::find(uint32_t id, uint64_t offset, Asker asker) {
  const auto found = objects_.find(id);
  if (found == objects_.end()) return fallback(id);
  Object& object = found->second;
  if (const auto known = object.names.find(offset); known != object.names.end()) return known->second;
  if (object.state == State::kAbsent) id == protocol::kKernelObject ? open_kernel(object) : fetch(id, object);
  if (object.state == State::kBad || object.state == State::kAbsent) return fallback(id);
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
  if (!reader_.reopen({place.process, place.pid_in_ns, place.start, place.end, object.path}, object.identity)) return;
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
    for (const Asker& asker : askers) answers_.push_back({asker, function});
  }
  object.askers.clear();
  object.unsent.clear();
}

void ObjectTable::mark_bad(uint32_t id, Object& object) {
  object.state = State::kBad;
  ++bad_objects_;
  drop_file(object);
  give_up(object);
  if (id >= protocol::kFirstFileObject) reader_.hold(object.identity);  // nobody needs to open it again
}

void ObjectTable::enqueue(uint32_t id, Object& object) {
  if (object.in_queue || (object.state != State::kHere && object.state != State::kGiven)) return;
  object.in_queue = true;
  work_.push_back(id);
}

void ObjectTable::on_object(uint32_t id, protocol::ObjectStatus status, std::span<const std::byte> build_id) {
  const auto found = objects_.find(id);
  if (found == objects_.end() || !is_with_worker(found->second)) return;
  Object& object = found->second;
  if (status == protocol::ObjectStatus::kReadable) {
    if (!build_id.empty() && id >= protocol::kFirstFileObject) object.name = hex(build_id);
    return;
  }
  if (id == protocol::kKernelObject) {
    events_.push_back(Error{ErrorKind::kUnsupported, "name kernel functions", "the kernel hides its addresses",
                            "give the daemon CAP_SYSLOG, or set kernel.kptr_restrict to 0 or 1"});
  }
  mark_bad(id, object);
}

void ObjectTable::on_name(uint32_t id, uint64_t offset, const protocol::Name& name) {
  const auto found = objects_.find(id);
  if (found == objects_.end() || !is_with_worker(found->second)) return;
  Object& object = found->second;
  const FunctionId function = intern(id, object, name);
  const bool unknown_kernel = id == protocol::kKernelObject && name.kind == protocol::NameKind::kNone;
  if (unknown_kernel) {
    kernel_stale_ = true;  // asked again when kallsyms was read again
  } else {
    remember(object, offset, function);
  }
  answer(object, offset, function);
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

void ObjectTable::remember(Object& object, uint64_t offset, FunctionId function) {
  if (cached_names_ >= kMaxCachedNames) {
    for (auto& [id, other] : objects_) other.names.clear();
    cached_names_ = 0;
  }
  cached_names_ += object.names.emplace(offset, function).second ? 1 : 0;
}

void ObjectTable::answer(Object& object, uint64_t offset, FunctionId function) {
  const auto asked = object.askers.find(offset);
  if (asked == object.askers.end()) return;
  for (const Asker& asker : asked->second) answers_.push_back({asker, function});
  object.askers.erase(asked);
}

void ObjectTable::on_death(std::optional<uint32_t> culprit, bool certain) {
  drops_.clear();
  for (auto& [id, object] : objects_) {
    object.unsent.clear();
    for (const auto& [offset, askers] : object.askers) object.unsent.push_back(offset);
    if (object.state == State::kGiven && id != protocol::kVdsoObject) {
      object.state = State::kAbsent;
      if (id >= protocol::kFirstFileObject) reader_.let_go(object.identity);
    }
  }
  if (const auto found = culprit ? objects_.find(*culprit) : objects_.end(); found != objects_.end()) {
    Object& object = found->second;
    object.strikes += certain ? kStrikesOfACrash : kStrikesOfChance;
    if (object.strikes >= kMaxStrikes) mark_bad(*culprit, object);
  }
  for (auto& [id, object] : objects_) {
    if (object.state == State::kAbsent && object.users > 0 && id != protocol::kKernelObject) fetch(id, object);
    if (id == protocol::kKernelObject && object.state == State::kAbsent && !object.unsent.empty()) open_kernel(object);
    if (object.state == State::kAbsent) give_up(object);
    enqueue(id, object);
  }
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
    if (object.file || !object.unsent.empty()) enqueue(id, object);
    if (!sent) return;
  }
}

bool ObjectTable::send_one(uint32_t id, Object& object) {
  if (object.state == State::kHere) {
    if (!worker_.add_object(id, object.file.get())) return false;
    drop_file(object);
    object.state = State::kGiven;
  }
  if (object.state != State::kGiven || object.unsent.empty()) return true;
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
