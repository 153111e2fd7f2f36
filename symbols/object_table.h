// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/clock.h"
#include "core/ids.h"
#include "core/result.h"
#include "core/stacks.h"
#include "core/unique_fd.h"
#include "symbols/address_space_reader.h"
#include "symbols/symbol_worker.h"

namespace stackwatch {

/// Object files known at a time; the worker holds one descriptor for each. 200 attached processes of a busy host have
/// some 300 different objects.
inline constexpr size_t kMaxObjects = 1024;
/// Resolved (object, offset) pairs that are remembered, at about 50 bytes: 3 MB. Full, all are forgotten and asked
/// again as they are needed, which costs the worker microseconds each.
inline constexpr size_t kMaxCachedNames = 65536;
/// Files that wait here for a worker to take them; with those of the reader half of the usual limit of 1,024.
inline constexpr size_t kMaxHeldFiles = 256;
/// An object that no process uses any more is kept so long for the next process that maps it (a script that is run
/// again and again), then its descriptor is closed: it must not keep a file system from being unmounted.
inline constexpr uint64_t kKeepUnusedNs = 30'000'000'000;
/// Places in sources (`file:line`) that are remembered for stacks, at about 100 bytes: 6 MB. Full, new ones are
/// unknown.
inline constexpr uint32_t kMaxSourcePlaces = 65536;
/// kallsyms is read again for an address that it does not have (a module was loaded), at most this often.
inline constexpr uint64_t kKernelReloadNs = 60'000'000'000;

/// The object files of all processes, the kernel and the vDSO, and what is known about offsets in them. Asks the
/// worker what it does not know yet; when the worker dies, gives the files to the next one, except those that killed
/// it.
class ObjectTable final : private SymbolWorker::Listener {
 public:
  /// Who asked.
  struct Asker {
    uint64_t stack = 0;
    uint32_t frame = 0;
  };
  struct Frame {
    FunctionId function;
    uint32_t place = 0;  ///< for place(); 0: unknown
  };
  /// The function at an offset and the calls that were inlined there, outermost first. Never empty.
  using Frames = std::vector<Frame>;
  struct Answer {
    Asker asker;
    Frames frames;
  };
  struct Place {
    ProcessKey process;
    int32_t pid_in_ns = 0;
    uint64_t start = 0;
    uint64_t end = 0;
    bool is_jit = false;  ///< the file that a JIT compiler writes, with addresses for offsets
  };

  /// All outlive the table but the worker, which it owns.
  ObjectTable(FunctionTable& functions, const Clock& clock, AddressSpaceReader& reader, int epoll,
              std::unique_ptr<WorkerSpawner> spawner, std::string proc_root);

  /// The number of an object, known or new, with one more user. Nothing where the table is full.
  /// Takes the descriptor out of `file` if it has a use for it.
  [[nodiscard]] std::optional<uint32_t> use(AddressSpaceReader::MappedFile& file, const Place& place);
  void retain(uint32_t object);  ///< one more user of a known object
  void release(uint32_t object);

  /// What is at an offset, where it is known already. Otherwise it is asked for and comes with take_answers().
  [[nodiscard]] std::optional<Frames> find(uint32_t object, uint64_t offset, Asker asker);
  /// What frames in the object are called when nothing better is known.
  [[nodiscard]] FunctionId fallback(uint32_t object);
  [[nodiscard]] std::vector<Answer> take_answers() { return std::exchange(answers_, {}); }

  void take_reopened(AddressSpaceReader::Reopened reopened);
  void take_searched(AddressSpaceReader::Searched searched);
  void dispatch();
  /// Sends the worker what was asked, as far as it has room.
  void send();

  [[nodiscard]] std::vector<Error> take_events();
  [[nodiscard]] const SymbolWorker& worker() const { return worker_; }
  [[nodiscard]] size_t size() const { return objects_.size(); }
  [[nodiscard]] size_t cached_names() const { return cached_names_; }
  [[nodiscard]] uint64_t bad_objects() const { return bad_objects_; }
  [[nodiscard]] uint64_t debug_files() const { return debug_files_; }
  [[nodiscard]] std::string_view place(uint32_t id) const;

