// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/unique_fd.h"
#include "symbols/address_space_reader.h"
#include "symbols/namer.h"
#include "symbols/object_table.h"

namespace stackwatch {

/// Stacks that wait for names, at about 2 kB with 127 frames: 8 MB. A first tick of 200 processes brings some 2,000.
inline constexpr size_t kMaxPendingStacks = 4096;
/// Frames looked at of one stack, more than any probe delivers (127 user and 127 kernel).
inline constexpr size_t kMaxFramesPerStack = 1024;
/// A stack whose names have not come by then gets fallback names: the daemon's deltas must not wait for ever.
inline constexpr uint64_t kPatienceNs = 15'000'000'000;
/// Processes with mappings known at a time: more than can be attached.
inline constexpr size_t kMaxProcesses = 4096;
/// Program images kept of one process: stacks of the one before an exec may come after it; more are history.
inline constexpr size_t kImagesPerProcess = 2;
/// Mappings are read again for an address that is in none of them. Walks along broken frame pointers make up such
/// addresses without end, so each process has an allowance: so many at once …
inline constexpr double kRereads = 4;
/// … and one more in this time; one that brought a new mapping is free. 200 processes at 0.2 ms: 0.4 % of a core.
inline constexpr double kRereadEveryS = 10;
/// A process that runs code without a file, and of whose JIT compiler no map was found, is looked at again this often:
/// it may have begun to write one.
inline constexpr uint64_t kJitLookEveryNs = 10'000'000'000;

class Namer final : public StackNamer {
 public:
  Namer(FunctionTable& functions, const Clock& clock, UniqueFd epoll, std::unique_ptr<WorkerSpawner> spawner,
        std::string proc_root);

  [[nodiscard]] int fd() const override { return epoll_.get(); }
  void dispatch() override;
  void learn(const ProcessKey& process, int32_t pid_in_ns, ExecId exec) override;
  [[nodiscard]] bool request(const ProcessKey& process, int32_t pid_in_ns, StackHash hash,
                             const RawStack& stack) override;
  void forget(const ProcessKey& process) override;
  [[nodiscard]] std::vector<NamedStack> take_named() override;
  [[nodiscard]] std::string_view place(uint32_t id) const override { return objects_.place(id); }
  [[nodiscard]] std::vector<Error> take_events() override { return objects_.take_events(); }
  [[nodiscard]] size_t pending() const override { return stacks_.size(); }
  [[nodiscard]] pid_t worker_pid() const override { return objects_.worker().pid(); }
  [[nodiscard]] NamerStats stats() const override;

 private:
  /// One executable mapping.
  struct Code {
    uint64_t start = 0;
    uint64_t end = 0;
    uint64_t file_offset = 0;
    uint32_t object = 0;  ///< 0: `name` is all there is to say
    FunctionId name;
    bool may_be_jit = false;
  };
  struct Image {
    enum class State { kUnread, kReading, kRead, kGone };
    ExecId exec;
    State state = State::kUnread;
    bool was_read = false;
    std::vector<Code> code;         ///< in order of addresses
    std::vector<uint64_t> waiting;  ///< stacks that wait for it to be read
    double rereads = kRereads;
    uint64_t rereads_at_ns = 0;  ///< when `rereads` was right
    uint32_t jit = 0;            ///< the object with the names of its JIT's code; 0: none
    uint64_t jit_look_ns = 0;    ///< not looked for again before
  };
  struct Process {
    int32_t pid_in_ns = 0;
    std::vector<Image> images;  ///< the newest last
  };
  struct Stack {
    NamedStack named;                         ///< its frames are filled in at the end
    std::vector<ObjectTable::Frames> frames;  ///< of each address, root first
    ExecId exec;
    std::vector<uint64_t> user;  ///< addresses, leaf first, to look up
    size_t open = 0;             ///< frames without their final name
    bool reread = false;         ///< mappings were read again for it
  };

  [[nodiscard]] Image* find_image(const ProcessKey& process, ExecId exec);
  [[nodiscard]] static const Code* find_code(const Image& image, uint64_t address);
  void drop_oldest_image(Process& owner);
  void start_reading(const ProcessKey& process, Process& owner, Image& image);
  [[nodiscard]] bool may_reread(Image& image);
  void take_space(AddressSpaceReader::Space space);
  void fill_image(Image& image, AddressSpaceReader::Space& space, int32_t pid_in_ns);
  [[nodiscard]] Code make_code(const ProcessKey& process, int32_t pid_in_ns, AddressSpaceReader::Space& space,
                               const AddressSpaceReader::Mapping& mapping, std::vector<uint32_t>& file_objects,
                               uint32_t jit);
  void release_image(const Image& image);
  void release_code(const std::vector<Code>& code);
  [[nodiscard]] uint32_t use_jit(const ProcessKey& process, int32_t pid_in_ns, AddressSpaceReader::Space& space);
  [[nodiscard]] bool should_look_for_jit(const Stack& stack, const Image& image) const;

  void ask_kernel(uint64_t id, Stack& stack, std::span<const uint64_t> kernel_frames);
  void place(uint64_t id, Stack& stack);
  [[nodiscard]] bool place_frame(uint64_t id, Stack& stack, size_t frame, const Image& image);
  void resolve(uint64_t id, Stack& stack, size_t position, uint32_t object, uint64_t offset);
  void name_frame(Stack& stack, size_t position, ObjectTable::Frames frames);
  [[nodiscard]] NamedStack flatten(Stack&& stack) const;
  [[nodiscard]] bool is_tracing(FunctionId frame) const;
  void finish_if_named(uint64_t id);
  void give_up_late();
  void retry_unread();

  FunctionTable& functions_;
  const Clock& clock_;
  UniqueFd epoll_;
  AddressSpaceReader reader_;
  ObjectTable objects_;
  std::unordered_map<ProcessKey, Process> processes_;
  std::unordered_map<uint64_t, Stack> stacks_;
  std::deque<std::pair<uint64_t, uint64_t>> deadlines_;  ///< (time, stack) in order
  std::vector<NamedStack> named_;
  uint64_t next_stack_ = 1;
  bool some_unread_ = false;
  NamerStats stats_;
};

}  // namespace stackwatch
