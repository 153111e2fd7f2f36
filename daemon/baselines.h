// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "core/alert.h"
#include "core/probe_kind.h"

namespace stackwatch {

/// What detectors had learned about services whose process has ended or is watched no longer. In memory;
/// state/baseline_keeper.h keeps it over a restart of the daemon. One thread.
class Baselines {
 public:
  /// Some hundred services with all their stacks, some thousand with few. The daemon has 30 MB in all.
  static constexpr size_t kMaxBytes = 4U << 20;
  /// Services whose processes cannot be told apart: names alone, some hundred bytes each.
  static constexpr size_t kMaxShared = 4096;

  struct Key {
    std::string service;
    ProbeKind probe = ProbeKind::kOnCpu;
    std::string detector;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  struct Entry {
    std::string saved;
    uint64_t age = 0;  ///< of two the lower one was put earlier
  };
  using Entries = std::unordered_map<Key, Entry, KeyHash>;

  /// What makes a process the successor of another: exe, unit (else cgroup) and comm. Empty where the exe is not known:
  /// a name alone is not enough.
  [[nodiscard]] static std::string service_of(const ProcessIdentity& identity);

  /// Replaces what was kept under the key. Where all is full, what was put longest ago is forgotten and counted.
  void put(Key key, std::string saved);
  /// Empty where nothing is kept. Valid until the next put() or share().
  [[nodiscard]] std::string_view get(const Key& key) const;
  /// Several processes of this service run at once: which one succeeds which is not known, so nobody inherits.
  void share(const std::string& service);
  [[nodiscard]] bool is_shared(const std::string& service) const { return shared_.contains(service); }
  [[nodiscard]] const std::unordered_set<std::string>& shared() const { return shared_; }
  /// Grows when shared() does.
  [[nodiscard]] uint64_t shares() const { return shares_; }

  [[nodiscard]] const Entries& all() const { return entries_; }
  /// Age of the entry that is put next: what was put since somebody looked has at least the age that this was then.
  [[nodiscard]] uint64_t next_age() const { return next_age_; }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  [[nodiscard]] uint64_t forgotten() const { return forgotten_; }

 private:
  void erase(Entries::iterator entry);

  Entries entries_;
  std::unordered_set<std::string> shared_;
  size_t bytes_ = 0;
  uint64_t next_age_ = 0;
  uint64_t shares_ = 0;
  uint64_t forgotten_ = 0;
};

}  // namespace stackwatch
