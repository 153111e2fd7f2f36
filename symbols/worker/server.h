// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "core/unique_fd.h"
#include "symbols/protocol.h"
#include "symbols/worker/elf_object.h"
#include "symbols/worker/kernel_symbols.h"

namespace stackwatch {

/// What the worker does: keeps the objects it was given and answers questions about them, one at a time.
class SymbolServer {
 public:
  /// Tables of all objects together; the one that was used longest ago goes first. The largest single object has
  /// 64 MB of symbols, an ordinary process's libraries together 1 MB.
  static constexpr size_t kMaxTableBytes = 64U << 20;
  /// As many as the daemon may know at a time (kMaxObjects in symbols/object_table.h).
  static constexpr size_t kMaxServedObjects = 1024;

  /// Answers requests until the other side is gone. False where it sent something that is not a request.
  bool serve(int socket);

 private:
  struct Served {
    std::unique_ptr<ElfObject> object;
    uint64_t last_use = 0;
  };

  [[nodiscard]] protocol::ObjectInfo add(const protocol::AddObject& request, UniqueFd file);
  [[nodiscard]] protocol::ObjectInfo add_file(const protocol::AddObject& request, UniqueFd file);
  [[nodiscard]] protocol::Allocator find_allocator(const protocol::FindAllocator& request);
  [[nodiscard]] UnwindTable build_unwind(uint32_t object);
  [[nodiscard]] protocol::Names resolve(const protocol::Resolve& request);
  [[nodiscard]] protocol::Name resolve_one(uint32_t object, uint64_t offset);
  [[nodiscard]] ElfObject* find_object(uint32_t object);
  [[nodiscard]] bool answer(int socket, const protocol::Request& request, UniqueFd file);
  void forget_old_tables();

  KernelSymbols kernel_;
  std::map<uint32_t, Served> objects_;
  uint64_t uses_ = 0;
};

}  // namespace stackwatch
