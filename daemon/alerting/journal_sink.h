// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "daemon/sink.h"

namespace stackwatch {

/// The fields of an alert's journal entry, each `NAME=value`, valid UTF-8 without control characters, each under the
/// 4096 bytes above which `journalctl -o json` shows null. STACKWATCH_STACK is root first, joined by `;`.
/// `object_pid`: add OBJECT_PID (journald takes it from root only).
[[nodiscard]] std::vector<std::string> journal_fields(const Alert& alert, bool object_pid);

struct JournalSinkOptions {
  std::string socket_path = "/run/systemd/journal/socket";  ///< looked at to know whether there is a journal
  /// Entries that wait for journald. A tick makes one or two at most on a sane host; 256 entries of about 3 kB are
  /// what a hanging journald may cost.
  size_t queue = 256;
  bool object_pid = false;  ///< true for root
  /// sd_journal_sendv, or a test's: 0 or a negative errno. Called on the sink's own thread; may block.
  std::function<int(const iovec* fields, int count)> send;
};

/// Writes alerts to the systemd journal. sd_journal_sendv blocks while journald's socket is full, so a thread of its
/// own calls it, behind a bounded queue. publish() never blocks.
class JournalSink final : public Sink {
 public:
  struct Stats {
    uint64_t sent = 0;
    uint64_t no_journal = 0;  ///< alerts refused because there was no journal socket
    uint64_t queue_full = 0;  ///< alerts refused because journald does not keep up
    uint64_t failed = 0;      ///< alerts that journald would not take
    std::string last_error;   ///< of the last failed one
  };

  /// Works without a journal too: one may come later. Fails only where no thread can be had.
  [[nodiscard]] static Result<std::unique_ptr<JournalSink>> create(JournalSinkOptions options = {});
  /// Waits for queued entries, at most 2 s: a journald that hangs does not hang the caller.
  ~JournalSink() override;
  JournalSink(const JournalSink&) = delete;
  JournalSink& operator=(const JournalSink&) = delete;

  [[nodiscard]] std::string_view name() const override { return "journal"; }
  /// Errors: no journal socket (kUnsupported), queue full (kFailed). The alert is not written then, and counted.
  [[nodiscard]] Result<void> publish(const Alert& alert) override { return publish(alert, {}); }
  /// `done` hears, on the sink's thread, whether journald took the entry; not where publish() fails, nor where the
  /// sink ends before. From any thread.
  [[nodiscard]] Result<void> publish(const Alert& alert, std::function<void(bool sent)> done);
  /// Until journald has, or has refused, what was published so far. False after `seconds`.
  bool flush(double seconds);
  /// Whether a journal socket exists now. To be told once when it changes.
  [[nodiscard]] bool available() const;
  [[nodiscard]] Stats stats() const;

 private:
  struct Shared;
  explicit JournalSink(std::shared_ptr<Shared> shared);

  std::shared_ptr<Shared> shared_;
};

}  // namespace stackwatch
