// SPDX-License-Identifier: Apache-2.0
#include "store/store.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

namespace stackwatch {
namespace {

using namespace std::chrono_literals;

/// A disk that works takes what is queued in this; one that hangs must not hold up the end of the daemon.
constexpr auto kLastWords = 2s;
/// Works in one commit: a commit is one fsync, and a thousand rows are some 10 ms of work.
constexpr size_t kBatch = 256;
/// Pruning looks through whole indexes: once in so many commits.
constexpr uint64_t kCommitsPerPruning = 64;
/// What an alert's queued copy takes, roughly.
constexpr size_t kAlertBytes = 4096;
/// Events that nobody took; more are not told.
constexpr size_t kMaxEvents = 16;

}  // namespace

/// What both threads use; outlives whichever ends first.
struct Store::Shared {
  struct Work {
    std::function<Result<void>(StateFile&)> run;  // may be called again after a rollback
    std::function<void(bool done)> after = [](bool) {};
    size_t bytes = 0;
  };

  Shared(StoreOptions o, const Clock& c) : options(std::move(o)), clock(c) {}

  const StoreOptions options;
  const Clock& clock;

  std::mutex mutex;
  std::condition_variable woken;
  std::condition_variable idle;
  std::deque<Work> queue;
  size_t queued_bytes = 0;
  bool busy = false;
  bool stopping = false;
  bool ended = false;
  bool resumed = false;
  uint64_t limit_bytes = 0;
  bool limit_changed = false;
  Status status;
  std::vector<Error> events;

  // The opener's, before the thread begins.
  std::vector<StoredAlert> alerts;
  std::vector<Baseline> baselines;

  // The store's thread alone, after start().
  std::unique_ptr<StateFile> file;
  StoreBounds bounds;
  uint64_t commits = 0;
  uint64_t retry_at_ns = 0;

