// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of store/ only.

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"

namespace stackwatch {

/// A connection to one SQLite file. One thread. Errors carry SQLite's own text; last_code() tells kinds apart.
class Connection {
 public:
  /// Creates the file where there is none. Never follows a symbolic link to it.
  [[nodiscard]] static Result<Connection> open(const std::string& path);

  /// Statements without results, or whose results nobody needs.
  [[nodiscard]] Result<void> run(const char* sql);
  /// The first column of the first row; `otherwise` where there is no row.
  [[nodiscard]] Result<int64_t> number(const char* sql, int64_t otherwise = 0);
  [[nodiscard]] Result<std::string> text(const char* sql);
  /// Rows changed by the last statement.
  [[nodiscard]] int64_t changes() const { return sqlite3_changes64(handle_.get()); }
  [[nodiscard]] int64_t last_row() const { return sqlite3_last_insert_rowid(handle_.get()); }
  /// SQLite's primary result code of the last failure.
  [[nodiscard]] int last_code() const { return last_code_; }
  [[nodiscard]] sqlite3* get() const { return handle_.get(); }
  /// Notes the connection's state as the reason of a failure.
  [[nodiscard]] Failure failure(const char* what);

 private:
  struct Close {
    void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
  };
  std::unique_ptr<sqlite3, Close> handle_;
  int last_code_ = SQLITE_OK;
};

/// One statement with its parameters, bound in order. The texts and blobs that are bound outlive it.
class Statement {
 public:
  Statement(Connection& connection, const char* sql);
  Statement& operator<<(int64_t value);
  Statement& operator<<(uint64_t value) { return *this << static_cast<int64_t>(value); }
  Statement& operator<<(std::string_view value);
  Statement& operator<<(std::span<const std::byte> value);

  /// True where there is a row, false where there is none (any more).
  [[nodiscard]] Result<bool> step();
  /// Runs it to its end.
  [[nodiscard]] Result<void> done();
  [[nodiscard]] int64_t number(int column) const { return sqlite3_column_int64(handle_.get(), column); }
  /// Valid until the next step().
  [[nodiscard]] std::string_view text(int column) const;
  [[nodiscard]] std::span<const std::byte> blob(int column) const;

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* handle) const { sqlite3_finalize(handle); }
  };
  Connection& connection_;
  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
  int bound_ = 0;
};

}  // namespace stackwatch
