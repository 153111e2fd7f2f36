// SPDX-License-Identifier: Apache-2.0
#include "store/state_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "core/time_text.h"
#include "store/sqlite.h"

namespace stackwatch {
namespace {

constexpr int64_t kApplicationId = 0x5374'5761;  // "StWa": what `file` shows
constexpr uint64_t kPageBytes = 4096;
/// Between two checkpoints: the log's part of the bytes that are allowed.
constexpr uint64_t kLogBytes = uint64_t{1} << 20U;
/// Of the allowed bytes; what is above it is pruned.
constexpr double kPruneAbove = 0.9;
/// Part of a table that goes in one round of pruning.
constexpr int kPrunePart = 10;
constexpr int kPruneRounds = 40;

/// From version i to i + 1. Never changed once released: a new one is added.
constexpr std::array<const char*, StateFile::kSchemaVersion> kMigrations = {
    R"sql(
CREATE TABLE alerts (
  id TEXT PRIMARY KEY, state TEXT NOT NULL, pid INTEGER NOT NULL, start_time_ns INTEGER NOT NULL, boot_id TEXT NOT NULL,
  opened_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL, evidence TEXT NOT NULL);
CREATE INDEX alerts_by_age ON alerts (updated_ns);
CREATE TABLE outbox (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, state TEXT NOT NULL, pid INTEGER NOT NULL,
  start_time_ns INTEGER NOT NULL, boot_id TEXT NOT NULL, opened_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL,
  evidence TEXT NOT NULL);
)sql",
    R"sql(
CREATE TABLE baselines (
  service TEXT PRIMARY KEY, version INTEGER NOT NULL, updated_ns INTEGER NOT NULL, blob BLOB NOT NULL);
CREATE INDEX baselines_by_age ON baselines (updated_ns);
CREATE TABLE incidents (
  id TEXT PRIMARY KEY, resolved INTEGER NOT NULL, opened_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL,
  evidence TEXT NOT NULL);
CREATE INDEX incidents_by_age ON incidents (updated_ns);
)sql",
    // Nothing ever wrote incidents: an alert is what is told of one cause, with all its processes and its whole life.
    "DROP TABLE incidents;"};

// Strangers' files beside ours would be read with our rights, and a link of theirs written through.
Result<void> prepare_directory(const std::string& directory) {
  const std::string what = "use the state directory " + directory;
  if (mkdir(directory.c_str(), 0750) != 0 && errno != EEXIST) return fail_errno(what, errno);
  struct stat status {};
  if (stat(directory.c_str(), &status) != 0) return fail_errno(what, errno);
  if (!S_ISDIR(status.st_mode)) return fail(what, "it is no directory");
  if ((status.st_uid != geteuid() && status.st_uid != 0) || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(what, "others may write into it", "chown and chmod 0750 it, or choose another --state-dir");
  }
  return {};
}

uint64_t size_of(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
}

void remove_old_aside(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  std::vector<fs::path> aside;
  const fs::path file(path);
  for (const auto& entry : fs::directory_iterator(file.parent_path(), ignored)) {
    const std::string name = entry.path().filename();
    const bool is_log = name.ends_with("-wal") || name.ends_with("-shm");
    if (name.starts_with(file.filename().string() + ".aside-") && !is_log) aside.push_back(entry.path());
  }
  std::ranges::sort(aside);  // the time in the name is the order
  for (size_t i = 0; i + StateFile::kMaxSetAside < aside.size(); ++i) {
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(aside[i].string() + suffix, ignored);
  }
}

// The log goes along: what it holds may be all that can still be read.
Result<std::string> set_aside(const std::string& path, uint64_t realtime_ns) {
  std::string time = format_utc(realtime_ns);
  std::erase_if(time, [](char c) { return c == ':' || c == '-'; });
  std::string aside = path + ".aside-" + time;
  for (int i = 2; access(aside.c_str(), F_OK) == 0; ++i) aside = path + ".aside-" + time + "-" + std::to_string(i);
  for (const char* suffix : {"-shm", "-wal", ""}) {
    if (rename((path + suffix).c_str(), (aside + suffix).c_str()) != 0 && errno != ENOENT) {
      return fail_errno("set the damaged state file " + path + " aside", errno);
    }
  }
  remove_old_aside(path);
  return aside;
}

Statement& bind(Statement& statement, const StoredAlert& alert) {
  return statement << alert.id << to_string(alert.state) << static_cast<int64_t>(alert.process.pid)
                   << alert.process.start_time_ns << alert.boot_id << alert.opened_ns << alert.updated_ns
                   << alert.evidence;
}

