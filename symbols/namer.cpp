// SPDX-License-Identifier: Apache-2.0
#include "symbols/namer.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "core/kernel_entry.h"
#include "symbols/namer_impl.h"

namespace stackwatch {
namespace {

/// A user frame whose mapping is not found yet.
constexpr FunctionId kUnplaced{UINT32_MAX};

bool is_unplaced(const ObjectTable::Frames& frames) { return frames.front().function == kUnplaced; }

}  // namespace

std::string default_symbol_worker() {
  static constexpr const char* kProgram = "/stackwatch-symbols";
  std::array<char, 4096> self{};
  const ssize_t length = ::readlink("/proc/self/exe", self.data(), self.size());
  if (length > 0 && static_cast<size_t>(length) < self.size()) {
    const std::string path(self.data(), static_cast<size_t>(length));
    const std::string beside = path.substr(0, path.rfind('/')) + kProgram;
    // With the rights that we have: access() asks with those of the user, without ambient capabilities.
    if (::faccessat(AT_FDCWD, beside.c_str(), X_OK, AT_EACCESS) == 0) return beside;
  }
  return std::string(STACKWATCH_LIBEXEC_DIR) + kProgram;
}

Result<std::unique_ptr<StackNamer>> make_namer(FunctionTable& functions, const Clock& clock, NamerOptions options) {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno("name functions", errno);
  std::string program = options.worker_program.empty() ? default_symbol_worker() : std::move(options.worker_program);
  return std::unique_ptr<StackNamer>(std::make_unique<Namer>(
      functions, clock, std::move(epoll), make_program_spawner(std::move(program)), std::move(options.proc_root)));
}

Namer::Namer(FunctionTable& functions, const Clock& clock, UniqueFd epoll, std::unique_ptr<WorkerSpawner> spawner,
             std::string proc_root)
    : functions_(functions),
      clock_(clock),
      epoll_(std::move(epoll)),
      reader_(proc_root),
      objects_(functions, clock, reader_, epoll_.get(), std::move(spawner), proc_root) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = reader_.fd();
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, reader_.fd(), &event);
}

void Namer::dispatch() {
  for (AddressSpaceReader::Answer& answer : reader_.take()) {
    if (auto* space = std::get_if<AddressSpaceReader::Space>(&answer)) {
      take_space(std::move(*space));
    } else if (auto* reopened = std::get_if<AddressSpaceReader::Reopened>(&answer)) {
      objects_.take_reopened(std::move(*reopened));
    } else {
      objects_.take_searched(std::move(std::get<AddressSpaceReader::Searched>(answer)));
    }
  }
  objects_.dispatch();
  for (ObjectTable::Answer& answer : objects_.take_answers()) {
    const auto stack = stacks_.find(answer.asker.stack);
    if (stack == stacks_.end()) continue;  // forgotten, or out of time
    name_frame(stack->second, answer.asker.frame, std::move(answer.frames));
    finish_if_named(answer.asker.stack);
  }
  if (some_unread_) retry_unread();
  give_up_late();
}

Namer::Image* Namer::find_image(const ProcessKey& process, ExecId exec) {
  const auto owner = processes_.find(process);
  if (owner == processes_.end()) return nullptr;
  for (Image& image : owner->second.images) {
    if (image.exec == exec) return &image;
  }
  return nullptr;
}

void Namer::learn(const ProcessKey& process, int32_t pid_in_ns, ExecId exec) {
  if (find_image(process, exec) != nullptr) return;
  if (processes_.size() >= kMaxProcesses && !processes_.contains(process)) return;
  Process& owner = processes_[process];
  owner.pid_in_ns = pid_in_ns;
  // Probes tell their stacks one after the other, so one of before the exec may come after those of the new program.
  // Taken for the current program it would leave that one without names for good. An exec makes the id larger.
  if (!owner.images.empty() && exec < owner.images.back().exec) return;
  if (owner.images.size() == kImagesPerProcess) drop_oldest_image(owner);
  Image& image = owner.images.emplace_back();
  image.exec = exec;
  image.rereads_at_ns = clock_.monotonic_ns();
  start_reading(process, owner, image);
}

