// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/result.h"
#include "store/records.h"

namespace stackwatch {

/// The state on disk: one SQLite file with a write-ahead log. A commit is on the disk when it returns
/// (synchronous=FULL), and a cut at any moment leaves the state of some commit. Blocks as disks do. One thread; one
/// process at a time: the file is locked while it is open.
class StateFile {
 public:
  /// Of the schema that this version writes; older ones are migrated, newer ones set aside.
  static constexpr int64_t kSchemaVersion = 3;
  static constexpr const char* kFileName = "state.db";
  /// Files set aside that are kept; older ones are removed. A person needs one to look into, the disk has an end.
  static constexpr size_t kMaxSetAside = 2;

  struct Opened {
    std::unique_ptr<StateFile> file;
    std::string set_aside;  ///< what was wrong with an older file and where it is now; empty where nothing was
  };
  /// Opens `directory`/state.db; makes the directory (its parent exists) and the file where they are missing. A file
  /// that is damaged, or of a newer version, is renamed with `realtime_ns` in its name, and a new one begun. Errors:
  /// no such directory, not ours alone, another daemon has it open, no room.
  [[nodiscard]] static Result<Opened> open(const std::string& directory, const StoreBounds& bounds,
                                           uint64_t realtime_ns);
  ~StateFile();

  [[nodiscard]] Result<void> begin();
  [[nodiscard]] Result<void> commit();
  void rollback();

  [[nodiscard]] Result<void> put(const StoredAlert& alert);
  /// Puts the alert, and notes that it must be told. The sequence of the note.
  [[nodiscard]] Result<int64_t> put_to_tell(const StoredAlert& alert);
  [[nodiscard]] Result<void> mark_told(int64_t sequence);
  /// Error: larger than StoreBounds::baseline_bytes.
  [[nodiscard]] Result<void> put(const Baseline& baseline);
  [[nodiscard]] Result<void> remove_baseline(const std::string& service);

  /// The newest `limit` by the time of their last change, newest first.
  [[nodiscard]] Result<std::vector<StoredAlert>> alerts(size_t limit);
  /// Oldest first, those after `after`.
  [[nodiscard]] Result<std::vector<OutboxRow>> outbox(int64_t after, size_t limit);
  /// Those whose blobs have `bytes` together, the one written last first.
  [[nodiscard]] Result<std::vector<Baseline>> baselines(size_t bytes);

  /// Brings rows and bytes under the bounds. In a transaction of the caller.
  [[nodiscard]] Result<void> prune();
  /// Notes that nobody will tell any more, since there were more than StoreBounds::outbox; since the last call.
  [[nodiscard]] uint64_t take_pruned_untold() { return std::exchange(pruned_untold_, 0); }
  /// A write that changes nothing: whether writing works.
  [[nodiscard]] Result<void> probe();
  void set_bounds(const StoreBounds& bounds);
  /// The file and its log on the disk.
  [[nodiscard]] uint64_t bytes() const;
  /// Whether the last error says that the file is damaged: it is to be closed and opened anew, which sets it aside.
  [[nodiscard]] bool is_damaged() const;

 private:
  struct Database;
  StateFile(std::string path, const StoreBounds& bounds, std::unique_ptr<Database> database);
  [[nodiscard]] Result<void> migrate(int64_t from);
  [[nodiscard]] Result<void> prune_rows();
  [[nodiscard]] Result<void> prune_bytes();
  [[nodiscard]] Result<uint64_t> used_bytes();

  std::string path_;
  StoreBounds bounds_;
  uint64_t pruned_untold_ = 0;
  std::unique_ptr<Database> database_;

  friend struct StateFileOpener;
};

}  // namespace stackwatch
