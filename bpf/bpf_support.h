// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only: what the loaders of BPF objects share.

#include <bpf/libbpf.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "core/probe.h"
#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// While it lives, libbpf's warnings of this thread are kept instead of printed: the reason of a failure is in them.
class LibbpfMessages {
 public:
  LibbpfMessages();
  ~LibbpfMessages();
  LibbpfMessages(const LibbpfMessages&) = delete;
  LibbpfMessages& operator=(const LibbpfMessages&) = delete;
  /// The last warning, one line; empty where there was none.
  [[nodiscard]] std::string last() const;
};

/// Whether BPF can be used at all: kernel type information is there and the privileges suffice. The Error says which
/// one is missing and what to do.
[[nodiscard]] Result<void> check_bpf_possible();

/// What failed when libbpf or the bpf system call said `error_number`, with libbpf's own words and the usual remedy.
[[nodiscard]] Failure fail_bpf(std::string what, int error_number, const LibbpfMessages& messages);

struct MapSize {
  bpf_map* map = nullptr;
  uint32_t entries = 0;
};
/// Sizes of maps, before they are made. False where one is refused, with errno.
[[nodiscard]] bool set_sizes(std::initializer_list<MapSize> sizes);

/// An empty epoll instance.
[[nodiscard]] Result<UniqueFd> make_epoll();

struct BpfLinkDeleter {
  void operator()(bpf_link* link) const { bpf_link__destroy(link); }
};
using BpfLink = std::unique_ptr<bpf_link, BpfLinkDeleter>;

/// Memory that the kernel accounts for a map; 0 where it does not say.
[[nodiscard]] uint64_t map_memory_bytes(int map_fd);

struct ProgramStatistics {
  uint64_t runs = 0;
  uint64_t run_ns = 0;
  uint64_t recursion_misses = 0;
};
[[nodiscard]] ProgramStatistics program_statistics(int program_fd);

}  // namespace stackwatch
