// SPDX-License-Identifier: Apache-2.0
#include "daemon/alerting/journal_sink.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>

#include "tests/unit/alerting/sample_alert.h"

namespace stackwatch {
namespace {

/// A datagram socket that is bound to a path, as journald's is.
class BoundSocket {
 public:
  explicit BoundSocket(const std::string& path) : path_(path), fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    bound_ = bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  ~BoundSocket() {
    close(fd_);
    unlink(path_.c_str());
  }
  BoundSocket(const BoundSocket&) = delete;
  BoundSocket& operator=(const BoundSocket&) = delete;

  [[nodiscard]] bool bound() const { return bound_; }
  /// Waits at most 10 s for one entry.
  [[nodiscard]] std::string receive() const {
    const timeval patience{.tv_sec = 10, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    std::string buffer(1 << 16, '\0');
    const ssize_t size = recv(fd_, buffer.data(), buffer.size(), 0);
    return size < 0 ? "(nothing)" : buffer.substr(0, static_cast<size_t>(size));
  }

 private:
  std::string path_;
  int fd_;
  bool bound_ = false;
};

/// What the sink sends, and a way to make sending wait or fail.
class FakeSend {
 public:
  int operator()(const iovec* fields, int count) {
    std::unique_lock lock(mutex_);
    ++begun_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !blocked_; });
    if (!errors_.empty()) {
      const int error = errors_.front();
      errors_.erase(errors_.begin());
      return error;
    }
    sent_.emplace_back();
    for (int i = 0; i < count; ++i)
      sent_.back().emplace_back(static_cast<char*>(fields[i].iov_base), fields[i].iov_len);
    changed_.notify_all();
    return 0;
  }
  void block() {
    set([&] { blocked_ = true; });
  }
  void unblock() {
    set([&] { blocked_ = false; });
  }
  void fail_with(std::vector<int> errors) {
    set([&] { errors_ = std::move(errors); });
  }
  bool wait_begun(size_t n) {
    return wait([&] { return begun_ >= n; });
  }
  bool wait_sent(size_t n) {
    return wait([&] { return sent_.size() >= n; });
  }
  std::vector<std::vector<std::string>> sent() {
    const std::lock_guard lock(mutex_);
    return sent_;
  }

 private:
  void set(const std::function<void()>& what) {
    const std::lock_guard lock(mutex_);
    what();
    changed_.notify_all();
  }
  bool wait(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), condition);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool blocked_ = false;
  size_t begun_ = 0;
  std::vector<int> errors_;
  std::vector<std::vector<std::string>> sent_;
};

class JournalSinkTest : public testing::Test {
 protected:
  JournalSinkTest() {
    char path[] = "/tmp/journal_sink_XXXXXX";
    directory_ = mkdtemp(path);
    path_ = directory_ + "/socket";
  }
  ~JournalSinkTest() override {
    sink_.reset();
    socket_.reset();
    unlink(path_.c_str());
    rmdir(directory_.c_str());
  }
  void make_sink(size_t queue = 256) {
    JournalSinkOptions options;
    options.socket_path = path_;
    options.queue = queue;
    options.send = [send = send_](const iovec* fields, int count) { return (*send)(fields, count); };
    auto sink = JournalSink::create(std::move(options));
    ASSERT_TRUE(sink);
    sink_ = std::move(*sink);
  }
  void start_journal() { socket_ = std::make_unique<BoundSocket>(path_); }

  std::string directory_;
  std::string path_;
  std::shared_ptr<FakeSend> send_ = std::make_shared<FakeSend>();  // shared: a hanging thread outlives the sink
  std::unique_ptr<BoundSocket> socket_;
  std::unique_ptr<JournalSink> sink_;
};

TEST_F(JournalSinkTest, WithoutJournalItSaysSoAndWorksOnceThereIsOne) {
  make_sink();
  EXPECT_FALSE(sink_->available());
  const auto refused = sink_->publish(sample_alert());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kUnsupported);
  EXPECT_NE(refused.error().why.find(path_), std::string::npos);
  EXPECT_EQ(sink_->stats().no_journal, 1U);
  start_journal();
  EXPECT_TRUE(sink_->available());
  EXPECT_TRUE(sink_->publish(sample_alert()));
  EXPECT_TRUE(send_->wait_sent(1));
  socket_.reset();
  EXPECT_FALSE(sink_->publish(sample_alert()));
}

