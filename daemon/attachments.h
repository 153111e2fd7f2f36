// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/alert.h"
#include "core/clock.h"
#include "core/delta.h"
#include "core/probe.h"
#include "core/result.h"
#include "daemon/status.h"
#include "symbols/namer.h"

namespace stackwatch {

/// Why a process is attached.
struct AttachReason {
  enum class Kind { kRule, kSuspect, kChild, kSurvey };
  Kind kind = Kind::kSuspect;
  std::string rule;  ///< id of the watch rule; of the ancestor's where kChild
  std::string text;  ///< for people
};

/// What is wanted of one process.
struct AttachOrder {
  ProcessKey process;
  std::vector<ProbeKind> probes;
  ProbeOptions options;
  AttachReason reason;
  bool counted_before = false;  ///< the kernel side counts it already: its CPU time since then is not known
};

struct AttachmentLimits {
  size_t attachments = 256;
  size_t stacks_per_process = StackTable::kDefaultCapacity;
};

/// The probes on all attached processes, and the way of a count from stacks of addresses to stacks of functions.
/// A delta is handed out when all its stacks have names, or kNamesDeadlineS after it was taken; deltas of one probe
/// never overtake each other. One thread.
class Attachments {
 public:
  using Engines = std::vector<ProbeEngine*>;

  /// Names that take longer are not waited for: the worker may be restarted once and parse a large binary meanwhile.
  static constexpr double kNamesDeadlineS = 5;
  /// How far back `stackwatch stacks` sees. 15 minutes of 200 samples a second are 180,000 values.
  static constexpr double kHistoryS = 900;
  /// Values (stack and count, 8 bytes) kept for that on the whole host: 8 MB, shared evenly among the attachments …
  static constexpr size_t kHistoryValues = 1'000'000;
  /// … but never less than this for each: ten seconds of a process that fills a CPU with stacks that differ.
  static constexpr size_t kMinHistoryValues = 1000;

  /// Everything handed in outlives this.
  Attachments(Engines engines, StackNamer& namer, FunctionTable& functions, const Clock& clock,
              AttachmentLimits limits);
  ~Attachments();

  void set_limits(const AttachmentLimits& limits) { limits_ = limits; }
  /// From now on programs are loaded beside: a probe whose program is not there yet is attached by attach_loaded(), and
  /// attach() has not failed then, whatever comes of it.
  void set_load_beside() { load_beside_ = true; }
  /// Attaches the probes whose programs are there by now. One that fails is told in the row and by problem().
  void attach_loaded();

  /// Attaches, or changes the probes, the options and the reason of what is attached: counts and names are kept then,
  /// and the old options stay in force where the new ones are refused. Not while full(), but for what is attached
  /// already. A probe that cannot be attached is left out and told in the row, as long as another one can.
  /// Errors: none of the probes has an engine, the kernel refuses all of them.
  [[nodiscard]] Result<void> attach(const ProcessIdentity& identity, const ProcessSample& sample,
                                    const AttachOrder& order);
  /// Marks for removal; its last delta is in the next batch that take() fills.
  void end(const ProcessKey& process, bool exited);
  /// The process executes another program now: its name changes and its mappings are read anew.
  void replace_program(const ProcessIdentity& identity, ExecId exec);
  /// Path of its program, where it was not known when it was attached.
  void set_exe(const ProcessKey& process, std::string exe);
  [[nodiscard]] std::optional<ExecId> exec(const ProcessKey& process) const;
  [[nodiscard]] bool contains(const ProcessKey& process) const;
  /// These three know attachments that ended in the last take() too.
  [[nodiscard]] const AttachReason* reason(const ProcessKey& process) const;
  [[nodiscard]] const ProbeOptions* options(const ProcessKey& process) const;
  /// Those that were ordered, whether each could be attached or not.
  [[nodiscard]] std::vector<ProbeKind> probes(const ProcessKey& process) const;

