// SPDX-License-Identifier: Apache-2.0
// The client's half: which verbs these are, and how to get to their program.
#include "cli/standalone.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace stackwatch {
namespace {

constexpr std::array<StandaloneVerb, 6> kVerbs = {{
    {"count", "Count in processes or in a command, by call stack, without a daemon"},
    {"record", "Write what processes or a command do into a capture"},
    {"replay", nullptr},
    {"import", nullptr},
    {"doctor", nullptr},
    {"detect", nullptr},
}};

}  // namespace

std::span<const StandaloneVerb> standalone_verbs() { return kVerbs; }

bool is_standalone(std::string_view verb) {
  return std::ranges::any_of(kVerbs, [verb](const StandaloneVerb& known) { return known.name == verb; });
}

std::string default_standalone_program() {
  constexpr const char* kProgram = "/stackwatch-standalone";
  std::array<char, 4096> self{};
  const ssize_t length = readlink("/proc/self/exe", self.data(), self.size());
  if (length > 0 && static_cast<size_t>(length) < self.size()) {
    const std::string path(self.data(), static_cast<size_t>(length));
    const std::string beside = path.substr(0, path.rfind('/')) + kProgram;
    // With the rights that we have: access() asks with those of the user, without ambient capabilities.
    if (faccessat(AT_FDCWD, beside.c_str(), X_OK, AT_EACCESS) == 0) return beside;
  }
  return std::string(STACKWATCH_LIBEXEC_DIR) + kProgram;
}

Failure become_standalone(const char* const* argv) {
  const std::string program = default_standalone_program();
  execv(program.c_str(), const_cast<char* const*>(argv));  // execv() writes none of them
  return fail_errno("run " + program, errno, "it belongs to stackwatch: install it again");
}

}  // namespace stackwatch
