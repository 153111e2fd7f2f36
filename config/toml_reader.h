// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

#include "config/problems.h"
#include "config/tree.h"

namespace stackwatch {

/// More parts in one dotted key are refused before the TOML library sees them: it makes a table of each and takes them
/// down recursively, which overflows the stack at some 100,000. No key of ours has more than three.
inline constexpr size_t kMaxKeyParts = 16;

/// The root table of a TOML document. Outside of strings and comments it must be ASCII, as TOML 1.0 wants. What is
/// wrong goes to `problems`; what is returned then is empty.
[[nodiscard]] TreeTable read_toml(std::string_view text, Problems& problems);

}  // namespace stackwatch
