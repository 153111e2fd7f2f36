// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "config/config.h"
#include "config/rule.h"
#include "core/result.h"

namespace stackwatch {

inline constexpr char kDefaultConfigFile[] = "/etc/stackwatch/stackwatch.toml";

/// Larger files are refused: kMaxWatchRules rules are a third of it, and the worst that can be written into it takes
/// half a second to refuse, in which a reload holds up a tick.
inline constexpr size_t kMaxConfigFileBytes = 256 * 1024;
/// Every process that starts is compared with every rule.
inline constexpr size_t kMaxWatchRules = 1024;
/// With kMaxConfigFileBytes it bounds the memory and the time of a reload.
inline constexpr size_t kMaxDropins = 256;

struct ConfigFiles {
  std::string main = kDefaultConfigFile;
  /// Its `*.toml` are applied after `main`, in byte order of their names; hidden files are left out. Need not exist.
  std::string dropin_dir = std::string(kDefaultConfigFile) + ".d";
  /// The user named `main`: it must exist. Otherwise a missing file means the built-in defaults, and a warning.
  bool main_required = false;

  /// What `--config FILE` means: FILE, which must exist, and FILE.d.
  [[nodiscard]] static ConfigFiles of(std::string file);
};

/// Reads and checks all files. In a later file scalars override, tables merge and `[[watch]]` appends.
/// All errors are of kind kUsage: what is "FILE:LINE:COLUMN" (or the file alone where it cannot be read), why is the
/// first problem, the hint tells what to write instead and how many more problems there are.
[[nodiscard]] Result<Config> load_config(const ConfigFiles& files, std::span<const DetectorSchema> detectors = {});

/// The same for one text. `name` stands for the file in errors and in WatchRule::source.
[[nodiscard]] Result<Config> parse_config(std::string_view text, std::string_view name,
                                          std::span<const DetectorSchema> detectors = {});

}  // namespace stackwatch
