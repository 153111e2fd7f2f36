// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/ids.h"
#include "core/probe_kind.h"

namespace stackwatch {

/// A function whose value changed together with the one that a finding names.
struct Contributor {
  FunctionId frame;
  double before = 0;  ///< in the finding's unit
  double after = 0;
};

/// Cost that only moved: nothing takes more than before, but it has another name or another caller.
struct CostShift {
  enum class Kind : uint8_t {
    kRenamed,   ///< `from` vanished, `to` takes as much in its place
    kInlined,   ///< `from` vanished, its caller `to` takes as much more by itself
    kOutlined,  ///< the other way round: what `from` did by itself its new callee `to` does
    kMoved,     ///< `what` is called by `to` instead of `from`
  };
  Kind kind = Kind::kRenamed;
  std::optional<FunctionId> from;
  std::optional<FunctionId> to;
  std::optional<FunctionId> under;  ///< renamed: the caller; none where they are roots
  std::optional<FunctionId> what;   ///< moved
  bool certain = true;  ///< false: more than half as much more or less would look alike; further samples will tell
};

/// One detector's claim at one tick: this stream of this process is not what it was.
struct Finding {
  std::string_view detector;  ///< name of the detector; static storage
  ProbeKind probe = ProbeKind::kOnCpu;
  std::optional<FunctionId> frame;        ///< the guilty function; none where the claim is about the whole process
  bool calls_kernel = false;              ///< `frame` is named for the kernel's entry, which it called for the change
  std::optional<StackId> stack;           ///< the stack that changed most among those that contain `frame`
  double before = 0;                      ///< baseline value of the stream
  double after = 0;                       ///< its value since the onset
  std::string_view unit_of_measure;       ///< "share of samples", "cores", …; static storage
  double change_cores = 0;                ///< after - before, in CPU cores (0 where the probe is no CPU time)
  double onset_s = 0;                     ///< most likely time of the change; same time line as NamedDelta::time_s
  double score = 0;                       ///< natural logarithm of the evidence for a change against none
  double threshold = 0;                   ///< the score that the false-alarm budget asks for
  uint32_t growths = 0;                   ///< how often it became larger by a further change, each worth telling
  std::optional<CostShift> shift;         ///< the change is no more than this
  std::vector<Contributor> contributors;  ///< other functions that changed significantly, largest change first
};

}  // namespace stackwatch
