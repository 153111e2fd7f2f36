// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/delta.h"
#include "core/ids.h"
#include "core/process.h"
#include "core/result.h"
#include "core/stacks.h"

namespace stackwatch {

/// A stack whose every frame has a function: user root … user leaf, kernel entry … kernel leaf. Never empty. Frames of
/// the probe itself (its program and the tracepoint that called it) are left out.
///
/// A call that the compiler inlined is a frame like any other, below the function that it was inlined into, where debug
/// information tells. It has the same FunctionId as the same function called for real: for detectors it is one
/// function, whatever the compiler did at which place.
struct NamedStack {
  ProcessKey process;
  StackHash hash;
  std::vector<FunctionId> frames;  ///< root first
  /// Where in the source each frame is, for StackNamer::place(); as many as frames, or none where nothing is known of
  /// any. The numbers are of the addresses of this stack: another stack of the same functions may be at other lines.
  std::vector<uint32_t> places{};
};

/// What a namer did since its start, for `status`.
struct NamerStats {
  uint64_t requested = 0;      ///< stacks taken on
  uint64_t refused = 0;        ///< stacks refused because too many were waiting
  uint64_t named = 0;          ///< stacks answered
  uint64_t out_of_time = 0;    ///< of these: answered with fallback names because the worker did not answer in time
  uint64_t maps_read = 0;      ///< how often mappings were read
  uint64_t worker_deaths = 0;  ///< the worker died or had to be killed
  uint64_t bad_objects = 0;    ///< object files without names: unreadable, not ELF, or deadly to the worker
  uint64_t debug_files = 0;    ///< separate debug files found and accepted
  uint64_t objects = 0;        ///< object files known now
  uint64_t cached_names = 0;   ///< (object, offset) pairs whose function is remembered now
};

/// Turns stacks of addresses into stacks of functions, off the loop. All calls on one thread (the loop's); none blocks.
///
/// Names are never missing, at worst they say little: `[basename]` where an object has no symbol and no call-frame
/// entry at the address, `[basename]+0xVADDR` where only the call-frame entry tells where the function starts,
/// `[anon]` for code without a file, `[jit]` for such code that its compiler tells about, but not at this address,
/// `[vdso]`, `[kernel]_[k]`, and `[unknown]` where no mapping is known.
class StackNamer {
 public:
  virtual ~StackNamer() = default;

  /// The one descriptor to poll for reading; valid and the same for the life of the object.
  [[nodiscard]] virtual int fd() const = 0;
  /// Call when fd() is readable and once per tick (restarts and time-outs are looked at here).
  virtual void dispatch() = 0;

  /// Reads the mappings of a process now, so that its names survive its exit. Call when attaching and after an exec.
  /// `pid_in_ns` is the pid that the daemon's own /proc shows. Repeated calls for a known image cost nothing.
  virtual void learn(const ProcessKey& process, int32_t pid_in_ns, ExecId exec) = 0;
  /// Asks for the names of a stack; the answer comes through take_named(). Implies learn() of `stack.exec`.
  /// False where too many stacks are waiting: nothing was taken on, ask again later or count it as kNamesLate.
  [[nodiscard]] virtual bool request(const ProcessKey& process, int32_t pid_in_ns, StackHash hash,
                                     const RawStack& stack) = 0;
  /// Drops everything about a process: mappings, stacks that wait, answers that were not taken.
  virtual void forget(const ProcessKey& process) = 0;

  /// The stacks that were named since the last call.
  [[nodiscard]] virtual std::vector<NamedStack> take_named() = 0;
  /// `/src/dict.c:512` for a number in NamedStack::places; empty where it is not known. Numbers stay valid.
  [[nodiscard]] virtual std::string_view place(uint32_t /*id*/) const { return {}; }
  /// What a person should know, each once: the worker died, kernel addresses are hidden, … The caller logs it.
  [[nodiscard]] virtual std::vector<Error> take_events() = 0;
  /// Stacks requested and not yet to be had from take_named().
  [[nodiscard]] virtual size_t pending() const = 0;
  /// The worker process; 0 where none runs at the moment.
  [[nodiscard]] virtual pid_t worker_pid() const = 0;
  [[nodiscard]] virtual NamerStats stats() const = 0;
};

struct NamerOptions {
  std::string worker_program;       ///< path of stackwatch-symbols; empty means default_symbol_worker()
  std::string proc_root = "/proc";  ///< other in tests
};

/// The worker beside the running program (a build tree), else the installed one.
[[nodiscard]] std::string default_symbol_worker();

/// The real one. `functions` and `clock` outlive it. Must be made, used and destroyed on the same thread: the worker
/// dies with the thread that started it. A worker that cannot be started is an event, not an error: names then are
/// fallback names, and it is tried again.
[[nodiscard]] Result<std::unique_ptr<StackNamer>> make_namer(FunctionTable& functions, const Clock& clock,
                                                             NamerOptions options = {});

}  // namespace stackwatch
