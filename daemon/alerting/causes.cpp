// SPDX-License-Identifier: Apache-2.0
#include "daemon/alerting/causes.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "core/kernel_entry.h"

namespace stackwatch {
namespace {

/// What a person reads; the detectors give the largest first.
constexpr size_t kMaxContributors = 16;
/// A stack in an alert: the kernel side gives at most 127 user and 127 kernel frames (perf's limit).
constexpr size_t kMaxStackFrames = 256;
/// Two shares that mirror each other are never exactly as large; below this the one that grew is told.
constexpr double kMuchLarger = 1.25;
/// Where no such name is known: an entry and who looks up what it is about.
constexpr std::ptrdiff_t kUnknownEntries = 2;
/// From the start of the daemon to the first counts of a process whose alert stands, and some ticks for the estimate.
constexpr double kSeenAgainAfterRestartS = 60;

bool grows(const Finding& finding) { return finding.after >= finding.before; }

double size_of(const Finding& finding) { return std::abs(finding.after - finding.before); }

bool contains(std::span<const FunctionId> stack, FunctionId frame) {
  return std::ranges::find(stack, frame) != stack.end();
}

bool contributes(const Finding& finding, FunctionId frame) {
  return std::ranges::any_of(finding.contributors, [&](const Contributor& c) { return c.frame == frame; });
}

std::string name_of(const FunctionTable& functions, FunctionId id) {
  return id.value < functions.size() ? functions[id].name : std::string();
}

std::string_view kind_of(CostShift::Kind kind) {
  switch (kind) {
    case CostShift::Kind::kRenamed:
      return "renamed";
    case CostShift::Kind::kInlined:
      return "inlined";
    case CostShift::Kind::kOutlined:
      return "outlined";
    case CostShift::Kind::kMoved:
      break;
  }
  return "moved";
}

std::optional<Alert::Shift> shift_of(const Finding& finding, const FunctionTable& functions) {
  if (!finding.shift) return std::nullopt;
  const auto name = [&](const std::optional<FunctionId>& id) { return id ? name_of(functions, *id) : std::string(); };
  const CostShift& shift = *finding.shift;
  return Alert::Shift{std::string(kind_of(shift.kind)), name(shift.from), name(shift.to), name(shift.under),
                      name(shift.what)};
}

void set_values(AlertRecord& record, const Finding& finding, const FunctionTable& functions) {
  Alert& alert = record.alert;
  alert.before = finding.before;
  alert.after = finding.after;
  alert.change_cores = finding.change_cores;
  alert.score = finding.score;
  alert.shift = shift_of(finding, functions);
  record.onset_s = finding.onset_s;
  record.told_growths = std::min(record.told_growths, finding.growths);  // found anew, it begins at none
  record.growths = finding.growths;
  record.largest_change = std::max(record.largest_change, size_of(finding));
  record.companions.clear();
  alert.contributors.clear();
  for (const Contributor& c : finding.contributors) {
    if (alert.contributors.size() == kMaxContributors) break;
    if (c.frame == record.frame) continue;
    record.companions.push_back(c.frame);
    alert.contributors.push_back({name_of(functions, c.frame), c.before, c.after});
  }
}

/// Where an exe is not known (kernel threads, no privilege) a name alone is not enough to call two processes one
/// service. Control groups may differ: a unit's new run may have a new one.
bool is_successor(const ProcessIdentity& a, const ProcessIdentity& b) {
  return !a.exe.empty() && a.exe == b.exe && a.comm == b.comm && a.unit == b.unit;
}

bool is_called_in(const Alert& alert, const std::string& frame) {
  return std::ranges::find(alert.stack, frame) != alert.stack.end();
}

enum class Resource { kTime, kMemory, kFaults };

Resource resource_of(const Alert& alert) {
  const std::string& unit = alert.unit_of_measure;
  if (alert.probe == ProbeKind::kMemory || unit.starts_with("bytes of memory")) return Resource::kMemory;
  if (alert.probe == ProbeKind::kPageFault || unit.starts_with("faults")) return Resource::kFaults;
  return Resource::kTime;  // used, waited, switched, moved to and from a disk
}

/// Memory that is held and time that is spent go wrong for different reasons; either comes with page faults.
bool may_be_one_resource(const Alert& a, const Alert& b) {
  const Resource of_a = resource_of(a);
  const Resource of_b = resource_of(b);
  return of_a == of_b || of_a == Resource::kFaults || of_b == Resource::kFaults;
}

/// Whether a stack ends deeper in the kernel than where the program entered it, and than the first function behind,
/// which says what the program asks for.
bool is_deep_in_kernel(std::span<const std::string> stack) {
  const auto first = std::ranges::find_if(stack, is_in_kernel);
  const auto entries = std::find_if_not(first, stack.end(), is_kernel_entry) - first;
  return stack.end() - first > (entries > 0 ? entries : kUnknownEntries) + 1;
}

/// One kernel runs under all names: programs that know nothing of each other and change in the same function of it. Not
/// where they wait: every wait ends in the kernel, whatever is waited for. Nor where they enter it.
bool is_of_the_machine(const Alert& a, const Alert& b) {
  return a.probe == ProbeKind::kOnCpu && a.frame == b.frame && is_in_kernel(a.frame) && is_deep_in_kernel(a.stack);
}

/// Whether what began at `onset_s` began with the record's change. A detector that knows the past sees a change of
/// before a restart of the daemon again as one that began at the restart.
bool began_with(const AlertRecord& record, double onset_s, double onset_overlap_s) {
  const auto near = [&](double time_s, double within_s) { return std::abs(time_s - onset_s) <= within_s; };
  return near(record.onset_s, onset_overlap_s) ||
         (record.told_onset_s && near(*record.told_onset_s, onset_overlap_s)) ||
         (record.restored_s > 0 && near(record.restored_s, kSeenAgainAfterRestartS));
}

/// The part of a stack that ends in `frame`; the whole where there is none.
std::span<const FunctionId> down_to(std::span<const FunctionId> stack, const std::optional<FunctionId>& frame) {
  if (!frame) return stack;
  for (size_t i = stack.size(); i > 0; --i) {
    if (stack[i - 1] == *frame) return stack.first(i);
  }
  return {};
}

}  // namespace

Kinship kinship(const AlertRecord& record, const Finding& finding, std::span<const FunctionId> stack,
                double onset_overlap_s) {
  if (record.alert.probe != finding.probe) return Kinship::kNone;
  const bool overlap = std::abs(record.onset_s - finding.onset_s) <= onset_overlap_s;
  const bool same_direction = record.grows() == grows(finding);
  if (!record.frame && !finding.frame) {
    const bool same_series =
        record.alert.detector == finding.detector && record.alert.unit_of_measure == finding.unit_of_measure;
    if (same_direction && same_series) return Kinship::kSame;
    return overlap ? Kinship::kSameEvent : Kinship::kNone;
  }
  if (!record.frame || !finding.frame) return overlap ? Kinship::kSameEvent : Kinship::kNone;
  if (same_direction) {
    if (*record.frame == *finding.frame) return Kinship::kSame;
    if (contains(stack, *record.frame) || contains(record.stack, *finding.frame)) return Kinship::kSameStack;
    const bool known = contributes(finding, *record.frame) || contains(record.companions, *finding.frame);
    return overlap && known ? Kinship::kSameEvent : Kinship::kNone;
  }
  const bool mirror = finding.unit_of_measure.starts_with("share");
  return overlap && mirror ? Kinship::kSameEvent : Kinship::kNone;
}

bool mentions(const Finding& finding, const AlertRecord& record) {
  if (!record.frame || finding.unit_of_measure != record.alert.unit_of_measure) return false;
  return std::ranges::any_of(finding.contributors, [&](const Contributor& c) {
    return c.frame == *record.frame && (c.after >= c.before) == record.grows();
  });
}

bool names_better(const Finding& a, const Finding& b) {
  if (a.frame.has_value() != b.frame.has_value()) return a.frame.has_value();
  if (grows(a) == grows(b)) return a.score > b.score;
  const Finding& grown = grows(a) ? a : b;
  const Finding& shrunk = grows(a) ? b : a;
  const bool shrunk_names_it = size_of(shrunk) > kMuchLarger * size_of(grown);
  return (&a == &shrunk) == shrunk_names_it;
}

bool names_better_than(const Finding& finding, const AlertRecord& record) {
  Finding own;
  own.frame = record.frame;
  own.before = record.alert.before;
  own.after = record.alert.after;
  own.score = record.alert.score;
  return names_better(finding, own);
}

std::optional<ToldCause> same_cause(const AlertRecord& old, const AlertRecord& fresh) {
  const Alert& a = old.alert;
  const Alert& b = fresh.alert;
  const bool same_process = a.process.key == b.process.key || is_successor(a.process, b.process);
  if (!same_process && !is_of_the_machine(a, b)) return std::nullopt;
  const auto matches = [&](const auto& told) {
    return told.probe == b.probe && told.frame == b.frame &&
           (b.probe != ProbeKind::kCensus || told.unit_of_measure == b.unit_of_measure) &&
           (told.after >= told.before) == fresh.grows();
  };
  if (matches(a)) return ToldCause{old.largest_change, a.unit_of_measure};
  const auto part = std::ranges::find_if(a.parts, matches);
  if (part == a.parts.end()) return std::nullopt;
  return ToldCause{std::abs(part->after - part->before), part->unit_of_measure};
}

// Names, not ids: what an earlier daemon told has no ids here.
bool changed_alike(const AlertRecord& record, const AlertRecord& worker) {
  const Alert& a = record.alert;
  const Alert& b = worker.alert;
  if (a.process.key == b.process.key) return false;
  if (!same_service(a.process, b.process) && !is_of_the_machine(a, b)) return false;
  if (a.probe != b.probe || a.unit_of_measure != b.unit_of_measure || record.grows() != worker.grows()) return false;
  if (a.frame.empty() || b.frame.empty()) return a.frame == b.frame && a.detector == b.detector;
  return a.frame == b.frame || is_called_in(a, b.frame) || is_called_in(b, a.frame);
}

bool same_incident(const AlertRecord& record, const AlertRecord& other, double onset_overlap_s) {
  const Alert& a = record.alert;
  const Alert& b = other.alert;
  if (a.process.key != b.process.key || a.probe == b.probe || a.shift || b.shift) return false;
  if (!began_with(record, other.onset_s, onset_overlap_s)) return false;
  if (a.frame.empty() || b.frame.empty()) return may_be_one_resource(a, b);
  return is_called_in(a, b.frame) || is_called_in(b, a.frame);
}

void take_over(AlertRecord& record, const Finding& finding, const StackTable* stacks, const FunctionTable& functions) {
  Alert& alert = record.alert;
  record.frame = finding.frame;
  record.stack.clear();
  if (finding.stack && stacks != nullptr && finding.stack->value < stacks->size()) {
    const auto frames = (*stacks)[*finding.stack];
    record.stack.assign(frames.begin(), frames.end());
  }
  alert.detector = finding.detector;
  alert.unit_of_measure = finding.unit_of_measure;
  alert.frame = finding.frame ? name_of(functions, *finding.frame) : std::string();
  alert.stack.clear();
  for (const FunctionId id : down_to(record.stack, finding.frame)) {
    if (alert.stack.size() == kMaxStackFrames - 1) break;  // one is left for the frame itself
    alert.stack.push_back(name_of(functions, id));
  }
  // The contract: it ends in the frame, also where the detector gave no stack or one that is cut off above.
  if (finding.frame && (alert.stack.empty() || alert.stack.back() != alert.frame)) alert.stack.push_back(alert.frame);
  record.largest_change = 0;
  set_values(record, finding, functions);
}

void refresh(AlertRecord& record, const Finding& finding, const FunctionTable& functions) {
  set_values(record, finding, functions);
}

void add_mention(AlertRecord& record, const Finding& finding, const FunctionTable& functions) {
  auto& contributors = record.alert.contributors;
  Alert::Contributor mention{
      finding.frame ? name_of(functions, *finding.frame) : "[process, " + std::string(finding.unit_of_measure) + "]",
      finding.before, finding.after};
  const auto known = std::ranges::find(contributors, mention.frame, &Alert::Contributor::frame);
  if (known != contributors.end()) {
    *known = std::move(mention);
  } else {
    if (contributors.size() == kMaxContributors) contributors.pop_back();
    contributors.push_back(std::move(mention));
  }
  if (finding.frame && *finding.frame != record.frame && !contains(record.companions, *finding.frame) &&
      record.companions.size() < kMaxContributors)
    record.companions.push_back(*finding.frame);
}

}  // namespace stackwatch
