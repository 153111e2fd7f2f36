// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <bitset>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "core/unique_fd.h"
#include "symbols/protocol.h"
#include "symbols/worker_process.h"

namespace stackwatch {

/// Requests that the worker was sent and has not answered. Few, so that they always fit its socket: more are not
/// faster, as it answers one at a time.
inline constexpr size_t kMaxRequestsUnderWay = 16;
/// A cold file of some GB on a slow disk; a worker that takes longer hangs (a dead network file system, a file made
/// to take forever) and is killed.
inline constexpr uint64_t kRequestTimeoutNs = 10'000'000'000;
/// A worker that has lived so long is healthy: its next death is not part of a row.
inline constexpr uint64_t kHealthyAfterNs = 60'000'000'000;
inline constexpr uint64_t kFirstRestartDelayNs = 1'000'000'000;
inline constexpr uint64_t kMaxRestartDelayNs = 60'000'000'000;

/// The daemon's end of the worker: starts it, restarts it with growing delays (the first time at once) when it dies,
/// kills it when it hangs or answers what it was not asked, and believes nothing it says without checking.
/// The destructor kills it and waits at most a second for its end.
class SymbolWorker {
 public:
  /// Whom answers are for; called from dispatch() only, and may send from there.
  class Listener {
   public:
    virtual ~Listener() = default;
    /// The answer to an add_object() or an add_debug_file().
    virtual void on_object(const protocol::ObjectInfo& info) = 0;
    /// One offset of a resolve(); each is answered exactly once unless the worker dies.
    virtual void on_name(uint32_t object, uint64_t offset, const protocol::Name& name) = 0;
    /// The answer to a find_allocator().
    virtual void on_allocator(uint32_t /*object*/, protocol::Allocator /*allocator*/) {}
    /// A piece of the answer to a build_unwind().
    virtual void on_unwind(uint32_t /*object*/, protocol::UnwindRows /*rows*/) {}
    /// Everything it was given is gone; what was not answered will not be. `culprit` is the object it was reading, if
    /// any; `certain` where it was that object's doing, and not perhaps chance: a SIGKILL from outside (the OOM
    /// killer, a person), or a time-out on a machine that was too busy.
    virtual void on_death(std::optional<uint32_t> culprit, bool certain) = 0;
  };

  /// Registers itself with `epoll` (which outlives it). Tries to start the worker at once.
  SymbolWorker(const Clock& clock, int epoll, std::unique_ptr<WorkerSpawner> spawner);
  ~SymbolWorker();
  SymbolWorker(const SymbolWorker&) = delete;
  SymbolWorker& operator=(const SymbolWorker&) = delete;

  /// Reads what the worker says, notices its death, restarts it. Call when epoll reports anything and once per tick.
  void dispatch(Listener& listener);
  /// It has said that it is confined and reads: before, nothing can be sent.
  [[nodiscard]] bool is_ready() const { return ready_; }
  [[nodiscard]] bool has_room() const { return ready_ && under_way_.size() < kMaxRequestsUnderWay; }
  [[nodiscard]] pid_t pid() const { return worker_ ? worker_->pid : 0; }
  [[nodiscard]] uint64_t deaths() const { return deaths_; }
  [[nodiscard]] std::vector<Error> take_events();

  /// These send without blocking; false where it was not possible now (nothing happened, try after a dispatch()).
  bool add_object(uint32_t object, int file, protocol::FileKind kind = protocol::FileKind::kElf);
  bool add_debug_file(uint32_t object, int file, protocol::FileKind kind);
  bool resolve(uint32_t object, std::span<const uint64_t> offsets);  ///< 1 … kMaxOffsets of them
  bool find_allocator(uint32_t object);
  bool build_unwind(uint32_t object);
  bool drop_object(uint32_t object);

 private:
  struct UnderWay {
    protocol::Type request{};
    uint32_t sequence = 0;
    uint32_t object = 0;
    uint64_t sent_ns = 0;
    std::vector<uint64_t> offsets;
    std::bitset<protocol::kMaxOffsets> answered;
  };

  void start();
  void read_replies(Listener& listener);
  bool take_reply(const protocol::Reply& reply, Listener& listener);
  bool take_names(const protocol::Names& names, Listener& listener);
  void finish_head();
  bool send(const protocol::Request& request, int file);
  void kill_worker(std::string why);
  void check_time();
  void reap(Listener& listener);
  void bury(Listener& listener, const WorkerExit& exit);
  void plan_restart();

  const Clock& clock_;
  int epoll_;
  std::unique_ptr<WorkerSpawner> spawner_;
  std::optional<WorkerProcess> worker_;
  bool ready_ = false;
  std::string killed_because_;  ///< empty: we did not kill it
  bool timed_out_ = false;
  uint32_t next_sequence_ = 1;
  std::deque<UnderWay> under_way_;
  uint64_t head_since_ns_ = 0;  ///< since when the first of them is the worker's work
  uint64_t started_ns_ = 0;
  uint64_t restart_at_ns_ = 0;
  uint64_t restart_delay_ns_ = 0;  ///< of the last restart; 0: none in this row
  bool start_failure_told_ = false;
  uint64_t death_told_ns_ = 0;
  uint64_t deaths_ = 0;
  std::vector<Error> events_;
};

}  // namespace stackwatch
