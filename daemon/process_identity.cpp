// SPDX-License-Identifier: Apache-2.0
#include "daemon/process_identity.h"

#include <string>

#include "config/match.h"

namespace stackwatch {

ProcessIdentity identity_in_census(const ProcessSample& sample) {
  ProcessIdentity identity;
  identity.key = sample.key;
  identity.pid_in_ns = sample.pid_in_ns;
  identity.comm = sample.comm;
  identity.cgroup = sample.cgroup;
  identity.unit = std::string(unit_of_cgroup(sample.cgroup));
  return identity;
}

ProcessIdentity identity_of(const ProcessSample& sample, const Procfs& procfs) {
  ProcessIdentity identity = identity_in_census(sample);
  if (sample.pid_in_ns > 0) identity.exe = procfs.exe(sample.pid_in_ns).value_or("");
  return identity;
}

}  // namespace stackwatch