void Namer::drop_oldest_image(Process& owner) {
  const Image oldest = std::move(owner.images.front());
  owner.images.erase(owner.images.begin());
  release_image(oldest);
  for (const uint64_t id : oldest.waiting) {
    const auto stack = stacks_.find(id);
    if (stack == stacks_.end()) continue;
    place(id, stack->second);  // finds no image: all [unknown]
    finish_if_named(id);
  }
}

void Namer::start_reading(const ProcessKey& process, Process& owner, Image& image) {
  const bool queued = reader_.read(process, owner.pid_in_ns, image.exec);
  image.state = queued ? Image::State::kReading : Image::State::kUnread;
  some_unread_ |= !queued;
  stats_.maps_read += queued ? 1 : 0;
}

void Namer::retry_unread() {
  some_unread_ = false;
  for (auto& [process, owner] : processes_) {
    for (Image& image : owner.images) {
      if (image.state == Image::State::kUnread) start_reading(process, owner, image);
    }
  }
}

bool Namer::may_reread(Image& image) {
  const uint64_t now = clock_.monotonic_ns();
  const double earned = static_cast<double>(now - image.rereads_at_ns) / 1e9 / kRereadEveryS;
  image.rereads = std::min(kRereads, image.rereads + earned);
  image.rereads_at_ns = now;
  if (image.rereads < 1) return false;
  image.rereads -= 1;
  return true;
}

bool Namer::request(const ProcessKey& process, int32_t pid_in_ns, StackHash hash, const RawStack& raw) {
  if (stacks_.size() >= kMaxPendingStacks) {
    ++stats_.refused;
    return false;
  }
  ++stats_.requested;
  const uint64_t id = next_stack_++;
  Stack& stack = stacks_[id];
  stack.exec = raw.exec;
  stack.named.process = process;
  stack.named.hash = hash;
  const size_t users = std::min(raw.user_frames.size(), kMaxFramesPerStack);
  const size_t kernels = std::min(raw.kernel_frames.size(), kMaxFramesPerStack);
  stack.frames.assign(users + kernels, {{kUnplaced}});
  stack.open = users + kernels;
  stack.user.assign(raw.user_frames.begin(), raw.user_frames.begin() + static_cast<ptrdiff_t>(users));
  // All but the leaf are return addresses: the call before them is meant, which may be the last of its function.
  for (size_t i = 1; i < users; ++i) --stack.user[i];
  deadlines_.emplace_back(clock_.monotonic_ns() + kPatienceNs, id);

  ask_kernel(id, stack, std::span(raw.kernel_frames).first(kernels));
  if (users > 0) {
    learn(process, pid_in_ns, raw.exec);
    place(id, stack);
  } else if (kernels == 0) {
    stack.frames.push_back({{functions_.intern("", "[unknown]")}});
  }
  finish_if_named(id);
  objects_.send();
  return true;
}

void Namer::ask_kernel(uint64_t id, Stack& stack, std::span<const uint64_t> kernel_frames) {
  const size_t last = stack.frames.size() - 1;
  for (size_t i = 0; i < kernel_frames.size(); ++i) {
    resolve(id, stack, last - i, protocol::kKernelObject, kernel_frames[i] - (i > 0 ? 1 : 0));
  }
}

/// Finds the mappings of all user frames that have none yet.
void Namer::place(uint64_t id, Stack& stack) {
  Image* const image = find_image(stack.named.process, stack.exec);
  if (image != nullptr && (image->state == Image::State::kReading || image->state == Image::State::kUnread)) {
    image->waiting.push_back(id);
    return;
  }
  const auto owner = processes_.find(stack.named.process);
  const bool current = image != nullptr && image == &owner->second.images.back();
  if (current && should_look_for_jit(stack, *image)) {
    image->jit_look_ns = clock_.monotonic_ns() + kJitLookEveryNs;
    start_reading(stack.named.process, owner->second, *image);
    image->waiting.push_back(id);
    return;
  }
  bool all_placed = true;
  for (size_t i = 0; i < stack.user.size() && image != nullptr; ++i) {
    all_placed &= place_frame(id, stack, i, *image);
  }
  if (all_placed && image != nullptr) return;
  if (current && image->state == Image::State::kRead && !stack.reread && may_reread(*image)) {
    stack.reread = true;
    start_reading(stack.named.process, owner->second, *image);
    image->waiting.push_back(id);
    return;
  }
  const FunctionId unknown = functions_.intern("", "[unknown]");
  for (size_t i = 0; i < stack.user.size(); ++i) {
    if (is_unplaced(stack.frames[i])) name_frame(stack, i, {{unknown}});
  }
}

