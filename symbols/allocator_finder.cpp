// SPDX-License-Identifier: Apache-2.0
#include "symbols/allocator_finder.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "symbols/address_space_reader.h"
#include "symbols/namer.h"
#include "symbols/symbol_worker.h"

namespace stackwatch {
namespace {

/// Deaths of the worker that may have been chance before a file is blamed.
constexpr int kMaxStrikes = 2;

class Finder final : public AllocatorFinder, private SymbolWorker::Listener {
 public:
  Finder(const Clock& clock, UniqueFd epoll, AllocatorFinderOptions options)
      : clock_(clock), epoll_(std::move(epoll)), options_(std::move(options)) {}

  [[nodiscard]] int fd() const override { return epoll_.get(); }
  void dispatch() override;
  void watch(const ProcessKey& process, int32_t pid_in_ns) override;
  void forget(const ProcessKey& process) override { processes_.erase(process); }
  [[nodiscard]] std::vector<AllocatorFunctions> take() override { return std::exchange(found_, {}); }
  [[nodiscard]] size_t pending() const override;
  [[nodiscard]] std::vector<Error> take_events() override;

 private:
  struct File {
    enum class State { kQueued, kGiven, kKnown };
    State state = State::kQueued;
    uint32_t id = 0;
    int strikes = 0;
    uint64_t used_ns = 0;
    std::shared_ptr<AllocatorObject> object;  ///< none where it has no allocator
    UniqueFd file;                            ///< while it is asked about
    std::string path;
  };
  struct Process {
    int32_t pid_in_ns = 0;
    bool reading = false;
    bool unread = true;             ///< there was no room to read it, or not all of its files could be opened at once
    std::set<ObjectIdentity> open;  ///< files that are asked about
    std::vector<ObjectIdentity> files;
    uint64_t looked_ns = 0;
    uint64_t code_kb = 0;  ///< mapped when it was read
    bool told = false;
    size_t told_objects = 0;
  };

  void start();
  void read(const ProcessKey& key, Process& process);
  void take_space(AddressSpaceReader::Space space);
  [[nodiscard]] bool use_file(const ProcessKey& key, AddressSpaceReader::MappedFile& mapped);
  void look_again();
  [[nodiscard]] uint64_t mapped_code_kb(int32_t pid_in_ns) const;
  void drop_unused();
  void send();
  void settle(const ObjectIdentity& identity);
  void tell(const ProcessKey& key, Process& process);
  [[nodiscard]] File* by_id(uint32_t id, ObjectIdentity* identity);

  void on_object(const protocol::ObjectInfo& info) override;
  void on_name(uint32_t, uint64_t, const protocol::Name&) override {}
  void on_allocator(uint32_t id, protocol::Allocator allocator) override;
  void on_death(std::optional<uint32_t> culprit, bool certain) override;

