// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace stackwatch {

/// The name as it stands in the source: C++ (`_Z…`) with its parameters, Rust's older mangling (`_ZN…17h…E`) without
/// the hash, which changes with every build, and its newer one (`_R…`); `@plt` at their end stays. Everything
/// else, and what is longer than kMaxRawNameBytes or broken, is returned as it is.
[[nodiscard]] std::string demangle(const std::string& symbol);

}  // namespace stackwatch
