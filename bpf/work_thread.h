// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace stackwatch {

/// A thread for what waits for the kernel (30 to 100 ms each: putting probes in and taking them out). Jobs are done in
/// order. Its signals are blocked. The destructor finishes the jobs that are there.
class WorkThread {
 public:
  using Job = std::function<void()>;

  explicit WorkThread(size_t most_jobs);
  ~WorkThread();
  WorkThread(const WorkThread&) = delete;
  WorkThread& operator=(const WorkThread&) = delete;

  /// False where too many jobs wait: it was not taken on.
  [[nodiscard]] bool push(Job job);
  /// Takes a job on in any case: for taking probes out, which bounds itself by those that were put in.
  void push_always(Job job);
  /// Until all jobs pushed so far are done.
  void wait_idle();

 private:
  void run();

  size_t most_jobs_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  bool busy_ = false;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace stackwatch
