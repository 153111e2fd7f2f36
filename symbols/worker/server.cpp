// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/server.h"

#include <elf.h>
#include <malloc.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstring>
#include <new>
#include <utility>

#include "symbols/worker/allocator_search.h"
#include "symbols/worker/unwind_builder.h"

namespace stackwatch {
namespace {

/// The kernel maps the vDSO into every process; ours is the same as theirs (of 64-bit ones). As a file, so that it
/// takes the same way as everything else.
UniqueFd copy_vdso() {
  const unsigned long address = ::getauxval(AT_SYSINFO_EHDR);
  UniqueFd file(::memfd_create("vdso", MFD_CLOEXEC));
  if (address == 0 || !file) return {};
  const auto* const image = reinterpret_cast<const std::byte*>(address);
  Elf64_Ehdr header;
  std::memcpy(&header, image, sizeof header);
  const size_t bytes = header.e_shoff + size_t{header.e_shnum} * header.e_shentsize;  // sections come last in it
  if (::write(file.get(), image, bytes) != static_cast<ssize_t>(bytes)) return {};
  return file;
}

/// SIGPROF after so much CPU time, which nobody catches; 0: never.
void limit_cpu_time(int seconds) {
  itimerval timer{};
  timer.it_value.tv_sec = seconds;
  ::setitimer(ITIMER_PROF, &timer, nullptr);
}

}  // namespace

bool SymbolServer::serve(int socket) {
  if (protocol::send_packet(socket, protocol::encode(protocol::Hello{})) != protocol::IoStatus::kDone) return true;
  for (;;) {
    protocol::Received received = protocol::receive_packet(socket, true);
    if (received.status == protocol::IoStatus::kClosed) return true;
    if (received.status == protocol::IoStatus::kWouldBlock) {
      forget_all();
      continue;
    }
    if (received.status != protocol::IoStatus::kDone) return false;
    const auto request = protocol::parse_request(received.packet);
    if (!request) return false;
    limit_cpu_time(kMaxAnswerCpuS);
    was_asked_ = true;
    if (!answer(socket, *request, std::move(received.file))) return true;
    forget_old_tables();
    forget_old_debug(0);
    limit_cpu_time(0);
  }
}

bool SymbolServer::answer(int socket, const protocol::Request& request, UniqueFd file) {
  const auto send = [socket](const protocol::Bytes& packet) {
    return protocol::send_packet(socket, packet) == protocol::IoStatus::kDone;
  };
  if (const auto* add_request = std::get_if<protocol::AddObject>(&request)) {
    return send(protocol::encode(add(*add_request, std::move(file))));
  }
  if (const auto* resolve_request = std::get_if<protocol::Resolve>(&request)) {
    for (const protocol::Bytes& packet : protocol::encode(resolve(*resolve_request))) {
      if (!send(packet)) return false;
    }
    return true;
  }
  if (const auto* debug = std::get_if<protocol::AddDebugFile>(&request)) {
    return send(protocol::encode(add_debug_file(*debug, std::move(file))));
  }
  if (const auto* find = std::get_if<protocol::FindAllocator>(&request)) {
    return send(protocol::encode(find_allocator(*find)));
  }
  if (const auto* build = std::get_if<protocol::BuildUnwind>(&request)) {
    const UnwindTable table = build_unwind(build->object);
    for (const protocol::Bytes& packet : protocol::encode_table(build->sequence, build->object, table)) {
      if (!send(packet)) return false;
    }
    ::malloc_trim(0);
    return true;
  }
  objects_.erase(std::get<protocol::DropObject>(request).object);
  return true;
}

protocol::ObjectInfo SymbolServer::add(const protocol::AddObject& request, UniqueFd file) {
  if (request.object != protocol::kKernelObject) return add_file(request, std::move(file));
  const bool visible = kernel_.load(file.get());
  protocol::ObjectInfo info;
  info.sequence = request.sequence;
  info.object = request.object;
  info.status = visible ? protocol::ObjectStatus::kReadable : protocol::ObjectStatus::kHidden;
  return info;
}

protocol::ObjectInfo SymbolServer::add_file(const protocol::AddObject& request, UniqueFd file) {
  protocol::ObjectInfo info;
  info.sequence = request.sequence;
  info.object = request.object;
  objects_.erase(request.object);
  if (objects_.size() >= kMaxServedObjects || !file) return info;
  Served served;
  served.last_use = ++uses_;
  if (request.kind == protocol::FileKind::kJit) {
    served.jit = std::make_unique<JitSymbols>(std::move(file));
  } else {
    auto object = NamedObject::open(std::move(file), request.kind == protocol::FileKind::kElf);
    if (!object) return info;
    (*object)->describe(info);
    served.object = std::move(*object);
  }
  info.status = protocol::ObjectStatus::kReadable;
  objects_[request.object] = std::move(served);
  return info;
}

protocol::ObjectInfo SymbolServer::add_debug_file(const protocol::AddDebugFile& request, UniqueFd file) {
  protocol::ObjectInfo info;
  info.sequence = request.sequence;
  info.object = request.object;
  Served* const served = find_object(request.object);
  if (served == nullptr || !served->object || !served->object->use(request.kind, std::move(file))) return info;
  info.status = protocol::ObjectStatus::kReadable;
  served->object->describe(info);
  return info;
}

protocol::Allocator SymbolServer::find_allocator(const protocol::FindAllocator& request) {
  protocol::Allocator answer{request.sequence, request.object, false, {}};
  Served* const served = find_object(request.object);
  if (served == nullptr || !served->object) return answer;
  try {
    FoundAllocator found = stackwatch::find_allocator(served->object->elf());
    answer.uncounted_new = found.uncounted_new;
    answer.places = std::move(found.places);
  } catch (const std::bad_alloc&) {
    served->unload();  // tables beyond what the worker may use: it has no allocator that we know of
  }
  return answer;
}

UnwindTable SymbolServer::build_unwind(uint32_t id) {
  Served* const served = find_object(id);
  if (served == nullptr || !served->object) return {};
  try {
    auto table = build_unwind_table(served->object->elf());
    return table ? std::move(*table) : UnwindTable();
  } catch (const std::bad_alloc&) {
    return {};  // more than the worker may use: it has no table that we know of
  }
}

protocol::Names SymbolServer::resolve(const protocol::Resolve& request) {
  protocol::Names answer{request.sequence, request.object, {}};
  if (Served* const served = find_object(request.object); served != nullptr && served->jit) served->jit->refresh();
  for (size_t i = 0; i < request.offsets.size(); ++i) {
    protocol::Name name;
    try {
      name = resolve_one(request.object, request.offsets[i]);
    } catch (const std::bad_alloc&) {
      // One object's tables do not fit beside the others': start over with none. It costs its names this once.
      forget_all();
      name = {};
    }
    name.index = static_cast<uint16_t>(i);
    answer.names.push_back(std::move(name));
  }
  return answer;
}

protocol::Name SymbolServer::resolve_one(uint32_t id, uint64_t offset) {
  if (id == protocol::kKernelObject) return resolve_kernel(offset);
  Served* const served = find_object(id);
  if (served == nullptr) return {};
  if (served->object) {
    if (const uint64_t bytes = served->object->debug_bytes_to_load(); bytes > 0) forget_old_debug(bytes);
    return served->object->find(offset);
  }
  protocol::Name name;
  if (auto found = served->jit->find(offset)) {
    name.kind = protocol::NameKind::kSymbol;
    name.start = found->start;
    name.name = protocol::clean_name(found->name);
  }
  return name;
}

protocol::Name SymbolServer::resolve_kernel(uint64_t address) {
  protocol::Name name;
  if (const auto found = kernel_.find(address)) {
    name.kind = protocol::NameKind::kSymbol;
    name.start = found->start;
    name.name = found->name;
    name.module = found->module;
  }
  return name;
}

SymbolServer::Served* SymbolServer::find_object(uint32_t id) {
  auto served = objects_.find(id);
  if (served == objects_.end() && id == protocol::kVdsoObject) {
    auto vdso = NamedObject::open(copy_vdso());
    if (!vdso) return nullptr;
    served = objects_.emplace(id, Served{std::move(*vdso), nullptr, 0}).first;
  }
  if (served == objects_.end()) return nullptr;
  served->second.last_use = ++uses_;
  return &served->second;
}

size_t SymbolServer::kept_bytes() const {
  size_t total = 0;
  for (const auto& [id, served] : objects_) {
    total += served.table_bytes() + (served.object ? served.object->debug_bytes() : 0);
  }
  return total;
}

// Files stay open: what is asked for again is read again.
void SymbolServer::forget_all() {
  // Not by what is kept: an object whose reading failed half-way keeps nothing that counts, and is to be read again.
  if (!std::exchange(was_asked_, false)) return;
  for (auto& [id, served] : objects_) {
    served.unload();
    if (served.object) served.object->unload_debug();
  }
  ::malloc_trim(0);
}

void SymbolServer::forget_old_tables() {
  size_t total = 0;
  for (const auto& [id, served] : objects_) total += served.table_bytes();
  bool trimmed = false;
  while (total > kMaxTableBytes) {
    Served* oldest = nullptr;
    for (auto& [id, served] : objects_) {
      if (served.table_bytes() > 0 && (oldest == nullptr || served.last_use < oldest->last_use)) {
        oldest = &served;
      }
    }
    total -= oldest->table_bytes();
    oldest->unload();
    trimmed = true;
  }
  if (trimmed) ::malloc_trim(0);
}

/// Closes the debug information used longest ago until this much more may be loaded.
void SymbolServer::forget_old_debug(size_t room) {
  size_t total = 0;
  for (const auto& [id, served] : objects_) total += served.object ? served.object->debug_bytes() : 0;
  bool trimmed = false;
  while (total > 0 && total + room > kMaxDebugTotal) {
    Served* oldest = nullptr;
    for (auto& [id, served] : objects_) {
      if (served.object && served.object->debug_bytes() > 0 &&
          (oldest == nullptr || served.last_use < oldest->last_use)) {
        oldest = &served;
      }
    }
    total -= oldest->object->debug_bytes();
    oldest->object->unload_debug();
    trimmed = true;
  }
  if (trimmed) ::malloc_trim(0);
}

}  // namespace stackwatch
