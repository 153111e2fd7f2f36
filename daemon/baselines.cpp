// SPDX-License-Identifier: Apache-2.0
#include "daemon/baselines.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace stackwatch {
namespace {

size_t size_of(const Baselines::Key& key, const Baselines::Entry& entry) {
  return sizeof key + sizeof entry + key.service.size() + key.detector.size() + entry.saved.size();
}

}  // namespace

size_t Baselines::KeyHash::operator()(const Key& key) const {
  const std::hash<std::string> hash;
  return hash(key.service) * 31 + hash(key.detector) * 7 + static_cast<size_t>(key.probe);
}

std::string Baselines::service_of(const ProcessIdentity& identity) {
  if (identity.exe.empty()) return {};
  const std::string& where = identity.unit.empty() ? identity.cgroup : identity.unit;
  return identity.exe + '\n' + where + '\n' + identity.comm;
}

void Baselines::put(Key key, std::string saved) {
  if (const auto known = entries_.find(key); known != entries_.end()) erase(known);
  Entry entry{std::move(saved), next_age_++};
  bytes_ += size_of(key, entry);
  entries_.emplace(std::move(key), std::move(entry));
  while (bytes_ > kMaxBytes) {
    erase(std::ranges::min_element(entries_, {}, [](const auto& pair) { return pair.second.age; }));
    ++forgotten_;
  }
}

std::string_view Baselines::get(const Key& key) const {
  const auto found = entries_.find(key);
  return found == entries_.end() ? std::string_view() : std::string_view(found->second.saved);
}

void Baselines::share(const std::string& service) {
  if (shared_.size() >= kMaxShared) shared_.clear();  // they are found out again
  if (shared_.insert(service).second) ++shares_;
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto current = it++;
    if (current->first.service == service) erase(current);
  }
}

void Baselines::erase(Entries::iterator entry) {
  bytes_ -= size_of(entry->first, entry->second);
  entries_.erase(entry);
}

}  // namespace stackwatch
