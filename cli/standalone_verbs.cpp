// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <csignal>
#include <string>
#include <string_view>

#include "cli/count.h"
#include "cli/count_arguments.h"
#include "cli/detect.h"
#include "cli/doctor.h"
#include "cli/import.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/record.h"
#include "cli/replay.h"
#include "cli/standalone.h"
#include "daemon/alerting/console_sink.h"

namespace stackwatch {

namespace {

int finish(const Result<void>& done) { return done ? 0 : report_error(done.error()); }

int print(const std::string& text) { return finish(write_output(STDOUT_FILENO, text)); }

int run_counting(int argc, const char* const* argv, bool pipe_ignored, const Clock& clock) {
  const Result<CountInvocation> invocation = parse_count(argc, argv);
  if (!invocation) return report_error(invocation.error());
  if (!invocation->options) return print(invocation->text);
  const Result<int> code = run_count(*invocation->options, pipe_ignored, clock);
  return code ? *code : report_error(code.error());
}

int run_recording(int argc, const char* const* argv, bool pipe_ignored, const Clock& clock) {
  const Result<RecordInvocation> invocation = parse_record(argc, argv);
  if (!invocation) return report_error(invocation.error());
  if (!invocation->options) return print(invocation->text);
  const Result<int> code = run_record(*invocation->options, pipe_ignored, clock);
  return code ? *code : report_error(code.error());
}

}  // namespace

int run_standalone(int argc, const char* const* argv) {
  // Whether we inherited it ignored or not, a closed pipe shows as an error of write().
  const bool pipe_ignored = std::signal(SIGPIPE, SIG_IGN) == SIG_IGN;
  const SystemClock clock;
  const std::string_view verb = argc > 1 ? argv[1] : "";
  if (verb == "count") return run_counting(argc, argv, pipe_ignored, clock);
  if (verb == "record") return run_recording(argc, argv, pipe_ignored, clock);
  const Result<Invocation> invocation = parse_options(argc, argv, clock);
  if (!invocation) return report_error(invocation.error());
  if (!invocation->options) return print(invocation->text);
  if (invocation->options->verb == Verb::kImport) return finish(run_import(*invocation->options));
  if (invocation->options->verb == Verb::kDoctor) {
    const Result<int> code = run_doctor(*invocation->options, clock);
    return code ? *code : report_error(code.error());
  }
  if (invocation->options->verb == Verb::kDetect) {
    return finish(run_detect(*invocation->options, STDIN_FILENO, STDOUT_FILENO));
  }
  if (invocation->options->verb == Verb::kReplay) {
    return finish(run_replay(*invocation->options, Style{wants_colour(STDOUT_FILENO)}));
  }
  return report_error(
      fail(ErrorKind::kUsage, std::string(verb), "this program does not have it", "run stackwatch").value());
}

}  // namespace stackwatch
