// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/result.h"

namespace stackwatch {

/// What the command line of the daemon says.
struct AppOptions {
  std::string config_file;  ///< empty: the default file, which need not exist
  std::string socket_path;
  std::string state_dir;
  bool foreground = false;  ///< alerts go to standard output as well, and the log is for people
};

/// Reads and checks the configuration; tells its warnings on standard error. For --check-config.
[[nodiscard]] Result<void> check_configuration(const AppOptions& options);

/// Runs the daemon until it is told to stop. Here, and only here, the real parts are chosen.
/// Errors: the configuration (kUsage), the kernel or the privileges (kUnsupported), the socket (kFailed).
[[nodiscard]] Result<void> run_daemon(const AppOptions& options);

}  // namespace stackwatch