  void start();
  bool push(Work work);
  [[nodiscard]] StoredAlert stored(const Alert& alert) const;
  void tell(Error event);
  void open_file();
  void fail_with(const Error& error);
  void recover();
  void run();
  void take_limit();
  void write(std::vector<Work>& batch);
  Result<void> commit(const std::vector<Work>& batch);
  void tell_pruned();
  void note_success(size_t works);
};

void Store::Shared::start() {
  bounds = options.bounds;
  limit_bytes = bounds.bytes;
  status.path = options.directory + "/" + StateFile::kFileName;
  open_file();
  if (!file) return;
  auto read = file->alerts(options.alerts_at_start);
  if (read) alerts = std::move(*read);
  if (auto pasts = file->baselines(options.baseline_bytes_at_start)) baselines = std::move(*pasts);
  note_success(0);
}

bool Store::Shared::push(Work work) {
  const std::lock_guard lock(mutex);
  if (ended || !status.storing || queue.size() >= options.queue || queued_bytes + work.bytes > options.queue_bytes) {
    ++status.dropped;
    return false;
  }
  queued_bytes += work.bytes;
  queue.push_back(std::move(work));
  woken.notify_all();
  return true;
}

void Store::Shared::tell(Error event) {
  const std::lock_guard lock(mutex);
  if (events.size() < kMaxEvents) events.push_back(std::move(event));
}

void Store::Shared::open_file() {
  file.reset();  // its lock would be in the way of the new one
  auto opened = StateFile::open(options.directory, bounds, clock.realtime_ns());
  if (!opened) {
    fail_with(opened.error());
    return;
  }
  if (!opened->set_aside.empty()) {
    tell({ErrorKind::kFailed, "read the state of earlier runs", opened->set_aside, "a new one is begun"});
  }
  file = std::move(opened->file);
}

// Told when it begins and when it is over, not with every try.
void Store::Shared::fail_with(const Error& error) {
  retry_at_ns = clock.monotonic_ns() + options.retry_ns;
  bool is_new = false;
  {
    const std::lock_guard lock(mutex);
    is_new = status.problem.empty();
    status.storing = false;
    status.problem = error.message();
  }
  if (is_new) {
    tell({ErrorKind::kFailed, "store alerts and baselines in " + options.directory, error.message(),
          "going on without storing; tried again every some seconds"});
  }
}

void Store::Shared::note_success(size_t works) {
  const std::lock_guard lock(mutex);
  status.bytes = file->bytes();
  status.written += works;
  if (status.storing) return;
  resumed = !status.problem.empty();
  status.storing = true;
  status.problem.clear();
}

// With an emptied file there may be room where there was none.
void Store::Shared::recover() {
  open_file();
  if (!file) return;
  auto works = file->prune();
  if (works) works = file->probe();
  if (works) {
    note_success(0);
  } else {
    fail_with(works.error());
  }
}

Result<void> Store::Shared::commit(const std::vector<Work>& batch) {
  if (auto begun = file->begin(); !begun) return begun;
  Result<void> done;
  for (const Work& work : batch) {
    done = work.run(*file);
    if (!done) break;
  }
  if (done && commits++ % kCommitsPerPruning == 0) done = file->prune();
  if (done) done = file->commit();
  if (!done) file->rollback();
  tell_pruned();
  return done;
}

void Store::Shared::tell_pruned() {
  const uint64_t pruned = file->take_pruned_untold();
  if (pruned == 0) return;
  tell({ErrorKind::kFailed, "keep " + std::to_string(pruned) + " changes of alerts until they are told",
        "there has been no journal for long, and " + std::to_string(bounds.outbox) + " newer ones wait",
        "`stackwatch alerts` shows the alerts"});
}

void Store::Shared::write(std::vector<Work>& batch) {
  if (!file) {
    for (const Work& work : batch) work.after(false);
    const std::lock_guard lock(mutex);
    status.dropped += batch.size();
    return;
  }
  auto done = commit(batch);
  if (!done && file->is_damaged()) {
    open_file();
    if (file) done = commit(batch);
  } else if (!done) {
    // No room: what is old makes some.
    if (file->prune()) done = commit(batch);
  }
  if (done) {
    note_success(batch.size());
  } else if (file) {
    fail_with(done.error());
    file.reset();
  }
  for (const Work& work : batch) work.after(done.has_value());
  if (done) return;
  const std::lock_guard lock(mutex);
  status.dropped += batch.size();
}

void Store::Shared::take_limit() {
  const std::lock_guard lock(mutex);
  if (!std::exchange(limit_changed, false)) return;
  bounds.bytes = limit_bytes;
  commits = 0;  // prune with the next commit
  if (file) file->set_bounds(bounds);
}

void Store::Shared::run() {
  std::unique_lock lock(mutex);
  while (true) {
    const auto due = [this] { return stopping || !queue.empty() || limit_changed; };
    if (status.storing) {
      woken.wait(lock, due);
    } else {
      woken.wait_for(lock, std::chrono::nanoseconds(options.retry_ns), due);
    }
    if (stopping && queue.empty()) break;
    std::vector<Work> batch;
    while (!queue.empty() && batch.size() < kBatch) {
      queued_bytes -= queue.front().bytes;
      batch.push_back(std::move(queue.front()));
      queue.pop_front();
    }
    busy = true;
    const bool storing = status.storing;
    lock.unlock();
    take_limit();
    if (!storing && clock.monotonic_ns() >= retry_at_ns) recover();
    if (!batch.empty()) write(batch);
    lock.lock();
    busy = false;
    idle.notify_all();
  }
  file.reset();  // the last connection takes the log into the file
  ended = true;
  idle.notify_all();
}

Store::Store(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

Result<std::unique_ptr<Store>> Store::open(StoreOptions options, const Clock& clock) {
  auto shared = std::make_shared<Shared>(std::move(options), clock);
  shared->start();
  // Signals are the loop's: the new thread inherits a mask that leaves it none.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = 0;
  try {
    std::thread([shared] {
      pthread_setname_np(pthread_self(), "store");
      shared->run();
    }).detach();  // it may hang in a hanging disk: nobody may have to wait for its end
  } catch (const std::system_error& e) {
    error = e.code().value();
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) return fail_errno("start the store's thread", error);
  return std::unique_ptr<Store>(new Store(std::move(shared)));
}

Store::~Store() {
  std::unique_lock lock(shared_->mutex);
  shared_->stopping = true;
  shared_->woken.notify_all();
  shared_->idle.wait_for(lock, kLastWords, [this] { return shared_->ended; });
}

StoredAlert Store::Shared::stored(const Alert& alert) const {
  return {alert.id,        alert.state,      alert.process.key,     options.boot_id,
          alert.opened_ns, alert.updated_ns, options.to_json(alert)};
}

std::vector<StoredAlert> Store::take_alerts() { return std::exchange(shared_->alerts, {}); }
std::vector<Baseline> Store::take_baselines() { return std::exchange(shared_->baselines, {}); }

bool Store::put(const Alert& alert) {
  Shared::Work work;
  work.run = [shared = shared_.get(), alert](StateFile& file) { return file.put(shared->stored(alert)); };
  work.bytes = kAlertBytes;
  return shared_->push(std::move(work));
}

bool Store::put_to_tell(const Alert& alert, std::function<void(std::optional<int64_t>)> then) {
  const auto sequence = std::make_shared<int64_t>(0);
  Shared::Work work;
  work.run = [shared = shared_.get(), alert, sequence](StateFile& file) -> Result<void> {
    auto put = file.put_to_tell(shared->stored(alert));
    if (!put) return Failure(put.error());
    *sequence = *put;
    return {};
  };
  work.after = [sequence, then = std::move(then)](bool done) { then(done ? std::optional(*sequence) : std::nullopt); };
  work.bytes = kAlertBytes;
  return shared_->push(std::move(work));
}

std::function<void(int64_t)> Store::marker() const {
  return [shared = shared_](int64_t sequence) {
    Shared::Work work;
    work.run = [sequence](StateFile& file) { return file.mark_told(sequence); };
    static_cast<void>(shared->push(std::move(work)));  // dropped: it is told once more
  };
}

bool Store::read_outbox(int64_t after, size_t limit, std::function<void(std::vector<OutboxRow>)> then) {
  const auto rows = std::make_shared<std::vector<OutboxRow>>();
  Shared::Work work;
  work.run = [=](StateFile& file) -> Result<void> {
    auto read = file.outbox(after, limit);
    if (!read) return Failure(read.error());
    *rows = std::move(*read);
    return {};
  };
  work.after = [rows, then = std::move(then)](bool done) {
    if (done) then(std::move(*rows));
  };
  return shared_->push(std::move(work));
}

bool Store::put(Baseline baseline) {
  if (baseline.blob.size() > shared_->options.bounds.baseline_bytes) {
    const std::lock_guard lock(shared_->mutex);
    ++shared_->status.dropped;
    return false;
  }
  Shared::Work work;
  work.bytes = baseline.blob.size();
  work.run = [baseline = std::move(baseline)](StateFile& file) { return file.put(baseline); };
  return shared_->push(std::move(work));
}

bool Store::remove(const std::string& service) {
  Shared::Work work;
  work.bytes = service.size();
  work.run = [service](StateFile& file) { return file.remove_baseline(service); };
  return shared_->push(std::move(work));
}

void Store::set_limit(uint64_t bytes) {
  const std::lock_guard lock(shared_->mutex);
  if (shared_->limit_bytes == bytes) return;
  shared_->limit_bytes = bytes;
  shared_->limit_changed = true;
  shared_->woken.notify_all();
}

Store::Status Store::status() const {
  const std::lock_guard lock(shared_->mutex);
  Status status = shared_->status;
  status.limit = shared_->limit_bytes;
  return status;
}

bool Store::storing() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->status.storing;
}

std::vector<Error> Store::take_events() {
  const std::lock_guard lock(shared_->mutex);
  return std::exchange(shared_->events, {});
}

bool Store::take_resumed() {
  const std::lock_guard lock(shared_->mutex);
  return std::exchange(shared_->resumed, false);
}

bool Store::flush(double seconds) {
  std::unique_lock lock(shared_->mutex);
  return shared_->idle.wait_for(lock, std::chrono::duration<double>(seconds),
                                [this] { return shared_->ended || (shared_->queue.empty() && !shared_->busy); });
}

}  // namespace stackwatch
