// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <string>

#include "cli/count.h"
#include "cli/count_arguments.h"
#include "cli/output.h"
#include "cli/standalone.h"

namespace stackwatch {

int run_standalone(int argc, const char* const* argv) {
  // Whether we inherited it ignored or not, a closed pipe shows as an error of write().
  const bool pipe_ignored = std::signal(SIGPIPE, SIG_IGN) == SIG_IGN;
  const SystemClock clock;
  const Result<CountInvocation> invocation = parse_count(argc, argv);
  if (!invocation) return report_error(invocation.error());
  if (!invocation->options) {
    const Result<void> printed = write_output(STDOUT_FILENO, invocation->text);
    return printed ? 0 : report_error(printed.error());
  }
  const Result<int> code = run_count(*invocation->options, pipe_ignored, clock);
  return code ? *code : report_error(code.error());
}

}  // namespace stackwatch
