// SPDX-License-Identifier: Apache-2.0
#include "bpf/work_thread.h"

#include <csignal>
#include <utility>

namespace stackwatch {

WorkThread::WorkThread(size_t most_jobs) : most_jobs_(most_jobs) {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

WorkThread::~WorkThread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool WorkThread::push(Job job) {
  const std::lock_guard lock(mutex_);
  if (jobs_.size() >= most_jobs_) return false;
  jobs_.push_back(std::move(job));
  changed_.notify_all();
  return true;
}

void WorkThread::push_always(Job job) {
  const std::lock_guard lock(mutex_);
  jobs_.push_back(std::move(job));
  changed_.notify_all();
}

void WorkThread::wait_idle() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return jobs_.empty() && !busy_; });
}

void WorkThread::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    busy_ = true;
    {
      const Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
    }
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace stackwatch