// Columns as bind() names them, from `first` on.
StoredAlert alert_of(const Statement& row, int first) {
  StoredAlert alert;
  alert.id = row.text(first);
  alert.state = parse_alert_state(row.text(first + 1)).value_or(AlertState::kResolved);
  alert.process = {static_cast<int32_t>(row.number(first + 2)), static_cast<uint64_t>(row.number(first + 3))};
  alert.boot_id = row.text(first + 4);
  alert.opened_ns = static_cast<uint64_t>(row.number(first + 5));
  alert.updated_ns = static_cast<uint64_t>(row.number(first + 6));
  alert.evidence = row.text(first + 7);
  return alert;
}

}  // namespace

struct StateFile::Database {
  Connection connection;
};

/// The steps of open(), with what each may find.
struct StateFileOpener {
  enum class Finding { kFine, kDamaged, kFailed };
  struct Tried {
    Finding finding = Finding::kFine;
    std::unique_ptr<StateFile> file;
    Error error;
  };

  static Tried failed(const Error& error) { return {Finding::kFailed, nullptr, error}; }
  static Tried damaged(std::string why) { return {Finding::kDamaged, nullptr, {ErrorKind::kFailed, "", why, ""}}; }
  static Tried judge(Connection& connection, const Error& error) {
    const int code = connection.last_code();
    if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) return damaged(error.why);
    if (code != SQLITE_BUSY && code != SQLITE_LOCKED) return failed(error);
    return failed({ErrorKind::kFailed, "use the state file", "another stackwatchd uses it", "give it its --state-dir"});
  }

  static Tried open(const std::string& path, const StoreBounds& bounds) {
    auto connection = Connection::open(path);
    if (!connection) return failed(connection.error());
    // Exclusive: a second daemon is refused, and no memory is shared through a file.
    for (const char* pragma :
         {"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA auto_vacuum=INCREMENTAL", "PRAGMA journal_mode=WAL",
          "PRAGMA synchronous=FULL", "PRAGMA wal_autocheckpoint=256", "PRAGMA journal_size_limit=1048576",
          "PRAGMA cache_size=-1024", "PRAGMA temp_store=MEMORY", "PRAGMA trusted_schema=OFF"}) {
      if (auto set = connection->run(pragma); !set) return judge(*connection, set.error());
    }
    const auto version = connection->number("PRAGMA user_version");
    const auto application = connection->number("PRAGMA application_id");
    const auto tables = connection->number("SELECT count(*) FROM sqlite_schema");
    for (const auto* read : {&version, &application, &tables}) {
      if (!*read) return judge(*connection, read->error());
    }
    if (*tables > 0 && *application != kApplicationId) return damaged("it is another program's");
    if (*version > StateFile::kSchemaVersion) return damaged("it was written by a newer stackwatchd");
    const auto check = connection->text("PRAGMA quick_check(1)");
    if (!check) return judge(*connection, check.error());
    if (*check != "ok") return damaged(*check);

    auto database = std::make_unique<StateFile::Database>(StateFile::Database{std::move(*connection)});
    std::unique_ptr<StateFile> file(new StateFile(path, bounds, std::move(database)));
    Connection& used = file->database_->connection;
    if (auto migrated = file->migrate(*version); !migrated) return judge(used, migrated.error());
    file->set_bounds(bounds);
    return {Finding::kFine, std::move(file), {}};
  }
};

Result<StateFile::Opened> StateFile::open(const std::string& directory, const StoreBounds& bounds,
                                          uint64_t realtime_ns) {
  if (auto prepared = prepare_directory(directory); !prepared) return Failure(prepared.error());
  const std::string path = directory + "/" + kFileName;
  auto tried = StateFileOpener::open(path, bounds);
  Opened opened;
  if (tried.finding == StateFileOpener::Finding::kDamaged) {
    auto aside = set_aside(path, realtime_ns);
    if (!aside) return Failure(aside.error());
    opened.set_aside = "the state file could not be used (" + tried.error.why + ") and is now " + *aside;
    tried = StateFileOpener::open(path, bounds);
  }
  if (!tried.file) return Failure(tried.error);
  opened.file = std::move(tried.file);
  return opened;
}

StateFile::StateFile(std::string path, const StoreBounds& bounds, std::unique_ptr<Database> database)
    : path_(std::move(path)), bounds_(bounds), database_(std::move(database)) {}

