// SPDX-License-Identifier: Apache-2.0
// The place in this file says nothing to a reader of the journal, and the path is the build machine's.
#define SD_JOURNAL_SUPPRESS_LOCATION
#include "daemon/alerting/journal_sink.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace stackwatch {
namespace {

using namespace std::chrono_literals;

/// A stopping daemon gives a journald that is alive time for what is queued, and no more than that to a dead one.
constexpr auto kLastWords = 2s;
/// journald is restarted in well under this; longer than that and later alerts need the room in the queue.
constexpr auto kRetryPause = 1s;
constexpr int kRetries = 30;

bool is_transient(int error) {
  return error == -EAGAIN || error == -ECONNREFUSED || error == -ENOBUFS || error == -ENOENT || error == -EINTR ||
         error == -ENOMEM || error == -ECONNRESET;
}

bool is_socket(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

}  // namespace

/// What both threads use; outlives whichever ends first.
struct JournalSink::Shared {
  struct Entry {
    std::vector<std::string> fields;
    std::function<void(bool sent)> done;
  };

  explicit Shared(JournalSinkOptions o) : options(std::move(o)) {}

  const JournalSinkOptions options;
  std::mutex mutex;
  std::condition_variable woken;
  std::condition_variable idle;
  std::deque<Entry> queue;
  bool sending = false;
  bool stopping = false;
  bool ended = false;
  Stats stats;

  void run();
  int send(const Entry& entry);
  int send_once(const Entry& entry) const;
};

int JournalSink::Shared::send_once(const Entry& entry) const {
  if (!is_socket(options.socket_path)) return -ENOENT;  // sd_journal_sendv calls this a success
  std::vector<iovec> fields;
  fields.reserve(entry.fields.size());
  for (const std::string& field : entry.fields) fields.push_back({const_cast<char*>(field.data()), field.size()});
  const int count = static_cast<int>(fields.size());
  return options.send ? options.send(fields.data(), count) : sd_journal_sendv(fields.data(), count);
}

int JournalSink::Shared::send(const Entry& entry) {
  for (int attempt = 0;; ++attempt) {
    const int error = send_once(entry);
    if (error >= 0 || !is_transient(error) || attempt == kRetries) return error;
    std::unique_lock lock(mutex);
    if (woken.wait_for(lock, kRetryPause, [this] { return stopping; })) return error;
  }
}

void JournalSink::Shared::run() {
  std::unique_lock lock(mutex);
  while (true) {
    woken.wait(lock, [this] { return stopping || !queue.empty(); });
    if (queue.empty()) break;
    const Entry entry = std::move(queue.front());
    queue.pop_front();
    sending = true;
    lock.unlock();
    const int error = send(entry);
    if (entry.done) entry.done(error >= 0);
    lock.lock();
    sending = false;
    if (queue.empty()) idle.notify_all();
    if (error >= 0) {
      ++stats.sent;
    } else {
      ++stats.failed;
      stats.last_error = std::strerror(-error);
    }
  }
  ended = true;
  idle.notify_all();
}

JournalSink::JournalSink(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

Result<std::unique_ptr<JournalSink>> JournalSink::create(JournalSinkOptions options) {
  auto shared = std::make_shared<Shared>(std::move(options));
  // Signals are the loop's: the new thread inherits a mask that leaves it none.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = 0;
  try {
    std::thread([shared] {
      pthread_setname_np(pthread_self(), "journal");
      shared->run();
    }).detach();  // it may hang in a hanging journald: nobody may have to wait for its end
  } catch (const std::system_error& e) {
    error = e.code().value();
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) return fail_errno("start the journal's thread", error);
  return std::unique_ptr<JournalSink>(new JournalSink(std::move(shared)));
}

JournalSink::~JournalSink() {
  std::unique_lock lock(shared_->mutex);
  shared_->stopping = true;
  shared_->woken.notify_all();
  shared_->idle.wait_for(lock, kLastWords, [this] { return shared_->ended; });
}

Result<void> JournalSink::publish(const Alert& alert, std::function<void(bool)> done) {
  const JournalSinkOptions& options = shared_->options;
  auto fields = journal_fields(alert, options.object_pid);
  const std::lock_guard lock(shared_->mutex);
  if (!available()) {
    ++shared_->stats.no_journal;
    return fail(ErrorKind::kUnsupported, "write alert " + alert.id + " to the journal",
                "there is no journal at " + options.socket_path, "alerts are still on the control socket");
  }
  if (shared_->queue.size() >= options.queue) {
    ++shared_->stats.queue_full;
    return fail("write alert " + alert.id + " to the journal",
                fmt::format("journald does not take the {} entries before it", shared_->queue.size()),
                "systemctl status systemd-journald");
  }
  shared_->queue.push_back({std::move(fields), std::move(done)});
  shared_->woken.notify_all();
  return {};
}

bool JournalSink::flush(double seconds) {
  std::unique_lock lock(shared_->mutex);
  return shared_->idle.wait_for(lock, std::chrono::duration<double>(seconds),
                                [this] { return shared_->ended || (shared_->queue.empty() && !shared_->sending); });
}

bool JournalSink::available() const { return is_socket(shared_->options.socket_path); }

JournalSink::Stats JournalSink::stats() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->stats;
}

}  // namespace stackwatch
