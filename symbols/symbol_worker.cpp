// SPDX-License-Identifier: Apache-2.0
#include "symbols/symbol_worker.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

namespace stackwatch {
namespace {

/// Deaths in a row are told this often at most.
constexpr uint64_t kTellDeathsEveryNs = 60'000'000'000;
/// Packets read in one dispatch: the loop has other work, and a worker gone mad could write faster than we read.
constexpr int kMaxPacketsPerDispatch = 64;
/// How long the destructor waits for a worker that was killed: one in an uninterruptible read is left behind.
constexpr int kLastWaitMs = 1000;

void watch(int epoll, int fd) {
  if (fd < 0) return;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

std::string describe(const WorkerExit& exit) {
  if (!exit.by_signal) return "it ended with status " + std::to_string(exit.code);
  const char* const name = ::sigabbrev_np(exit.code);
  return "it was ended by SIG" + std::string(name != nullptr ? name : std::to_string(exit.code).c_str());
}

}  // namespace

SymbolWorker::SymbolWorker(const Clock& clock, int epoll, std::unique_ptr<WorkerSpawner> spawner)
    : clock_(clock), epoll_(epoll), spawner_(std::move(spawner)) {
  start();
}

SymbolWorker::~SymbolWorker() {
  if (!worker_ || worker_->pid <= 0) return;
  ::kill(worker_->pid, SIGKILL);
  if (worker_->pidfd) {
    pollfd ended{worker_->pidfd.get(), POLLIN, 0};
    ::poll(&ended, 1, kLastWaitMs);
    ::waitpid(worker_->pid, nullptr, WNOHANG);
  } else {
    ::waitpid(worker_->pid, nullptr, 0);
  }
}

void SymbolWorker::start() {
  killed_because_.clear();
  timed_out_ = false;
  auto spawned = spawner_->spawn();
  if (!spawned) {
    plan_restart();
    if (!std::exchange(start_failure_told_, true)) events_.push_back(spawned.error());
    return;
  }
  start_failure_told_ = false;
  worker_ = std::move(*spawned);
  started_ns_ = clock_.monotonic_ns();
  watch(epoll_, worker_->socket.get());
  watch(epoll_, worker_->pidfd.get());
}

void SymbolWorker::dispatch(Listener& listener) {
  if (worker_) {
    read_replies(listener);
    check_time();
    reap(listener);
  }
  if (!worker_ && clock_.monotonic_ns() >= restart_at_ns_) start();
}

void SymbolWorker::read_replies(Listener& listener) {
  for (int i = 0; i < kMaxPacketsPerDispatch && worker_->socket; ++i) {
    const protocol::Received received = protocol::receive_packet(worker_->socket.get(), false);
    if (received.status == protocol::IoStatus::kWouldBlock) return;
    if (received.status == protocol::IoStatus::kClosed) {
      // It is ending; should it only have closed its socket, this ends it.
      if (worker_->pid > 0) ::kill(worker_->pid, SIGKILL);
      worker_->socket.reset();
      ready_ = false;
      return;
    }
    const auto reply = received.status == protocol::IoStatus::kDone ? protocol::parse_reply(received.packet)
                                                                    : std::optional<protocol::Reply>();
    if (!reply || !take_reply(*reply, listener)) {
      kill_worker("it answered what it was not asked");
      return;
    }
  }
}

bool SymbolWorker::take_reply(const protocol::Reply& reply, Listener& listener) {
  if (std::holds_alternative<protocol::Hello>(reply)) return !std::exchange(ready_, true);
  if (!ready_ || under_way_.empty()) return false;
  if (const auto* names = std::get_if<protocol::Names>(&reply)) return take_names(*names, listener);
  const auto answers = [this](protocol::Type request, const auto& answer) {
    const UnderWay& head = under_way_.front();
    return head.request == request && answer.sequence == head.sequence && answer.object == head.object;
  };
  if (const auto* allocator = std::get_if<protocol::Allocator>(&reply)) {
    if (!answers(protocol::Type::kFindAllocator, *allocator)) return false;
    finish_head();
    listener.on_allocator(allocator->object, *allocator);
    return true;
  }
  if (const auto* rows = std::get_if<protocol::UnwindRows>(&reply)) {
    if (!answers(protocol::Type::kBuildUnwind, *rows)) return false;
    if (rows->last) finish_head();
    listener.on_unwind(rows->object, *rows);
    return true;
  }
  const auto& info = std::get<protocol::ObjectInfo>(reply);
  if (!answers(protocol::Type::kAddObject, info) && !answers(protocol::Type::kAddDebugFile, info)) return false;
  finish_head();
  listener.on_object(info);
  return true;
}

void SymbolWorker::finish_head() {
  under_way_.pop_front();
  head_since_ns_ = clock_.monotonic_ns();
}

bool SymbolWorker::take_names(const protocol::Names& names, Listener& listener) {
  {
    UnderWay& head = under_way_.front();
    if (head.request != protocol::Type::kResolve || names.sequence != head.sequence || names.object != head.object) {
      return false;
    }
    for (const protocol::Name& name : names.names) {
      if (name.index >= head.offsets.size() || head.answered.test(name.index)) return false;
      head.answered.set(name.index);
    }
  }
  // The listener may send, which appends to under_way_: a deque keeps references to its elements valid.
  const UnderWay& head = under_way_.front();
  for (const protocol::Name& name : names.names) listener.on_name(head.object, head.offsets[name.index], name);
  if (head.answered.count() == head.offsets.size()) finish_head();
  return true;
}

void SymbolWorker::check_time() {
  const uint64_t now = clock_.monotonic_ns();
  const uint64_t since =
      ready_ && !under_way_.empty() ? std::max(under_way_.front().sent_ns, head_since_ns_) : started_ns_;
  const bool waiting = !ready_ || !under_way_.empty();
  if (waiting && worker_->socket && now - since > kRequestTimeoutNs) {
    timed_out_ = true;
    kill_worker("it gave no answer for " + std::to_string(kRequestTimeoutNs / 1'000'000'000) + " s");
  }
}

void SymbolWorker::kill_worker(std::string why) {
  killed_because_ = std::move(why);
  if (worker_->pid > 0) ::kill(worker_->pid, SIGKILL);
  worker_->socket.reset();  // leaves epoll with it
  // ready_ stays as it was when it worked: bury() asks whether it was reading anything.
}

void SymbolWorker::reap(Listener& listener) {
  if (worker_->pid <= 0) {
    if (!worker_->socket) bury(listener, {false, 0});
    return;
  }
  int status = 0;
  const pid_t ended = ::waitpid(worker_->pid, &status, WNOHANG);
  if (ended == 0 || (ended < 0 && errno != ECHILD)) return;
  const bool by_signal = ended > 0 && WIFSIGNALED(status);
  bury(listener, {by_signal, by_signal ? WTERMSIG(status) : WEXITSTATUS(status)});
}

void SymbolWorker::bury(Listener& listener, const WorkerExit& exit) {
  const bool maybe_chance = timed_out_ || (killed_because_.empty() && exit.by_signal && exit.code == SIGKILL);
  std::optional<uint32_t> culprit;
  if (!under_way_.empty()) culprit = under_way_.front().object;  // nothing is sent before the Hello
  ++deaths_;
  worker_.reset();
  ready_ = false;
  under_way_.clear();
  const uint64_t now = clock_.monotonic_ns();
  if (now - started_ns_ >= kHealthyAfterNs) restart_delay_ns_ = 0;
  if (deaths_ == 1 || now - death_told_ns_ >= kTellDeathsEveryNs) {
    death_told_ns_ = now;
    events_.push_back(Error{ErrorKind::kFailed, "read symbols in the worker process",
                            killed_because_.empty() ? describe(exit) : "it was killed: " + killed_because_,
                            "it is restarted; a file that ended it is not read again and has no function names"});
  }
  plan_restart();
  listener.on_death(culprit, !maybe_chance);
}

void SymbolWorker::plan_restart() {
  // The first of a row at once: whoever waits for a name should not wait longer than needed.
  const uint64_t now = clock_.monotonic_ns();
  restart_at_ns_ = now + restart_delay_ns_;
  restart_delay_ns_ =
      restart_delay_ns_ == 0 ? kFirstRestartDelayNs : std::min(2 * restart_delay_ns_, kMaxRestartDelayNs);
}

bool SymbolWorker::send(const protocol::Request& request, int file) {
  if (!ready_ || !worker_ || !worker_->socket) return false;
  return protocol::send_packet(worker_->socket.get(), protocol::encode(request), file) == protocol::IoStatus::kDone;
}

bool SymbolWorker::add_debug_file(uint32_t object, int file, protocol::FileKind kind) {
  const uint32_t sequence = next_sequence_;
  if (!has_room() || !send(protocol::AddDebugFile{sequence, object, kind}, file)) return false;
  ++next_sequence_;
  under_way_.push_back({protocol::Type::kAddDebugFile, sequence, object, clock_.monotonic_ns(), {}, {}});
  return true;
}

bool SymbolWorker::add_object(uint32_t object, int file, protocol::FileKind kind) {
  const uint32_t sequence = next_sequence_;
  if (!has_room() || !send(protocol::AddObject{sequence, object, kind}, file)) return false;
  ++next_sequence_;
  under_way_.push_back({protocol::Type::kAddObject, sequence, object, clock_.monotonic_ns(), {}, {}});
  return true;
}

bool SymbolWorker::find_allocator(uint32_t object) {
  const uint32_t sequence = next_sequence_;
  if (!has_room() || !send(protocol::FindAllocator{sequence, object}, -1)) return false;
  ++next_sequence_;
  under_way_.push_back({protocol::Type::kFindAllocator, sequence, object, clock_.monotonic_ns(), {}, {}});
  return true;
}

bool SymbolWorker::build_unwind(uint32_t object) {
  const uint32_t sequence = next_sequence_;
  if (!has_room() || !send(protocol::BuildUnwind{sequence, object}, -1)) return false;
  ++next_sequence_;
  under_way_.push_back({protocol::Type::kBuildUnwind, sequence, object, clock_.monotonic_ns(), {}, {}});
  return true;
}

bool SymbolWorker::resolve(uint32_t object, std::span<const uint64_t> offsets) {
  const uint32_t sequence = next_sequence_;
  if (!has_room() || offsets.empty() || offsets.size() > protocol::kMaxOffsets) return false;
  std::vector<uint64_t> copy(offsets.begin(), offsets.end());
  if (!send(protocol::Resolve{sequence, object, copy}, -1)) return false;
  ++next_sequence_;
  under_way_.push_back({protocol::Type::kResolve, sequence, object, clock_.monotonic_ns(), std::move(copy), {}});
  return true;
}

bool SymbolWorker::drop_object(uint32_t object) { return send(protocol::DropObject{object}, -1); }

std::vector<Error> SymbolWorker::take_events() { return std::exchange(events_, {}); }

}  // namespace stackwatch
