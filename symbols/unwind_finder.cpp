// SPDX-License-Identifier: Apache-2.0
#include "symbols/unwind_finder.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <map>
#include <unordered_map>
#include <utility>

#include "symbols/address_space_reader.h"
#include "symbols/namer.h"
#include "symbols/symbol_worker.h"

namespace stackwatch {
namespace {

/// Deaths of the worker that may have been chance before a file is blamed.
constexpr int kMaxStrikes = 2;
/// The highest address of user space on x86-64 and arm64 with 48 bits; above it are the kernel's own pages.
constexpr uint64_t kMaxUserAddress = 1ULL << 47U;

class Finder final : public UnwindFinder, private SymbolWorker::Listener {
 public:
  Finder(const Clock& clock, UniqueFd epoll, UnwindFinderOptions options)
      : clock_(clock), epoll_(std::move(epoll)), options_(std::move(options)) {}

  [[nodiscard]] int fd() const override { return epoll_.get(); }
  void dispatch() override;
  void watch(const ProcessKey& key, int32_t pid_in_ns, ExecId exec) override;
  void forget(const ProcessKey& key) override { processes_.erase(key); }
  [[nodiscard]] Found take() override { return std::exchange(found_, {}); }
  [[nodiscard]] size_t pending() const override;
  [[nodiscard]] std::vector<Error> take_events() override;

 private:
  struct File {
    enum class State { kQueued, kGiven, kKnown };
    State state = State::kQueued;
    uint32_t id = 0;
    int strikes = 0;
    uint64_t used_ns = 0;
    UniqueFd file;  ///< while it is asked about
    UnwindTable table;
  };
  struct Process {
    int32_t pid_in_ns = 0;
    ExecId exec;
    bool wanted = false;  ///< is to be read when its time has come
    bool reading = false;
    uint64_t read_ns = 0;
    bool complete = false;  ///< was told with all of its files settled
    Space space;
    std::vector<ObjectIdentity> files;
  };

  void start();
  void read_wanted();
  void take_space(AddressSpaceReader::Space space);
  [[nodiscard]] uint32_t use_file(Process& process, AddressSpaceReader::MappedFile& mapped);
  [[nodiscard]] uint32_t use_vdso();
  void drop_unused();
  void send();
  [[nodiscard]] File* by_id(uint32_t id);
  [[nodiscard]] bool is_settled(uint32_t id);
  void settle(File& file);
  void tell(Process& process);

  void on_object(const protocol::ObjectInfo& info) override;
  void on_name(uint32_t, uint64_t, const protocol::Name&) override {}
  void on_unwind(uint32_t id, protocol::UnwindRows rows) override;
  void on_death(std::optional<uint32_t> culprit, bool certain) override;

