// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "core/finding.h"
#include "core/stacks.h"
#include "daemon/alerting/alert_record.h"

namespace stackwatch {

/// How a finding relates to an alert of the same probe of the same process. Later ones are closer.
enum class Kinship {
  kNone,       ///< another cause
  kSameEvent,  ///< onsets overlap, and: one of them is about the whole process, or each knows the other as a
               ///< contributor, or one share grew while the other shrank (the mirror image: shares add up to 1)
  kSameStack,  ///< same direction, and one's function is a caller of the other's
  kSame,       ///< same function (or both the whole process), same direction
};

[[nodiscard]] Kinship kinship(const AlertRecord& record, const Finding& finding, std::span<const FunctionId> stack,
                              double onset_overlap_s);

/// Whether a finding that is about another function says that the alert's own still stands.
[[nodiscard]] bool mentions(const Finding& finding, const AlertRecord& record);

/// Which of two findings that mean one event names it: the one with a function (composition before rate); of a share
/// that grew and one that shrank, the much larger or else the one that grew; else the one with more evidence.
[[nodiscard]] bool names_better(const Finding& a, const Finding& b);

/// The same between a finding and what the alert is about so far.
[[nodiscard]] bool names_better_than(const Finding& finding, const AlertRecord& record);

/// What a change is about, as an alert of it or of another probe of its processes told.
struct ToldCause {
  double change = 0;  ///< largest |after - before|
  std::string_view unit_of_measure;
};

/// Whether an alert, perhaps of another life of the service, had the cause of `fresh`: same process, or same exe, comm
/// and unit, or CPU time in a function of the kernel; same probe, frame, and direction, of the alert itself or of one
/// of its parts.
[[nodiscard]] std::optional<ToldCause> same_cause(const AlertRecord& old, const AlertRecord& fresh);

/// Whether another worker of the same service changed in the same way: with the same function (or its caller or
/// callee), probe, unit and direction. Likewise any other process whose CPU time changed in the same function of the
/// kernel: that is the machine. Says nothing about onsets.
[[nodiscard]] bool changed_alike(const AlertRecord& record, const AlertRecord& worker);

/// Whether two changes of one process that different probes show are one incident: the onsets overlap, and one of the
/// two is about the whole process and the resource may be the same, or one's function is on the other's stack.
[[nodiscard]] bool same_incident(const AlertRecord& record, const AlertRecord& other, double onset_overlap_s);

/// Makes `finding` what the alert is about: frame, stack, values, onset, contributors. `stacks` may be null where the
/// finding has no stack.
void take_over(AlertRecord& record, const Finding& finding, const StackTable* stacks, const FunctionTable& functions);

/// New values of the finding that the alert is about already; its frame and stack stay.
void refresh(AlertRecord& record, const Finding& finding, const FunctionTable& functions);

/// Adds another finding about the same event to the contributors. The whole process is called "[process, UNIT]".
void add_mention(AlertRecord& record, const Finding& finding, const FunctionTable& functions);

}  // namespace stackwatch
