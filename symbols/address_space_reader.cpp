// SPDX-License-Identifier: Apache-2.0
#include "symbols/address_space_reader.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

namespace stackwatch {
namespace {

/// How long the destructor waits for a thread that may hang in a dead file system.
constexpr std::chrono::seconds kLastWait{1};

struct ReadJob {
  ProcessKey process;
  int32_t pid_in_ns = 0;
  ExecId exec;
};
struct ReopenJob {
  AddressSpaceReader::Source source;
  ObjectIdentity identity;
};
using Job = std::variant<ReadJob, ReopenJob, AddressSpaceReader::Search>;

std::string read_all(int directory, const char* name, size_t most) {
  const UniqueFd file(::openat(directory, name, O_RDONLY | O_CLOEXEC));
  std::string text;
  while (file && text.size() < most) {
    static constexpr size_t kChunk = 64 * 1024;
    const size_t old = text.size();
    text.resize(old + kChunk);
    const ssize_t got = ::read(file.get(), text.data() + old, kChunk);
    text.resize(old + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
  }
  return text;
}

/// Field 22 of /proc/PID/stat, in nanoseconds. The name in field 2 may hold anything, so count from its end.
std::optional<uint64_t> start_time_ns(int process_dir) {
  static constexpr int kSpacesBefore = 20;  // between the `)` and the start time
  const std::string stat = read_all(process_dir, "stat", 4096);
  size_t at = stat.rfind(')');
  for (int i = 0; i < kSpacesBefore && at != std::string::npos; ++i) at = stat.find(' ', at + 1);
  if (at == std::string::npos) return std::nullopt;
  uint64_t ticks = 0;
  if (std::from_chars(stat.data() + at + 1, stat.data() + stat.size(), ticks).ec != std::errc{}) return std::nullopt;
  return ticks * (1'000'000'000ULL / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK)));
}

std::optional<ObjectIdentity> identify(int file) {
  struct stat info {};
  if (::fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  return ObjectIdentity{info.st_dev, info.st_ino, static_cast<uint64_t>(info.st_size),
                        info.st_mtim.tv_sec * 1'000'000'000LL + info.st_mtim.tv_nsec};
}

/// stat() tells another device than maps does on file systems whose files have no device of their own.
bool has_own_devices(int file) {
  struct statfs info {};
  static constexpr auto kBtrfs = static_cast<decltype(info.f_type)>(BTRFS_SUPER_MAGIC);
  static constexpr auto kOverlay = static_cast<decltype(info.f_type)>(OVERLAYFS_SUPER_MAGIC);
  return ::fstatfs(file, &info) == 0 && (info.f_type == kBtrfs || info.f_type == kOverlay);
}

UniqueFd reach_by_range(int process_dir, uint64_t start, uint64_t end) {
  char name[64];
  std::snprintf(name, sizeof name, "map_files/%lx-%lx", static_cast<unsigned long>(start),
                static_cast<unsigned long>(end));
  return UniqueFd(::openat(process_dir, name, O_PATH | O_CLOEXEC));
}

/// Where map_files is not allowed: by the path inside the process's root, if that is still the same file.
UniqueFd reach_by_path(int process_dir, const MapsEntry& entry) {
  if (!entry.path.starts_with('/')) return {};
  UniqueFd file(::openat(process_dir, ("root" + entry.path).c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW));
  struct stat info {};
  if (!file || ::fstat(file.get(), &info) != 0 || info.st_ino != entry.inode) return {};
  const bool same_device = ::major(info.st_dev) == entry.device_major && ::minor(info.st_dev) == entry.device_minor;
  if (!same_device && !has_own_devices(file.get())) return {};
  return file;
}

/// From a place holder (O_PATH) to a file that can be read. Never a device or a pipe: identify() has looked.
UniqueFd open_reached(const UniqueFd& reached) {
  const std::string link = "/proc/self/fd/" + std::to_string(reached.get());
  return UniqueFd(::open(link.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
}

/// A place holder for a path in a process's root. Whatever links are on the way, it does not lead out of that root.
UniqueFd reach_in_root(int process_dir, const std::string& path) {
  const UniqueFd root(::openat(process_dir, "root", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root) return {};
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  static constexpr int kTries = 3;  // it says EAGAIN where something on the way was renamed meanwhile
  for (int i = 0; i < kTries; ++i) {
    const long file = ::syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof how);
    if (file >= 0) return UniqueFd(static_cast<int>(file));
    if (errno != EAGAIN) break;
  }
  return {};
}

bool is_elf(int file) {
  char magic[4] = {};
  return ::pread(file, magic, sizeof magic, 0) == sizeof magic && std::string_view(magic, sizeof magic) == "\177ELF";
}

/// What /proc/PID/status says about who the process is.
struct Status {
  std::optional<uint64_t> user;  ///< effective
  std::optional<uint64_t> pid;   ///< as the process itself knows it
};

Status read_status(int process_dir) {
  static constexpr size_t kEnough = 16 * 1024;
  const std::string text = read_all(process_dir, "status", kEnough);
  const auto number = [&text](std::string_view key, size_t column) -> std::optional<uint64_t> {
    const size_t line = text.find("\n" + std::string(key));
    if (line == std::string::npos) return std::nullopt;
    std::string_view rest = std::string_view(text).substr(line + 1 + key.size());
    rest = rest.substr(0, rest.find('\n'));
    std::optional<uint64_t> found;
    for (size_t i = 0; i <= column && !rest.empty(); ++i) {
      rest.remove_prefix(std::min(rest.find_first_not_of("\t "), rest.size()));
      uint64_t value = 0;
      const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
      if (error != std::errc{}) break;
      rest.remove_prefix(static_cast<size_t>(end - rest.data()));
      found = value;
    }
    return found;
  };
  return {number("Uid:", 1), number("NSpid:", SIZE_MAX)};  // NSpid: the innermost namespace is last
}

/// A file of a JIT compiler, if it is a regular one of that user.
AddressSpaceReader::MappedFile identify_jit(std::string path, const UniqueFd& reached, uint64_t user) {
  AddressSpaceReader::MappedFile jit;
  jit.path = std::move(path);
  struct stat info {};
  if (!reached || ::fstat(reached.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != user) return jit;
  jit.identified = true;
  jit.identity = {info.st_dev, info.st_ino, 0, 0};
  return jit;
}

bool is_jitdump(std::string_view path) {
  const std::string_view name = object_basename(path);
  return name.starts_with("jit-") && name.ends_with(".dump");
}

size_t count_files(const AddressSpaceReader::Answer& answer) {
  if (const auto* searched = std::get_if<AddressSpaceReader::Searched>(&answer)) return searched->files.size();
  if (const auto* reopened = std::get_if<AddressSpaceReader::Reopened>(&answer)) return reopened->file ? 1 : 0;
  const auto& space = std::get<AddressSpaceReader::Space>(answer);
  const auto& files = space.files;
  const size_t jit = space.jit && space.jit->file ? 1 : 0;
  return jit +
         static_cast<size_t>(std::count_if(files.begin(), files.end(), [](const auto& file) { return !!file.file; }));
}

}  // namespace

/// Everything that the thread and its owner both use.
class AddressSpaceReader::Shared {
 public:
  explicit Shared(std::string root) : proc_root(std::move(root)), event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  void run();
  [[nodiscard]] bool push(Job job);

  const std::string proc_root;
  UniqueFd event;
  std::mutex mutex;  // guards everything below
  std::condition_variable changed;
  std::deque<Job> jobs;
  std::vector<Answer> answers;
  size_t opened_files = 0;  ///< in answers
  std::set<ObjectIdentity> held;
  bool stopping = false;
  bool stopped = false;

 private:
  enum class Open { kAlways, kUnlessHeld, kNever };

  [[nodiscard]] Answer work(const Job& job);
  [[nodiscard]] Space do_read(const ReadJob& job);
  [[nodiscard]] Reopened do_reopen(const ReopenJob& job);
  [[nodiscard]] Searched do_search(const Search& search);
  [[nodiscard]] std::optional<MappedFile> open_jit(int process_dir, const std::vector<Mapping>& mappings, Open when);
  [[nodiscard]] UniqueFd open_process(const ProcessKey& process, int32_t pid_in_ns) const;
  [[nodiscard]] MappedFile open_mapped(int process_dir, const MapsEntry& entry, Open when);
  [[nodiscard]] bool is_held(const ObjectIdentity& identity);
};

AddressSpaceReader::AddressSpaceReader(std::string proc_root)
    : shared_(std::make_shared<Shared>(std::move(proc_root))) {
  // Signals are the loop's: the thread is born with all of them blocked.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([shared = shared_] { shared->run(); }).detach();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

AddressSpaceReader::~AddressSpaceReader() {
  std::unique_lock lock(shared_->mutex);
  shared_->stopping = true;
  shared_->changed.notify_all();
  shared_->answers.clear();
  // Closed here and not with the thread's share, so that nothing is open when we are gone.
  if (shared_->changed.wait_for(lock, kLastWait, [this] { return shared_->stopped; })) shared_->event.reset();
}

int AddressSpaceReader::fd() const { return shared_->event.get(); }

bool AddressSpaceReader::read(const ProcessKey& process, int32_t pid_in_ns, ExecId exec) {
  return shared_->push(ReadJob{process, pid_in_ns, exec});
}

bool AddressSpaceReader::reopen(const Source& source, const ObjectIdentity& identity) {
  return shared_->push(ReopenJob{source, identity});
}

bool AddressSpaceReader::Shared::push(Job job) {
  const std::lock_guard lock(mutex);
  if (jobs.size() >= kMaxReaderJobs) return false;
  jobs.push_back(std::move(job));
  changed.notify_all();
  return true;
}

bool AddressSpaceReader::search(Search search) { return shared_->push(std::move(search)); }

std::vector<AddressSpaceReader::Answer> AddressSpaceReader::take() {
  eventfd_t ignored = 0;
  ::eventfd_read(fd(), &ignored);  // resets it
  const std::lock_guard lock(shared_->mutex);
  shared_->opened_files = 0;
  shared_->changed.notify_all();
  return std::exchange(shared_->answers, {});
}

void AddressSpaceReader::hold(const ObjectIdentity& identity) {
  const std::lock_guard lock(shared_->mutex);
  shared_->held.insert(identity);
}

void AddressSpaceReader::let_go(const ObjectIdentity& identity) {
  const std::lock_guard lock(shared_->mutex);
  shared_->held.erase(identity);
}

bool AddressSpaceReader::Shared::is_held(const ObjectIdentity& identity) {
  const std::lock_guard lock(mutex);
  return held.contains(identity);
}

void AddressSpaceReader::Shared::run() {
  std::unique_lock lock(mutex);
  for (;;) {
    changed.wait(lock, [this] { return stopping || (!jobs.empty() && opened_files < kMaxOpenedFiles); });
    if (stopping) break;
    const Job job = std::move(jobs.front());
    jobs.pop_front();
    lock.unlock();
    Answer answer = work(job);
    lock.lock();
    opened_files += count_files(answer);
    answers.push_back(std::move(answer));
    ::eventfd_write(event.get(), 1);
  }
  stopped = true;
  changed.notify_all();
}

AddressSpaceReader::Answer AddressSpaceReader::Shared::work(const Job& job) {
  if (const auto* read_job = std::get_if<ReadJob>(&job)) return do_read(*read_job);
  if (const auto* search_job = std::get_if<Search>(&job)) return do_search(*search_job);
  return do_reopen(std::get<ReopenJob>(job));
}

/// The directory stands for the process even when its pid is reused while we read: it then answers ESRCH.
UniqueFd AddressSpaceReader::Shared::open_process(const ProcessKey& process, int32_t pid_in_ns) const {
  const std::string path = proc_root + "/" + std::to_string(pid_in_ns);
  UniqueFd directory(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return {};
  const auto started = start_time_ns(directory.get());
  if (!started || *started / kStartTimeGranularityNs != process.start_time_ns / kStartTimeGranularityNs) return {};
  return directory;
}

AddressSpaceReader::Space AddressSpaceReader::Shared::do_read(const ReadJob& job) {
  Space space{job.process, job.exec, false, {}, {}, {}};
  const UniqueFd process = open_process(job.process, job.pid_in_ns);
  if (!process) return space;
  const std::string text = read_all(process.get(), "maps", kMaxMapsBytes);
  space.alive = !text.empty();
  std::map<std::pair<std::pair<uint32_t, uint32_t>, uint64_t>, size_t> known;
  for (MapsEntry& entry : parse_maps(text)) {
    Mapping mapping{std::move(entry), kNoFile};
    const MapsEntry& seen = mapping.entry;
    if (seen.inode != 0 && !is_jitdump(seen.path)) {
      const auto [at, is_new] =
          known.try_emplace({{seen.device_major, seen.device_minor}, seen.inode}, space.files.size());
      const bool may_open = space.files.size() < kMaxOpenedFiles;  // of the others the caller knows who they are
      if (is_new) space.files.push_back(open_mapped(process.get(), seen, may_open ? Open::kUnlessHeld : Open::kNever));
      mapping.file = at->second;
    }
    space.mappings.push_back(std::move(mapping));
  }
  space.jit = open_jit(process.get(), space.mappings, Open::kUnlessHeld);
  return space;
}

AddressSpaceReader::MappedFile AddressSpaceReader::Shared::open_mapped(int process_dir, const MapsEntry& entry,
                                                                       Open when) {
  MappedFile mapped;
  mapped.path = entry.path;
  UniqueFd reached = reach_by_range(process_dir, entry.start, entry.end);
  if (!reached) reached = reach_by_path(process_dir, entry);
  const auto identity = reached ? identify(reached.get()) : std::nullopt;
  if (!identity) return mapped;
  mapped.identified = true;
  mapped.identity = *identity;
  if (when == Open::kAlways || (when == Open::kUnlessHeld && !is_held(*identity))) mapped.file = open_reached(reached);
  return mapped;
}

/// The owner is asked, and not the name believed: anybody may write files into /tmp.
std::optional<AddressSpaceReader::MappedFile> AddressSpaceReader::Shared::open_jit(int process_dir,
                                                                                   const std::vector<Mapping>& mappings,
                                                                                   Open when) {
  const auto dump = std::ranges::find_if(mappings, is_jitdump, [](const Mapping& map) { return map.entry.path; });
  const bool has_anonymous = std::ranges::any_of(mappings, &MapsEntry::may_be_jit, &Mapping::entry);
  if (!has_anonymous && dump == mappings.end()) return std::nullopt;
  const Status status = read_status(process_dir);
  if (!status.user || !status.pid) return std::nullopt;

  const std::string path = "/tmp/perf-" + std::to_string(*status.pid) + ".map";
  UniqueFd reached = reach_in_root(process_dir, path);
  MappedFile jit = identify_jit(path, reached, *status.user);
  if (!jit.identified && dump != mappings.end()) {
    reached = reach_by_range(process_dir, dump->entry.start, dump->entry.end);
    if (!reached) reached = reach_by_path(process_dir, dump->entry);
    jit = identify_jit(dump->entry.path, reached, *status.user);
  }
  if (!jit.identified) return std::nullopt;
  if (when == Open::kAlways || !is_held(jit.identity)) jit.file = open_reached(reached);
  return jit;
}

AddressSpaceReader::Searched AddressSpaceReader::Shared::do_search(const Search& search) {
  Searched searched{search.identity, search.supplementary, {}};
  const UniqueFd process = open_process(search.process, search.pid_in_ns);
  if (!process) return searched;
  for (const std::string& path : search.paths) {
    if (searched.files.size() == kMaxFoundFiles) break;
    const UniqueFd reached = reach_in_root(process.get(), path);
    const auto identity = reached ? identify(reached.get()) : std::nullopt;
    if (!identity || *identity == search.identity) continue;
    UniqueFd file = open_reached(reached);
    // Nothing but ELF files leaves here: paths come from strangers' files, and the daemon may read what they may not.
    if (file && is_elf(file.get())) searched.files.push_back({path, std::move(file)});
  }
  return searched;
}

AddressSpaceReader::Reopened AddressSpaceReader::Shared::do_reopen(const ReopenJob& job) {
  Reopened reopened{job.identity, {}};
  const UniqueFd process = open_process(job.source.process, job.source.pid_in_ns);
  if (!process) return reopened;
  if (job.source.is_jit) {
    std::vector<Mapping> mappings;
    for (MapsEntry& entry : parse_maps(read_all(process.get(), "maps", kMaxMapsBytes))) {
      mappings.push_back({std::move(entry), kNoFile});
    }
    auto jit = open_jit(process.get(), mappings, Open::kAlways);
    if (jit && jit->identity == job.identity) reopened.file = std::move(jit->file);
    return reopened;
  }
  MapsEntry entry;
  entry.start = job.source.start;
  entry.end = job.source.end;
  entry.path = job.source.path;
  entry.inode = job.identity.inode;
  entry.device_major = ::major(job.identity.device);
  entry.device_minor = ::minor(job.identity.device);
  MappedFile mapped = open_mapped(process.get(), entry, Open::kAlways);
  if (mapped.identified && mapped.identity == job.identity) reopened.file = std::move(mapped.file);
  return reopened;
}

}  // namespace stackwatch