 private:
  enum class State {
    kAbsent,   ///< the worker does not have it
    kOpening,  ///< asked the reader to open it again
    kHere,     ///< the file waits here
    kGiven,    ///< the worker has it
    kBad,      ///< there are no names to be had
  };
  /// How far the worker's wishes for further files of an object are fulfilled; names are asked for when they are, since
  /// they are remembered for good.
  enum class Debug {
    kUnasked,    ///< it has not said yet what it wants
    kSearching,  ///< the reader looks for it
    kOffering,   ///< files wait to be sent, or for the worker's word on one
    kSettled,
  };
  struct Object {
    State state = State::kAbsent;
    ObjectIdentity identity;
    std::string path;
    std::string label;  ///< `[basename]`
    std::string name;   ///< Function::object: build-id, else path
    UniqueFd file;
    std::vector<Place> places;  ///< where it is mapped, for opening it again; the newest last
    uint32_t users = 0;
    uint64_t unused_since_ns = 0;
    int strikes = 0;
    bool in_queue = false;
    bool is_jit = false;
    bool has_debug_info = false;
    bool symbols_only = false;  ///< its debug information ended a worker
    Debug debug = Debug::kUnasked;
    protocol::Wish wish = protocol::Wish::kNothing;
    bool offered = false;                                   ///< one of debug_files, and no word on it yet
    std::string debug_path;                                 ///< of the file offered last
    std::deque<AddressSpaceReader::FoundFile> debug_files;  ///< still to be offered
    std::unordered_map<uint64_t, Frames> names;
    std::unordered_map<uint64_t, std::vector<Asker>> askers;
    std::vector<uint64_t> unsent;  ///< keys of askers that the worker was not asked yet
  };

  using Objects = std::unordered_map<uint32_t, Object>;

  void on_object(const protocol::ObjectInfo& info) override;
  void on_name(uint32_t id, uint64_t offset, const protocol::Name& name) override;
  void on_death(std::optional<uint32_t> culprit, bool certain) override;

  void add_builtin(uint32_t id, State state, std::string_view name, std::string_view label);
  void open_kernel(Object& kernel);
  void reload_kernel();
  void take_file(uint32_t id, Object& object, UniqueFd file);
  void drop_file(Object& object);
  void fetch(uint32_t id, Object& object);
  void search_debug(uint32_t id, Object& object, const protocol::ObjectInfo& info);
  void take_word_on_debug(uint32_t id, Object& object, const protocol::ObjectInfo& info);
  [[nodiscard]] bool offer_debug(uint32_t id, Object& object);
  void drop_debug(Object& object);
  void punish(uint32_t id, Object& object, bool certain);
  void give_up(Object& object);
  void mark_bad(uint32_t id, Object& object);
  [[nodiscard]] static bool is_with_worker(const Object& object);
  void enqueue(uint32_t id, Object& object);
  void answer(Object& object, uint64_t offset, const Frames& frames);
  [[nodiscard]] FunctionId intern(uint32_t id, const Object& object, const protocol::Name& name);
  [[nodiscard]] uint32_t intern_place(const std::string& file, uint32_t line);
  void remember(Object& object, uint64_t offset, const Frames& frames);
  void send_work();
  [[nodiscard]] bool send_one(uint32_t id, Object& object);
  void send_drops();
  void drop_unused();
  bool make_room();
  Objects::iterator erase(Objects::iterator at);

  FunctionTable& functions_;
  const Clock& clock_;
  AddressSpaceReader& reader_;
  std::string proc_root_;
  Objects objects_;
  std::map<ObjectIdentity, uint32_t> index_;
  uint32_t next_id_ = protocol::kFirstFileObject;
  std::deque<uint32_t> work_;   ///< objects with something to send, each once
  std::deque<uint32_t> drops_;  ///< objects that the worker may drop
  std::vector<Answer> answers_;
  std::vector<Error> events_;
  size_t held_files_ = 0;
  size_t cached_names_ = 0;
  uint64_t bad_objects_ = 0;
  uint64_t debug_files_ = 0;
  std::vector<std::string> places_;  ///< the first is empty
  std::unordered_map<std::string, uint32_t> place_index_;
  uint64_t kernel_loaded_ns_ = 0;
  bool kernel_stale_ = false;
  uint64_t swept_ns_ = 0;
  SymbolWorker worker_;  // last: it may start asking at once
};

/// A build-id as people and paths write it.
[[nodiscard]] std::string hex(std::span<const std::byte> bytes);

}  // namespace stackwatch
