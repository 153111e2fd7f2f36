// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/probe_kind.h"
#include "core/result.h"

namespace stackwatch {

/// What one detector of a service's process had learned: a part of the service's blob in the store.
struct LearnedPart {
  ProbeKind probe = ProbeKind::kOnCpu;
  std::string_view detector;
  std::string_view saved;  ///< Detector::save()
  bool operator==(const LearnedPart&) const = default;
};

/// Of the form below, kept beside the blob; what a detector saves has a version of its own.
constexpr int64_t kBaselineBlobVersion = 1;
/// Six probes with ten detectors each, at most: more is damage.
constexpr size_t kMaxLearnedParts = 60;

/// For each part the names of probe and detector, and what was saved: each a length (32 bits, little-endian) and bytes.
[[nodiscard]] std::vector<std::byte> encode_learned(std::span<const LearnedPart> parts);
/// The parts, which point into `blob`. Error: cut off, too many parts, or a probe that nobody knows.
[[nodiscard]] Result<std::vector<LearnedPart>> decode_learned(std::span<const std::byte> blob);

}  // namespace stackwatch
