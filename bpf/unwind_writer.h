// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only.

#include <cstdint>
#include <map>
#include <mutex>

#include "bpf/work_thread.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// Puts inner maps in their places, on a thread of its own: after each call that changes a map of maps the kernel waits
/// until no BPF program can be using what was there before (10 to 40 ms). What gathers meanwhile is written in one
/// call. Tables are in place before the mappings that name them, and leave after these.
class UnwindWriter {
 public:
  /// The outer maps, and an inner map for places that are vacated.
  struct Outer {
    UniqueFd map;
    UniqueFd vacant;
  };
  UnwindWriter(Outer spaces, Outer tables);
  ~UnwindWriter() = default;
  UnwindWriter(const UnwindWriter&) = delete;
  UnwindWriter& operator=(const UnwindWriter&) = delete;

  /// No map: vacates the place. The last call for a place counts.
  void put_space(uint32_t slot, UniqueFd map) { put(spaces_.pending, slot, std::move(map)); }
  void put_table(uint32_t number, UniqueFd map) { put(tables_.pending, number, std::move(map)); }
  /// Until all of it is in place.
  void wait_idle() { thread_.wait_idle(); }

  [[nodiscard]] int spaces() const { return spaces_.outer.map.get(); }
  [[nodiscard]] int tables() const { return tables_.outer.map.get(); }

 private:
  using Pending = std::map<uint32_t, UniqueFd>;
  struct Side {
    Outer outer;
    Pending pending;
  };
  void put(Pending& pending, uint32_t place, UniqueFd map);
  void write_pending();

  std::mutex mutex_;  // guards what is pending, and asked_
  Side spaces_;
  Side tables_;
  bool asked_ = false;  // the thread has a job that will take what is pending
  WorkThread thread_;   // last: it uses the others
};

}  // namespace stackwatch