  const Clock& clock_;
  UniqueFd epoll_;
  AllocatorFinderOptions options_;
  std::unique_ptr<AddressSpaceReader> reader_;
  std::unique_ptr<SymbolWorker> worker_;
  std::unordered_map<ProcessKey, Process> processes_;
  std::map<ObjectIdentity, File> files_;
  std::unordered_map<uint32_t, ObjectIdentity> ids_;
  std::deque<ObjectIdentity> queue_;
  std::vector<AllocatorFunctions> found_;
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

void Finder::watch(const ProcessKey& key, int32_t pid_in_ns) {
  if (processes_.size() >= kMaxFoundProcesses && !processes_.contains(key)) return;
  start();
  Process& process = processes_[key];
  process.pid_in_ns = pid_in_ns;
  process.told = false;
  read(key, process);
}

void Finder::read(const ProcessKey& key, Process& process) {
  process.looked_ns = clock_.monotonic_ns();
  if (process.reading) {
    process.unread = true;  // what it maps meanwhile may be missed
    return;
  }
  process.code_kb = mapped_code_kb(process.pid_in_ns);
  process.reading = reader_->read(key, process.pid_in_ns, {});
  process.unread = !process.reading;
}

size_t Finder::pending() const {
  return static_cast<size_t>(std::ranges::count_if(processes_, [](const auto& entry) { return !entry.second.told; }));
}

std::vector<Error> Finder::take_events() { return worker_ ? worker_->take_events() : std::vector<Error>(); }

void Finder::dispatch() {
  if (!reader_) return;
  for (AddressSpaceReader::Answer& answer : reader_->take()) {
    if (auto* space = std::get_if<AddressSpaceReader::Space>(&answer)) take_space(std::move(*space));
  }
  worker_->dispatch(*this);
  look_again();
  drop_unused();
  send();
}

void Finder::take_space(AddressSpaceReader::Space space) {
  const auto found = processes_.find(space.process);
  if (found == processes_.end()) return;
  Process& process = found->second;
  process.reading = false;
  if (!space.alive) {
    if (!std::exchange(process.told, true)) found_.push_back({space.process, process.pid_in_ns, false, {}});
    return;
  }
  process.open.clear();
  process.files.clear();
  for (AddressSpaceReader::MappedFile& mapped : space.files) {
    if (mapped.identified && !use_file(space.process, mapped)) process.unread = true;
  }
  if (process.open.empty()) tell(space.process, process);
}

// False where the file has to be looked at another time.
bool Finder::use_file(const ProcessKey& key, AddressSpaceReader::MappedFile& mapped) {
  Process& process = processes_[key];
  auto known = files_.find(mapped.identity);
  if (known == files_.end()) {
    if (!mapped.file || files_.size() >= kMaxAllocatorFiles) return false;
    known = files_.try_emplace(mapped.identity).first;
    File& file = known->second;
    file.id = next_id_++;
    file.path = mapped.path;
    file.file = std::move(mapped.file);
    ids_[file.id] = mapped.identity;
    queue_.push_back(mapped.identity);
    reader_->hold(mapped.identity);
  }
  known->second.used_ns = clock_.monotonic_ns();
  process.files.push_back(mapped.identity);
  if (known->second.state != File::State::kKnown) process.open.insert(mapped.identity);
  return true;
}

void Finder::look_again() {
  const uint64_t now = clock_.monotonic_ns();
  for (auto& [key, process] : processes_) {
    if (process.reading || now - process.looked_ns < kLookAgainNs) continue;
    process.looked_ns = now;
    if (process.unread || mapped_code_kb(process.pid_in_ns) != process.code_kb) read(key, process);
  }
}

// What the process has mapped of executable files: tells whether anything was added for the price of one small file
// (25 µs) where its mappings would be ten times that.
uint64_t Finder::mapped_code_kb(int32_t pid_in_ns) const {
  const std::string path = options_.proc_root + "/" + std::to_string(pid_in_ns) + "/status";
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(4096, '\0');
  const ssize_t size = file ? ::read(file.get(), text.data(), text.size()) : 0;
  text.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
  uint64_t total = 0;
  for (const char* field : {"\nVmExe:", "\nVmLib:"}) {
    const size_t at = text.find(field);
    if (at != std::string::npos) total += std::strtoull(text.c_str() + at + 7, nullptr, 10);
  }
  return total;
}

void Finder::drop_unused() {
  const uint64_t now = clock_.monotonic_ns();
  if (now - swept_ns_ < kKeepFileNs) return;
  swept_ns_ = now;
  for (auto& [key, process] : processes_) {
    for (const ObjectIdentity& identity : process.files) {
      if (const auto file = files_.find(identity); file != files_.end()) file->second.used_ns = now;
    }
  }
  std::erase_if(files_, [&](const auto& entry) {
    const auto& [identity, file] = entry;
    if (file.state != File::State::kKnown || now - file.used_ns < kKeepFileNs) return false;
    ids_.erase(file.id);
    reader_->let_go(identity);
    return true;
  });
}

void Finder::send() {
  while (!queue_.empty() && worker_->has_room()) {
    const auto found = files_.find(queue_.front());
    File& file = found->second;
    // Both questions or none: one place is kept free for the second.
    if (!worker_->add_object(file.id, file.file.get(), protocol::FileKind::kElfSymbols)) return;
    queue_.pop_front();
    file.state = File::State::kGiven;
  }
}

Finder::File* Finder::by_id(uint32_t id, ObjectIdentity* identity) {
  const auto found = ids_.find(id);
  if (found == ids_.end()) return nullptr;
  *identity = found->second;
  const auto file = files_.find(found->second);
  return file == files_.end() ? nullptr : &file->second;
}

void Finder::on_object(const protocol::ObjectInfo& info) {
  const uint32_t id = info.object;
  const protocol::ObjectStatus status = info.status;
  ObjectIdentity identity;
  File* const file = by_id(id, &identity);
  if (file == nullptr) return;
  if (status == protocol::ObjectStatus::kReadable && worker_->find_allocator(id)) return;
  if (status == protocol::ObjectStatus::kReadable) {  // no room for the question now
    file->state = File::State::kQueued;
    queue_.push_back(identity);
    return;
  }
  settle(identity);
}

void Finder::on_allocator(uint32_t id, protocol::Allocator allocator) {
  ObjectIdentity identity;
  File* const file = by_id(id, &identity);
  worker_->drop_object(id);
  if (file == nullptr) return;
  if (!allocator.places.empty() || allocator.uncounted_new) {
    file->object = std::make_shared<AllocatorObject>();
    file->object->file = std::move(file->file);
    file->object->path = file->path;
    file->object->places = std::move(allocator.places);
    file->object->uncounted_new = allocator.uncounted_new;
  }
  settle(identity);
}

// A file that killed the worker, or may have twice, has no allocator that we know of. The others are asked about again.
void Finder::on_death(std::optional<uint32_t> culprit, bool certain) {
  std::vector<ObjectIdentity> bad;
  for (auto& [identity, file] : files_) {
    if (file.state != File::State::kGiven) continue;
    file.state = File::State::kQueued;
    if (culprit == file.id && (certain || ++file.strikes == kMaxStrikes)) {
      bad.push_back(identity);
    } else {
      queue_.push_back(identity);
    }
  }
  for (const ObjectIdentity& identity : bad) settle(identity);
}

void Finder::settle(const ObjectIdentity& identity) {
  File& file = files_[identity];
  file.state = File::State::kKnown;
  file.file.reset();
  for (auto& [key, process] : processes_) {
    if (process.open.erase(identity) > 0 && process.open.empty()) tell(key, process);
  }
}

void Finder::tell(const ProcessKey& key, Process& process) {
  AllocatorFunctions functions{key, process.pid_in_ns, true, {}};
  for (const ObjectIdentity& identity : process.files) {
    const auto file = files_.find(identity);
    if (file != files_.end() && file->second.object) functions.objects.push_back(file->second.object);
  }
  if (process.told && functions.objects.size() == process.told_objects) return;
  process.told = true;
  process.told_objects = functions.objects.size();
  found_.push_back(std::move(functions));
}

}  // namespace

Result<std::unique_ptr<AllocatorFinder>> make_allocator_finder(const Clock& clock, AllocatorFinderOptions options) {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno("find allocators", errno);
  return std::unique_ptr<AllocatorFinder>(std::make_unique<Finder>(clock, std::move(epoll), std::move(options)));
}

}  // namespace stackwatch
