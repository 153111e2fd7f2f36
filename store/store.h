// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "store/baseline_store.h"
#include "store/records.h"
#include "store/state_file.h"

namespace stackwatch {

struct StoreOptions {
  std::string directory;
  StoreBounds bounds;
  std::string boot_id;                               ///< of this boot, put into every alert
  std::function<std::string(const Alert&)> to_json;  ///< the evidence; called on the store's thread
  /// Alerts read at the start: those that the daemon keeps in memory.
  size_t alerts_at_start = 1000;
  /// Blobs of baselines read at the start, the newest: what the daemon keeps in memory.
  size_t baseline_bytes_at_start = size_t{4} << 20U;
  /// Works that wait for the disk, and the bytes in them. A tick makes a few; a disk that hangs for minutes costs
  /// memory up to here, and then what would be stored.
  size_t queue = 1024;
  size_t queue_bytes = size_t{16} << 20U;
  /// While writing fails it is tried again so often.
  uint64_t retry_ns = 10'000'000'000;
};

/// The state of the daemon on disk, written by a thread of its own behind a bounded queue, since disks hang. All that
/// waits goes into one commit. Where writing fails (no room, no rights) the daemon goes on: what would be written is
/// counted as dropped, and writing is tried again every retry_ns. All functions from one thread; callbacks come on the
/// store's thread and must not block.
class Store final : public BaselineStore {
 public:
  struct Status {
    std::string path;
    bool storing = false;
    std::string problem;   ///< why it is not; else empty
    uint64_t bytes = 0;    ///< on the disk
    uint64_t limit = 0;    ///< StoreBounds::bytes
    uint64_t written = 0;  ///< works done
    uint64_t dropped = 0;  ///< works not done: queue full, or not storing
  };

  /// Opens the file and reads what start() of a daemon wants; blocks as the disk does. A file that cannot be used is no
  /// error: that is an event, and storing() is false. Fails only where no thread can be had. `clock` outlives it.
  [[nodiscard]] static Result<std::unique_ptr<Store>> open(StoreOptions options, const Clock& clock);
  /// Waits for what is queued, at most 2 s.
  ~Store() override;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  /// What the file held when it was opened, newest first; once.
  [[nodiscard]] std::vector<StoredAlert> take_alerts();
  [[nodiscard]] std::vector<Baseline> take_baselines();

  /// False where it is dropped: the queue is full, or writing fails at the moment.
  bool put(const Alert& alert);
  /// Puts it and notes that it is to be told. `then` hears the note's sequence once that is on the disk, or nothing
  /// where it could not be stored: it must be told all the same. False: dropped, `then` is not called.
  bool put_to_tell(const Alert& alert, std::function<void(std::optional<int64_t> sequence)> then);
  /// Takes the note with this sequence off; dropped where the store has ended. May be called from any thread, and
  /// after the store is gone.
  [[nodiscard]] std::function<void(int64_t sequence)> marker() const;
  /// Notes not marked yet, oldest first, those after `after`.
  bool read_outbox(int64_t after, size_t limit, std::function<void(std::vector<OutboxRow>)> then);
  bool put(Baseline baseline) override;
  bool remove(const std::string& service) override;

  void set_limit(uint64_t bytes);
  [[nodiscard]] Status status() const;
  [[nodiscard]] bool storing() const override;
  /// What a person should know, each once.
  [[nodiscard]] std::vector<Error> take_events();
  /// True once after writing failed and works again: what changed meanwhile is not in the file.
  [[nodiscard]] bool take_resumed();
  /// Until everything queued so far was done or dropped. False after `seconds`.
  bool flush(double seconds);

 private:
  struct Shared;
  explicit Store(std::shared_ptr<Shared> shared);
  std::shared_ptr<Shared> shared_;
};

}  // namespace stackwatch