  const Clock& clock_;
  UniqueFd epoll_;
  UnwindFinderOptions options_;
  std::unique_ptr<AddressSpaceReader> reader_;
  std::unique_ptr<SymbolWorker> worker_;
  std::unordered_map<ProcessKey, Process> processes_;
  std::map<ObjectIdentity, File> files_;
  std::unordered_map<uint32_t, ObjectIdentity> ids_;
  std::deque<uint32_t> queue_;
  Found found_;
  uint32_t next_id_ = protocol::kFirstFileObject;
  uint64_t swept_ns_ = 0;
};

void Finder::start() {
  if (reader_) return;
  reader_ = std::make_unique<AddressSpaceReader>(options_.proc_root);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = reader_->fd();
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, reader_->fd(), &event);
  auto spawner = std::move(options_.spawner);
  if (!spawner) {
    spawner = make_program_spawner(options_.worker_program.empty() ? default_symbol_worker() : options_.worker_program);
  }
  worker_ = std::make_unique<SymbolWorker>(clock_, epoll_.get(), std::move(spawner));
}

void Finder::watch(const ProcessKey& key, int32_t pid_in_ns, ExecId exec) {
  if (processes_.size() >= kMaxUnwoundProcesses && !processes_.contains(key)) return;
  start();
  Process& process = processes_[key];
  process.pid_in_ns = pid_in_ns;
  if (process.exec != exec) process.read_ns = 0;  // another program: at once
  process.exec = exec;
  process.wanted = true;
  read_wanted();
}

void Finder::read_wanted() {
  const uint64_t now = clock_.monotonic_ns();
  for (auto& [key, process] : processes_) {
    if (!process.wanted || process.reading) continue;
    if (process.read_ns != 0 && now - process.read_ns < kReadMappingsEveryNs) continue;
    process.reading = reader_->read(key, process.pid_in_ns, process.exec);
    process.wanted = !process.reading;
    process.read_ns = now;
  }
}

size_t Finder::pending() const {
  return static_cast<size_t>(
      std::ranges::count_if(processes_, [](const auto& entry) { return !entry.second.complete; }));
}

std::vector<Error> Finder::take_events() { return worker_ ? worker_->take_events() : std::vector<Error>(); }

void Finder::dispatch() {
  if (!reader_) return;
  for (AddressSpaceReader::Answer& answer : reader_->take()) {
    if (auto* space = std::get_if<AddressSpaceReader::Space>(&answer)) take_space(std::move(*space));
  }
  worker_->dispatch(*this);
  read_wanted();
  drop_unused();
  send();
}

void Finder::take_space(AddressSpaceReader::Space space) {
  const auto found = processes_.find(space.process);
  if (found == processes_.end()) return;
  Process& process = found->second;
  process.reading = false;
  if (!space.alive) {
    process.complete = true;  // there is nothing to wait for
    return;
  }
  process.complete = false;
  process.files.clear();
  std::vector<uint32_t> ids;
  for (AddressSpaceReader::MappedFile& mapped : space.files) ids.push_back(use_file(process, mapped));
  process.space = {space.process, space.exec, {}, 0};
  for (const AddressSpaceReader::Mapping& mapping : space.mappings) {
    const MapsEntry& entry = mapping.entry;
    if (entry.end <= kMaxUserAddress && !entry.writable) process.space.code_bytes += entry.end - entry.start;
    // Not code of the process: return addresses that the kernel has put in place of others lead there.
    if (entry.end > kMaxUserAddress || entry.path == "[uprobes]") continue;
    Mapping& mine = process.space.mappings.emplace_back();
    mine = {entry.start, entry.end, entry.file_offset, kNoFile, true};
    if (mapping.file != AddressSpaceReader::kNoFile) mine.file = ids[mapping.file];
    if (entry.path == "[vdso]") mine.file = use_vdso();
  }
  tell(process);
}

// kNoFile where it cannot be read, now or ever.
uint32_t Finder::use_file(Process& process, AddressSpaceReader::MappedFile& mapped) {
  if (!mapped.identified) return kNoFile;
  auto known = files_.find(mapped.identity);
  if (known == files_.end()) {
    if (!mapped.file || files_.size() >= kMaxUnwindFiles) return kNoFile;
    known = files_.try_emplace(mapped.identity).first;
    known->second.id = next_id_++;
    known->second.file = std::move(mapped.file);
    ids_[known->second.id] = mapped.identity;
    queue_.push_back(known->second.id);
    reader_->hold(mapped.identity);
  }
  known->second.used_ns = clock_.monotonic_ns();
  process.files.push_back(mapped.identity);
  return known->second.id;
}

// The worker has it without a file: it is the same in all processes.
uint32_t Finder::use_vdso() {
  const auto [known, is_new] = files_.try_emplace(ObjectIdentity{});
  if (is_new) {
    known->second.id = protocol::kVdsoObject;
    ids_[protocol::kVdsoObject] = known->first;
    queue_.push_back(protocol::kVdsoObject);
  }
  known->second.used_ns = clock_.monotonic_ns();
  return protocol::kVdsoObject;
}

void Finder::drop_unused() {
  const uint64_t now = clock_.monotonic_ns();
  if (now - swept_ns_ < kKeepUnwindFileNs) return;
  swept_ns_ = now;
  for (auto& [key, process] : processes_) {
    for (const ObjectIdentity& identity : process.files) {
      if (const auto file = files_.find(identity); file != files_.end()) file->second.used_ns = now;
    }
  }
  std::erase_if(files_, [&](const auto& entry) {
    const auto& [identity, file] = entry;
    if (file.id == protocol::kVdsoObject || file.state != File::State::kKnown) return false;
    if (now - file.used_ns < kKeepUnwindFileNs) return false;
    found_.dropped.push_back(file.id);
    ids_.erase(file.id);
    reader_->let_go(identity);
    return true;
  });
}

void Finder::send() {
  while (!queue_.empty() && worker_->has_room()) {
    File* const file = by_id(queue_.front());
    if (file != nullptr) {
      const bool sent = file->id == protocol::kVdsoObject
                            ? worker_->build_unwind(file->id)
                            : worker_->add_object(file->id, file->file.get(), protocol::FileKind::kElfSymbols);
      if (!sent) return;
      file->state = File::State::kGiven;
    }
    queue_.pop_front();
  }
}

Finder::File* Finder::by_id(uint32_t id) {
  const auto found = ids_.find(id);
  if (found == ids_.end()) return nullptr;
  const auto file = files_.find(found->second);
  return file == files_.end() ? nullptr : &file->second;
}

void Finder::on_object(const protocol::ObjectInfo& info) {
  File* const file = by_id(info.object);
  if (file == nullptr) return;
  if (info.status != protocol::ObjectStatus::kReadable) return settle(*file);
  if (worker_->build_unwind(info.object)) return;
  file->state = File::State::kQueued;  // no room for the question now
  queue_.push_back(info.object);
}

void Finder::on_unwind(uint32_t id, protocol::UnwindRows rows) {
  File* const file = by_id(id);
  if (rows.last && id != protocol::kVdsoObject) worker_->drop_object(id);
  if (file == nullptr) return;
  std::vector<UnwindRow>& all = file->table.rows;
  if (all.size() + rows.table.rows.size() <= kMaxUnwindRows) {
    all.insert(all.end(), rows.table.rows.begin(), rows.table.rows.end());
  }
  if (!rows.last) return;
  file->table.segments = std::move(rows.table.segments);
  file->table.inexpressible = rows.table.inexpressible;
  // The kernel side searches by halves: rows out of order would lead it to any of them, silently.
  const auto not_after = [](const UnwindRow& a, const UnwindRow& b) { return a.address >= b.address; };
  if (std::ranges::adjacent_find(all, not_after) != all.end()) file->table = {};
  settle(*file);
}

// A file that killed the worker, or may have twice, has no table. The others are asked about again.
void Finder::on_death(std::optional<uint32_t> culprit, bool certain) {
  std::vector<uint32_t> bad;
  for (auto& [identity, file] : files_) {
    if (file.state != File::State::kGiven) continue;
    file.state = File::State::kQueued;
    file.table = {};
    if (culprit == file.id && (certain || ++file.strikes == kMaxStrikes)) {
      bad.push_back(file.id);
    } else {
      queue_.push_back(file.id);
    }
  }
  for (const uint32_t id : bad) settle(*by_id(id));
}

bool Finder::is_settled(uint32_t id) {
  const File* const file = id == kNoFile ? nullptr : by_id(id);
  return file == nullptr || file->state == File::State::kKnown;
}

void Finder::settle(File& file) {
  file.state = File::State::kKnown;
  file.file.reset();
  found_.tables.push_back({file.id, std::exchange(file.table, {})});
  for (auto& [key, process] : processes_) {
    if (process.complete || process.space.mappings.empty()) continue;
    const auto settled = [this](const Mapping& mapping) { return is_settled(mapping.file); };
    if (std::ranges::all_of(process.space.mappings, settled)) tell(process);
  }
}

// Told when its mappings were read, and again when the last of its files is settled.
void Finder::tell(Process& process) {
  process.complete = true;
  for (Mapping& mapping : process.space.mappings) {
    mapping.settled = is_settled(mapping.file);
    process.complete = process.complete && mapping.settled;
  }
  std::erase_if(found_.spaces, [&](const Space& space) { return space.process == process.space.process; });
  found_.spaces.push_back(process.space);
}

}  // namespace

Result<std::unique_ptr<UnwindFinder>> make_unwind_finder(const Clock& clock, UnwindFinderOptions options) {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno("find unwind tables", errno);
  return std::unique_ptr<UnwindFinder>(std::make_unique<Finder>(clock, std::move(epoll), std::move(options)));
}

}  // namespace stackwatch
