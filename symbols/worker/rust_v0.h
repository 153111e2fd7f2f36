// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace stackwatch {

/// A name in Rust's newer mangling (`_R…`, RFC 2603) as it stands in the source, without the hashes of crates, which
/// change with every build. Nothing where the name does not follow the grammar, or its text would be longer than
/// anybody reads: references back into the name can blow it up without end.
[[nodiscard]] std::optional<std::string> demangle_rust_v0(std::string_view symbol);

}  // namespace stackwatch