TEST_F(JournalSinkTest, AFileInItsPlaceIsNoJournal) {
  close(open(path_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  make_sink();
  EXPECT_FALSE(sink_->publish(sample_alert()));
}

TEST_F(JournalSinkTest, AHangingJournalHoldsUpNobodyAndCostsABoundedQueue) {
  start_journal();
  send_->block();
  make_sink(4);
  ASSERT_TRUE(sink_->publish(sample_alert()));
  ASSERT_TRUE(send_->wait_begun(1));  // this one is out of the queue and hangs
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(sink_->publish(sample_alert()));
  const auto refused = sink_->publish(sample_alert());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kFailed);
  EXPECT_EQ(sink_->stats().queue_full, 1U);
  send_->unblock();
  EXPECT_TRUE(send_->wait_sent(5)) << "what was queued is not lost";
}

TEST_F(JournalSinkTest, AHangingJournalDoesNotHoldUpTheEnd) {
  start_journal();
  send_->block();
  make_sink();
  ASSERT_TRUE(sink_->publish(sample_alert()));
  ASSERT_TRUE(send_->wait_begun(1));
  sink_.reset();  // would hang here for ever, and the test with it
  send_->unblock();
  EXPECT_TRUE(send_->wait_sent(1));
}

TEST_F(JournalSinkTest, TheEndWaitsForWhatIsQueued) {
  start_journal();
  make_sink();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(sink_->publish(sample_alert()));
  sink_.reset();
  EXPECT_EQ(send_->sent().size(), 50U);
}

TEST_F(JournalSinkTest, AJournalThatRestartsGetsTheEntryAllTheSame) {
  start_journal();
  send_->fail_with({-ECONNREFUSED});
  make_sink();
  ASSERT_TRUE(sink_->publish(sample_alert()));
  EXPECT_TRUE(send_->wait_sent(1));
}

TEST_F(JournalSinkTest, AnEntryThatIsRefusedIsCountedAndTheNextIsSent) {
  start_journal();
  send_->fail_with({-EPERM});
  make_sink();
  ASSERT_TRUE(sink_->publish(sample_alert()));
  ASSERT_TRUE(sink_->publish(sample_rate_alert()));
  ASSERT_TRUE(send_->wait_sent(1));
  ASSERT_TRUE(sink_->publish(sample_alert()));
  ASSERT_TRUE(send_->wait_sent(2));
  EXPECT_EQ(sink_->stats().failed, 1U);
  EXPECT_EQ(sink_->stats().last_error, std::strerror(EPERM));
  EXPECT_THAT(send_->sent()[0], testing::Contains("STACKWATCH_DETECTOR=rate"));
}

/// Runs `body` in a process whose /run is its own; its failures are this test's.
void in_own_run(const std::function<void()>& body) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const bool mine = unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                      mount("tmpfs", "/run", "tmpfs", 0, nullptr) == 0 && mkdir("/run/systemd", 0755) == 0 &&
                      mkdir("/run/systemd/journal", 0755) == 0;
    if (!mine) _exit(77);
    body();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "needs a mount namespace of its own (root)";
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(JournalSinkOverLibsystemd, EntriesArriveInJournaldsProtocol) {
  in_own_run([] {
    const BoundSocket journald("/run/systemd/journal/socket");
    ASSERT_TRUE(journald.bound());
    auto sink = JournalSink::create();
    ASSERT_TRUE(sink);
    ASSERT_TRUE((*sink)->publish(sample_alert()));
    const std::string entry = "\n" + journald.receive();
    EXPECT_NE(entry.find("\nMESSAGE=redis-server[4711]: dictFind takes 4.3 %"), std::string::npos) << entry;
    EXPECT_NE(entry.find("\nSTACKWATCH_STACK=main;aeMain;call;dictFind\n"), std::string::npos);
    EXPECT_NE(entry.find("\nSTACKWATCH_SCORE=21.4\n"), std::string::npos);
    EXPECT_EQ(entry.find("CODE_FILE"), std::string::npos) << "no path of the build machine";
  });
}

TEST(JournalSinkOverLibsystemd, AJournaldThatDoesNotReadHoldsUpNobody) {
  in_own_run([] {
    const BoundSocket journald("/run/systemd/journal/socket");
    ASSERT_TRUE(journald.bound());
    JournalSinkOptions options;
    options.queue = 2000;
    auto sink = JournalSink::create(std::move(options));
    ASSERT_TRUE(sink);
    // Far more than a datagram socket queues (net.unix.max_dgram_qlen: 10 to 512): sd_journal_sendv blocks meanwhile.
    for (int i = 0; i < 1500; ++i) EXPECT_TRUE((*sink)->publish(sample_alert()));
    EXPECT_LT((*sink)->stats().sent, 1500U);
    for (int i = 0; i < 1500; ++i) ASSERT_NE(journald.receive(), "(nothing)") << i;
    sink->reset();
  });
}

}  // namespace
}  // namespace stackwatch
