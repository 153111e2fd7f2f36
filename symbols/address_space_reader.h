// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/ids.h"
#include "core/process.h"
#include "core/unique_fd.h"
#include "symbols/maps.h"

namespace stackwatch {

/// Which file, with the content that it has now: inode numbers are reused, and files are overwritten in place.
struct ObjectIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  auto operator<=>(const ObjectIdentity&) const = default;
};

/// Jobs that wait. 200 processes attached at once are 200 jobs and, after a death of the worker, 1,024 files.
inline constexpr size_t kMaxReaderJobs = 2048;
/// Files opened and not taken yet; the thread waits for the loop beyond that. A process has 5 to 200 objects.
inline constexpr size_t kMaxOpenedFiles = 256;
/// Debug files opened for one object: there are three places for them, and more than one file is rare.
inline constexpr size_t kMaxFoundFiles = 3;
/// 65,530 mappings (the kernel's default limit) of 100 to 250 bytes each.
inline constexpr size_t kMaxMapsBytes = 16U << 20;

/// Reads /proc/PID/maps and opens the files in it, on a thread of its own: both can block (a process that holds its
/// address space locked, a network file system), and the loop must not. Answers come through fd() and take().
/// What is not a regular file is never opened: opening a device can have effects.
class AddressSpaceReader {
 public:
  struct MappedFile {
    std::string path;         ///< as in maps
    bool identified = false;  ///< false: it could not be reached, is no regular file, or is another one by now
    ObjectIdentity identity;
    UniqueFd file;  ///< none where the identity is held already (hold()) or it cannot be read
  };
  static constexpr size_t kNoFile = SIZE_MAX;
  struct Mapping {
    MapsEntry entry;
    size_t file = kNoFile;  ///< index into `files`
  };
  struct Space {
    ProcessKey process;
    ExecId exec;
    bool alive = false;  ///< false: the process is gone (or its pid is another's), nothing was read
    std::vector<Mapping> mappings;
    std::vector<MappedFile> files;
    /// What a JIT compiler of the process writes about its code, where there is such a file and it belongs to the
    /// user of the process: `/tmp/perf-PID.map` in its root, with its pid as it knows it, or else the jitdump that it
    /// has mapped. Identified by device and inode alone, since it grows.
    std::optional<MappedFile> jit;
  };
  struct Reopened {
    ObjectIdentity identity;
    UniqueFd file;  ///< none where that file is not to be had any more
  };
  /// A file that search() found.
  struct FoundFile {
    std::string path;
    UniqueFd file;
  };
  struct Searched {
    ObjectIdentity identity;       ///< of the object
    bool supplementary = false;    ///< as it was asked
    std::vector<FoundFile> files;  ///< in the order of the paths
  };
  using Answer = std::variant<Space, Reopened, Searched>;

  /// Where a mapping of a file was seen: enough to open the file again.
  struct Source {
    ProcessKey process;
    int32_t pid_in_ns = 0;
    uint64_t start = 0;
    uint64_t end = 0;
    std::string path;
    bool is_jit = false;  ///< the process's Space::jit
  };
  /// Where debug files of an object may be: paths in the root of a process that has it mapped.
  struct Search {
    ProcessKey process;
    int32_t pid_in_ns = 0;
    ObjectIdentity identity;  ///< of the object
    bool supplementary = false;
    std::vector<std::string> paths;
  };

  explicit AddressSpaceReader(std::string proc_root);
  /// Waits for the thread to finish the job it is at, but not longer than a second: one that hangs is left behind.
  ~AddressSpaceReader();
  AddressSpaceReader(const AddressSpaceReader&) = delete;
  AddressSpaceReader& operator=(const AddressSpaceReader&) = delete;

  /// Readable when there is something to take.
  [[nodiscard]] int fd() const;
  /// False where too many jobs wait.
  [[nodiscard]] bool read(const ProcessKey& process, int32_t pid_in_ns, ExecId exec);
  [[nodiscard]] bool reopen(const Source& source, const ObjectIdentity& identity);
  /// Opens those of the paths that are ELF files, and not the object itself, at most kMaxFoundFiles of them. Links lead
  /// to where they would lead the process, never out of its root.
  [[nodiscard]] bool search(Search search);
  [[nodiscard]] std::vector<Answer> take();

  /// Files that the caller has no use for another descriptor of: read() only identifies them.
  void hold(const ObjectIdentity& identity);
  void let_go(const ObjectIdentity& identity);

 private:
  class Shared;
  std::shared_ptr<Shared> shared_;  ///< with the thread, which may outlive us
};

}  // namespace stackwatch