  /// Takes the counts of all processes out of the kernel. `late` tells that ticks were missed before this one.
  [[nodiscard]] Result<void> collect(bool late);
  /// CPU time of an attached process as the census of this tick saw it; after collect(), before take().
  void set_on_cpu(const ProcessSample& sample);
  /// Takes what is named meanwhile. Pointers in the deltas are valid until the next take().
  struct Ready {
    std::vector<NamedDelta> deltas;
    std::vector<ProcessKey> exits;
    std::vector<ProcessKey> detached;
  };
  [[nodiscard]] Ready take();
  /// CLOCK_MONOTONIC of the oldest delta that waits for names; nothing where none does.
  [[nodiscard]] std::optional<uint64_t> oldest_waiting_ns() const;
  /// Processes that the kernel side attached by itself since the last call; older ones first: a parent that was adopted
  /// in the same tick must have its place before its children.
  [[nodiscard]] std::vector<ProbeEngine::Adopted> take_adopted();
  /// Gives up what was counted of it; counted as kWatchFull.
  void refuse(const ProcessKey& adopted);

  [[nodiscard]] bool has_engine(ProbeKind kind) const { return engine_of(kind) != nullptr; }
  [[nodiscard]] const FunctionTable& functions() const { return functions_; }
  /// Why a probe of an attached process is missing, one of them; empty where none is.
  [[nodiscard]] std::string problem() const;
  [[nodiscard]] size_t size() const { return attachments_.size(); }
  /// No place is left. One whose process has ended needs none, though it is here until its last counts are read: else
  /// programs that restart would find no room until the next tick. Nor does one whose probes were all refused when
  /// their programs were loaded: it is here to tell why. But never more than twice the limit in all.
  [[nodiscard]] bool full() const;
  /// Attached, and neither here for its last counts alone nor without any probe that works or is being loaded.
  [[nodiscard]] bool takes_place(const ProcessKey& process) const;
  [[nodiscard]] std::vector<ProcessKey> processes() const;
  [[nodiscard]] std::vector<AttachmentRow> rows() const;
  /// Of the process that has the most.
  [[nodiscard]] size_t most_stacks() const;
  [[nodiscard]] const ProcessIdentity* identity(const ProcessKey& process) const;
  [[nodiscard]] Losses losses(const ProcessKey& process, ProbeKind probe) const;
  /// Of all processes since the start, ended ones included.
  [[nodiscard]] const Losses& total_losses() const { return total_losses_; }
  /// The newest attachment of the pid (of the daemon's own namespace). Errors: kFailed where it is not attached, or
  /// not with this probe.
  [[nodiscard]] Result<StacksReport> stacks(int32_t pid_in_ns, ProbeKind probe, double since_s, bool series) const;

 private:
  struct Step;
  struct AttachedProbe;
  struct Attachment;

  [[nodiscard]] const Attachment* find(const ProcessKey& process) const;
  [[nodiscard]] Result<void> change(Attachment& attachment, const AttachOrder& order);
  [[nodiscard]] ProbeEngine* engine_of(ProbeKind kind) const;
  [[nodiscard]] static Result<void> change_options(Attachment& attachment, const ProbeOptions& options);
  [[nodiscard]] Result<void> attach_probes(Attachment& attachment, const std::vector<ProbeKind>& kinds);
  void ask(Attachment& attachment, StackDelta::NewStack&& stack);
  [[nodiscard]] bool is_full(const Attachment& attachment) const;
  void read_probe(Attachment& attachment, AttachedProbe& probe, bool late);
  void take_names();
  [[nodiscard]] bool is_named(const Attachment& attachment, const StackDelta& delta) const;
  [[nodiscard]] NamedDelta name(Attachment& attachment, AttachedProbe& probe, const StackDelta& delta);
  void remember(AttachedProbe& probe, const NamedDelta& delta);
  void account(AttachedProbe& probe, const Losses& lost);

  Engines engines_;
  StackNamer& namer_;
  FunctionTable& functions_;
  const Clock& clock_;
  AttachmentLimits limits_;
  std::unordered_map<ProcessKey, std::unique_ptr<Attachment>> attachments_;
  std::vector<std::unique_ptr<Attachment>> ended_;  // kept until the deltas that point to them are used
  Losses total_losses_;
  bool load_beside_ = false;
};

}  // namespace stackwatch