/// It runs code without a file, nothing says what that is, and nobody has looked for a while.
bool Namer::should_look_for_jit(const Stack& stack, const Image& image) const {
  if (image.jit != 0 || image.state != Image::State::kRead || clock_.monotonic_ns() < image.jit_look_ns) return false;
  return std::ranges::any_of(stack.user, [&image](uint64_t address) {
    const Code* const code = find_code(image, address);
    return code != nullptr && code->may_be_jit;
  });
}

/// False where no mapping has the address of user frame `frame` (leaf first).
bool Namer::place_frame(uint64_t id, Stack& stack, size_t frame, const Image& image) {
  const size_t position = stack.user.size() - 1 - frame;
  if (!is_unplaced(stack.frames[position])) return true;
  const uint64_t address = stack.user[frame];
  const Code* const code = find_code(image, address);
  if (code == nullptr) return false;
  if (code->object == 0) {
    name_frame(stack, position, {{code->name}});
  } else {
    resolve(id, stack, position, code->object, code->file_offset + (address - code->start));
  }
  return true;
}

void Namer::resolve(uint64_t id, Stack& stack, size_t position, uint32_t object, uint64_t offset) {
  auto frames = objects_.find(object, offset, {id, static_cast<uint32_t>(position)});
  if (frames) {
    name_frame(stack, position, std::move(*frames));
  } else {
    stack.frames[position] = {{objects_.fallback(object)}};  // until the answer, or for good if none comes in time
  }
}

void Namer::name_frame(Stack& stack, size_t position, ObjectTable::Frames frames) {
  stack.frames[position] = std::move(frames);
  --stack.open;
}

NamedStack Namer::flatten(Stack&& stack) const {
  NamedStack named = std::move(stack.named);
  bool some_place = false;
  for (const ObjectTable::Frames& frames : stack.frames) {
    for (const ObjectTable::Frame& frame : frames) {
      named.frames.push_back(frame.function);
      named.places.push_back(frame.place);
      some_place = some_place || frame.place != 0;
    }
  }
  while (named.frames.size() > 1 && is_tracing(named.frames.back())) {
    named.frames.pop_back();
    named.places.pop_back();
  }
  if (!some_place) named.places.clear();
  return named;
}

/// A probe's own way into the kernel's tracepoint is at the leaf of what it sees: no part of what the process did, and
/// called otherwise with every load of the program.
bool Namer::is_tracing(FunctionId frame) const {
  static constexpr std::array<std::string_view, 4> kOwn = {"bpf_prog_", "bpf_trace_run", "__bpf_trace_",
                                                           "__traceiter_"};
  const Function& function = functions_[frame];
  return is_in_kernel(function.name) &&
         std::ranges::any_of(kOwn, [&](std::string_view begin) { return function.name.starts_with(begin); });
}

void Namer::finish_if_named(uint64_t id) {
  const auto stack = stacks_.find(id);
  if (stack == stacks_.end() || stack->second.open > 0) return;
  ++stats_.named;
  named_.push_back(flatten(std::move(stack->second)));
  stacks_.erase(stack);
}

void Namer::give_up_late() {
  const uint64_t now = clock_.monotonic_ns();
  while (!deadlines_.empty() && (deadlines_.front().first <= now || !stacks_.contains(deadlines_.front().second))) {
    const uint64_t id = deadlines_.front().second;
    deadlines_.pop_front();
    const auto stack = stacks_.find(id);
    if (stack == stacks_.end()) continue;
    ++stats_.out_of_time;
    const FunctionId unknown = functions_.intern("", "[unknown]");
    for (ObjectTable::Frames& frames : stack->second.frames) {
      if (is_unplaced(frames)) frames = {{unknown}};
    }
    stack->second.open = 0;
    finish_if_named(id);
  }
}

std::vector<NamedStack> Namer::take_named() { return std::exchange(named_, {}); }

NamerStats Namer::stats() const {
  NamerStats stats = stats_;
  stats.worker_deaths = objects_.worker().deaths();
  stats.bad_objects = objects_.bad_objects();
  stats.debug_files = objects_.debug_files();
  stats.objects = objects_.size();
  stats.cached_names = objects_.cached_names();
  return stats;
}

}  // namespace stackwatch
