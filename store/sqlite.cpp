// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite.h"

namespace stackwatch {
namespace {

constexpr const char* kWhat = "use the state file";

}  // namespace

Result<Connection> Connection::open(const std::string& path) {
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  Connection connection;
  connection.handle_.reset(handle);
  if (handle != nullptr) sqlite3_extended_result_codes(handle, 0);
  if (code != SQLITE_OK) {
    return fail("open the state file " + path, handle != nullptr ? sqlite3_errmsg(handle) : sqlite3_errstr(code));
  }
  return connection;
}

Failure Connection::failure(const char* what) {
  last_code_ = sqlite3_errcode(handle_.get()) & 0xFF;
  return fail(what, sqlite3_errmsg(handle_.get()));
}

Result<void> Connection::run(const char* sql) {
  if (sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) return failure(kWhat);
  return {};
}

Result<int64_t> Connection::number(const char* sql, int64_t otherwise) {
  Statement statement(*this, sql);
  auto row = statement.step();
  if (!row) return Failure(row.error());
  return *row ? statement.number(0) : otherwise;
}

Result<std::string> Connection::text(const char* sql) {
  Statement statement(*this, sql);
  auto row = statement.step();
  if (!row) return Failure(row.error());
  return *row ? std::string(statement.text(0)) : std::string();
}

Statement::Statement(Connection& connection, const char* sql) : connection_(connection) {
  sqlite3_stmt* handle = nullptr;
  sqlite3_prepare_v2(connection.get(), sql, -1, &handle, nullptr);
  handle_.reset(handle);  // null where it failed: step() says so
}

Statement& Statement::operator<<(int64_t value) {
  if (handle_) sqlite3_bind_int64(handle_.get(), ++bound_, value);
  return *this;
}

Statement& Statement::operator<<(std::string_view value) {
  if (handle_) sqlite3_bind_text64(handle_.get(), ++bound_, value.data(), value.size(), SQLITE_STATIC, SQLITE_UTF8);
  return *this;
}

Statement& Statement::operator<<(std::span<const std::byte> value) {
  const void* data = value.empty() ? static_cast<const void*>("") : value.data();  // a null pointer would be NULL
  if (handle_) sqlite3_bind_blob64(handle_.get(), ++bound_, data, value.size(), SQLITE_STATIC);
  return *this;
}

Result<bool> Statement::step() {
  if (!handle_) return connection_.failure(kWhat);
  const int code = sqlite3_step(handle_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return connection_.failure(kWhat);
}

Result<void> Statement::done() {
  for (auto row = step();; row = step()) {
    if (!row) return Failure(row.error());
    if (!*row) return {};
  }
}

std::string_view Statement::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(handle_.get(), column));
  return text == nullptr ? std::string_view()
                         : std::string_view(text, static_cast<size_t>(sqlite3_column_bytes(handle_.get(), column)));
}

std::span<const std::byte> Statement::blob(int column) const {
  const auto* bytes = static_cast<const std::byte*>(sqlite3_column_blob(handle_.get(), column));
  return {bytes, bytes == nullptr ? 0 : static_cast<size_t>(sqlite3_column_bytes(handle_.get(), column))};
}

}  // namespace stackwatch
