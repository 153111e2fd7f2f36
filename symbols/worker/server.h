// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "core/unique_fd.h"
#include "symbols/protocol.h"
#include "symbols/worker/jit_symbols.h"
#include "symbols/worker/kernel_symbols.h"
#include "symbols/worker/named_object.h"

namespace stackwatch {

/// What the worker does: keeps the objects it was given and answers questions about them, one at a time.
class SymbolServer {
 public:
  /// Tables of all objects together; the one that was used longest ago goes first. The largest single object has
  /// 64 MB of symbols, an ordinary process's libraries together 1 MB.
  static constexpr size_t kMaxTableBytes = 64U << 20;
  /// As many as the daemon may know at a time (kMaxObjects in symbols/object_table.h).
  static constexpr size_t kMaxServedObjects = 1024;

  /// Debug information of all objects together, likewise: sections, and what was made of the units read. More than the
  /// sections of one object may have (kMaxDebugBytes).
  static constexpr size_t kMaxDebugTotal = 128U << 20;
  /// Without a request for so long nothing is kept: [limits] memory counts the worker, and who is asked for a name once
  /// in a while has no need of tables in between. Reading 100 MB again takes some 0.3 s: a hundredth of a core at
  /// worst.
  static constexpr int kIdleS = 30;
  /// CPU time for one answer; a file made to take forever ends the worker, and is known by that. Less than the time
  /// after which the daemon kills it (kRequestTimeoutNs in symbols/symbol_worker.h), which could also be a slow disk's
  /// fault.
  static constexpr int kMaxAnswerCpuS = 6;

  /// Answers requests until the other side is gone. False where it sent something that is not a request. A receive
  /// time-out of the socket (SO_RCVTIMEO) is when it gives its memory back.
  bool serve(int socket);
  /// Tables and debug information, of all objects.
  [[nodiscard]] size_t kept_bytes() const;

 private:
  struct Served {
    std::unique_ptr<NamedObject> object;  ///< this or the other
    std::unique_ptr<JitSymbols> jit;
    uint64_t last_use = 0;
    [[nodiscard]] size_t table_bytes() const { return object ? object->table_bytes() : jit->table_bytes(); }
    void unload() { object ? object->unload() : jit->unload(); }
  };

  [[nodiscard]] protocol::ObjectInfo add(const protocol::AddObject& request, UniqueFd file);
  [[nodiscard]] protocol::ObjectInfo add_file(const protocol::AddObject& request, UniqueFd file);
  [[nodiscard]] protocol::ObjectInfo add_debug_file(const protocol::AddDebugFile& request, UniqueFd file);
  [[nodiscard]] protocol::Allocator find_allocator(const protocol::FindAllocator& request);
  [[nodiscard]] UnwindTable build_unwind(uint32_t object);
  [[nodiscard]] protocol::Names resolve(const protocol::Resolve& request);
  [[nodiscard]] protocol::Name resolve_one(uint32_t object, uint64_t offset);
  [[nodiscard]] protocol::Name resolve_kernel(uint64_t address);
  [[nodiscard]] Served* find_object(uint32_t object);
  [[nodiscard]] bool answer(int socket, const protocol::Request& request, UniqueFd file);
  void forget_all();
  void forget_old_tables();
  void forget_old_debug(size_t room);

  KernelSymbols kernel_;
  std::map<uint32_t, Served> objects_;
  uint64_t uses_ = 0;
  bool was_asked_ = false;  ///< since forget_all()
};

}  // namespace stackwatch