StateFile::~StateFile() = default;

Result<void> StateFile::migrate(int64_t from) {
  Connection& connection = database_->connection;
  for (int64_t version = from; version < kSchemaVersion; ++version) {
    if (auto begun = begin(); !begun) return begun;
    auto done = connection.run(kMigrations[static_cast<size_t>(version)]);
    if (done) done = connection.run(("PRAGMA user_version=" + std::to_string(version + 1)).c_str());
    if (done) done = connection.run(("PRAGMA application_id=" + std::to_string(kApplicationId)).c_str());
    if (done) done = commit();
    if (!done) {
      rollback();
      return done;
    }
  }
  return {};
}

Result<void> StateFile::begin() { return database_->connection.run("BEGIN IMMEDIATE"); }
Result<void> StateFile::commit() { return database_->connection.run("COMMIT"); }

// What it rolls back failed already: its own failure would say nothing new, and the reason must stay.
void StateFile::rollback() {
  sqlite3* handle = database_->connection.get();
  if (sqlite3_get_autocommit(handle) == 0) sqlite3_exec(handle, "ROLLBACK", nullptr, nullptr, nullptr);
}

Result<void> StateFile::put(const StoredAlert& alert) {
  Statement statement(database_->connection,
                      "INSERT INTO alerts (id, state, pid, start_time_ns, boot_id, opened_ns, updated_ns, evidence) "
                      "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state=excluded.state, "
                      "pid=excluded.pid, start_time_ns=excluded.start_time_ns, boot_id=excluded.boot_id, "
                      "opened_ns=excluded.opened_ns, updated_ns=excluded.updated_ns, evidence=excluded.evidence");
  return bind(statement, alert).done();
}

