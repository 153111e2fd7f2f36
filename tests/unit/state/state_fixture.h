// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/unique_fd.h"
#include "daemon/alerting/journal_sink.h"
#include "daemon/control/json.h"
#include "store/store.h"
#include "tests/unit/alerting/sample_alert.h"

namespace stackwatch {

/// A state directory, a journal that a test looks into, and alerts.
class StateTest : public testing::Test {
 protected:
  StateTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "stackwatch-state-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    directory_ = pattern;
    make_journal_socket();
  }
  ~StateTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  [[nodiscard]] std::string journal_path() const { return directory_ + "/journal"; }
  void make_journal_socket() {
    socket_ = UniqueFd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    journal_path().copy(address.sun_path, sizeof address.sun_path - 1);
    if (bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      throw std::runtime_error("bind");
    }
  }
  void remove_journal_socket() const { std::filesystem::remove(journal_path()); }

  /// Entries as "ID STATE"; what `answer_` says happens to each.
  int send(const iovec* fields, int count) {
    std::string id;
    std::string state;
    for (int i = 0; i < count; ++i) {
      const std::string_view field(static_cast<const char*>(fields[i].iov_base), fields[i].iov_len);
      if (field.starts_with("STACKWATCH_ALERT_ID=")) id = field.substr(20);
      if (field.starts_with("STACKWATCH_STATE=")) state = field.substr(17);
    }
    const int answer = answer_ ? answer_(id + " " + state) : 0;
    const std::lock_guard lock(mutex_);
    if (answer >= 0) entries_.push_back(id + " " + state);
    return answer;
  }
  [[nodiscard]] std::vector<std::string> entries() {
    const std::lock_guard lock(mutex_);
    return entries_;
  }
  std::unique_ptr<JournalSink> make_journal() {
    JournalSinkOptions options;
    options.socket_path = journal_path();
    options.send = [this](const iovec* fields, int count) { return send(fields, count); };
    auto journal = JournalSink::create(std::move(options));
    if (!journal) throw std::runtime_error(journal.error().message());
    return std::move(*journal);
  }
  std::unique_ptr<Store> make_store(const std::string& directory) {
    StoreOptions options;
    options.directory = directory;
    options.boot_id = "boot-1";
    options.to_json = [](const Alert& alert) { return alert_to_json(alert); };
    auto store = Store::open(std::move(options), clock_);
    if (!store) throw std::runtime_error(store.error().message());
    return std::move(*store);
  }
  [[nodiscard]] size_t untold(Store& store) {
    std::promise<size_t> rows;
    if (!store.read_outbox(0, 1000, [&rows](const std::vector<OutboxRow>& read) { rows.set_value(read.size()); })) {
      return SIZE_MAX;
    }
    return rows.get_future().get();
  }
  static Alert alert(const std::string& id, AlertState state = AlertState::kFiring) {
    Alert alert = sample_alert();
    alert.id = id;
    alert.state = state;
    if (state == AlertState::kResolved) alert.resolved_ns = alert.updated_ns;
    return alert;
  }
  template <class Function>
  static bool soon(Function done) {
    for (int i = 0; i < 1000; ++i) {
      if (done()) return true;
      usleep(10'000);
    }
    return false;
  }

  SystemClock clock_;
  std::string directory_;
  UniqueFd socket_;
  std::mutex mutex_;
  std::vector<std::string> entries_;
  std::function<int(const std::string& entry)> answer_;
};

}  // namespace stackwatch