Result<int64_t> StateFile::put_to_tell(const StoredAlert& alert) {
  if (auto done = put(alert); !done) return Failure(done.error());
  Statement statement(database_->connection,
                      "INSERT INTO outbox (id, state, pid, start_time_ns, boot_id, opened_ns, updated_ns, evidence) "
                      "VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  if (auto done = bind(statement, alert).done(); !done) return Failure(done.error());
  return database_->connection.last_row();
}

Result<void> StateFile::mark_told(int64_t sequence) {
  Statement statement(database_->connection, "DELETE FROM outbox WHERE sequence = ?");
  return (statement << sequence).done();
}

Result<void> StateFile::put(const Baseline& baseline) {
  if (baseline.blob.size() > bounds_.baseline_bytes) {
    return fail("store the baseline of " + baseline.service,
                "it has " + std::to_string(baseline.blob.size()) + " bytes, more than the " +
                    std::to_string(bounds_.baseline_bytes) + " that are kept");
  }
  // A row that is replaced goes to other pages; one that is updated with as many bytes is written over in its own.
  Statement statement(database_->connection,
                      "INSERT INTO baselines VALUES (?, ?, ?, ?) ON CONFLICT (service) DO UPDATE SET "
                      "version = excluded.version, updated_ns = excluded.updated_ns, blob = excluded.blob");
  statement << baseline.service << baseline.version << baseline.updated_ns << std::span(baseline.blob);
  return statement.done();
}

Result<void> StateFile::remove_baseline(const std::string& service) {
  Statement statement(database_->connection, "DELETE FROM baselines WHERE service = ?");
  return (statement << service).done();
}

Result<std::vector<StoredAlert>> StateFile::alerts(size_t limit) {
  Statement statement(database_->connection,
                      "SELECT id, state, pid, start_time_ns, boot_id, opened_ns, updated_ns, evidence FROM alerts "
                      "ORDER BY updated_ns DESC LIMIT ?");
  statement << static_cast<uint64_t>(limit);
  std::vector<StoredAlert> alerts;
  for (auto row = statement.step();; row = statement.step()) {
    if (!row) return Failure(row.error());
    if (!*row) return alerts;
    alerts.push_back(alert_of(statement, 0));
  }
}

Result<std::vector<OutboxRow>> StateFile::outbox(int64_t after, size_t limit) {
  Statement statement(database_->connection,
                      "SELECT sequence, id, state, pid, start_time_ns, boot_id, opened_ns, updated_ns, evidence "
                      "FROM outbox WHERE sequence > ? ORDER BY sequence LIMIT ?");
  statement << after << static_cast<uint64_t>(limit);
  std::vector<OutboxRow> rows;
  for (auto row = statement.step();; row = statement.step()) {
    if (!row) return Failure(row.error());
    if (!*row) return rows;
    rows.push_back({statement.number(0), alert_of(statement, 1)});
  }
}

Result<std::vector<Baseline>> StateFile::baselines(size_t bytes) {
  Statement statement(database_->connection,
                      "SELECT service, version, updated_ns, blob FROM baselines ORDER BY updated_ns DESC");
  std::vector<Baseline> baselines;
  for (auto row = statement.step();; row = statement.step()) {
    if (!row) return Failure(row.error());
    if (!*row) return baselines;
    const auto blob = statement.blob(3);
    if (blob.size() > bytes) return baselines;
    bytes -= blob.size();
    baselines.push_back({std::string(statement.text(0)), statement.number(1),
                         static_cast<uint64_t>(statement.number(2)), std::vector<std::byte>(blob.begin(), blob.end())});
  }
}

Result<void> StateFile::probe() {
  // A page is written even where nothing changes, since the version counts as written.
  return database_->connection.run(("PRAGMA user_version=" + std::to_string(kSchemaVersion)).c_str());
}

void StateFile::set_bounds(const StoreBounds& bounds) {
  bounds_ = bounds;
  // The last resort behind prune(): a write that would go past it fails as on a full disk.
  const uint64_t pages = (std::max(bounds.bytes, 2 * kLogBytes) - kLogBytes) / kPageBytes;
  static_cast<void>(database_->connection.number(("PRAGMA max_page_count=" + std::to_string(pages)).c_str()));
}

uint64_t StateFile::bytes() const { return size_of(path_) + size_of(path_ + "-wal"); }

bool StateFile::is_damaged() const {
  const int code = database_->connection.last_code();
  return code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
}

Result<void> StateFile::prune() {
  if (auto done = prune_rows(); !done) return done;
  return prune_bytes();
}

Result<void> StateFile::prune_rows() {
  struct Bound {
    const char* sql;
    size_t rows;
    bool are_untold = false;
  };
  // A firing alert is no history.
  for (const Bound& bound : {Bound{"DELETE FROM alerts WHERE state = 'resolved' AND id IN "
                                   "(SELECT id FROM alerts ORDER BY updated_ns DESC LIMIT -1 OFFSET ?)",
                                   bounds_.alerts},
                             Bound{"DELETE FROM outbox WHERE sequence IN "
                                   "(SELECT sequence FROM outbox ORDER BY sequence DESC LIMIT -1 OFFSET ?)",
                                   bounds_.outbox, true},
                             Bound{"DELETE FROM baselines WHERE service IN "
                                   "(SELECT service FROM baselines ORDER BY updated_ns DESC LIMIT -1 OFFSET ?)",
                                   bounds_.baselines}}) {
    Statement statement(database_->connection, bound.sql);
    if (auto done = (statement << static_cast<uint64_t>(bound.rows)).done(); !done) return done;
    if (bound.are_untold) pruned_untold_ += static_cast<uint64_t>(database_->connection.changes());
  }
  return {};
}

Result<uint64_t> StateFile::used_bytes() {
  const auto pages = database_->connection.number("PRAGMA page_count");
  if (!pages) return Failure(pages.error());
  const auto free = database_->connection.number("PRAGMA freelist_count");
  if (!free) return Failure(free.error());
  return static_cast<uint64_t>(*pages - *free) * kPageBytes + kLogBytes;
}

// Pasts of services that nobody has seen for long first, then what is over; a tenth of each per round.
Result<void> StateFile::prune_bytes() {
  Connection& connection = database_->connection;
  const auto allowed = static_cast<uint64_t>(kPruneAbove * static_cast<double>(bounds_.bytes));
  for (int round = 0; round < kPruneRounds; ++round) {
    const auto used = used_bytes();
    if (!used) return Failure(used.error());
    if (*used <= allowed) break;
    int64_t gone = 0;
    for (const char* sql :
         {"DELETE FROM baselines WHERE service IN (SELECT service FROM baselines ORDER BY updated_ns "
          "LIMIT (SELECT count(*) / ?1 + 1 FROM baselines))",
          "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts WHERE state = 'resolved' ORDER BY updated_ns "
          "LIMIT (SELECT count(*) / ?1 + 1 FROM alerts))"}) {
      Statement statement(connection, sql);
      if (auto done = (statement << int64_t{kPrunePart}).done(); !done) return done;
      gone += connection.changes();
    }
    if (gone == 0) break;
  }
  return connection.run("PRAGMA incremental_vacuum");
}

}  // namespace stackwatch
