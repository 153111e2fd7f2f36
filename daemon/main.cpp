// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "daemon/app.h"
#include "daemon/control/interface.h"

namespace {

// What the service manager made for us goes before the path of a daemon started by hand.
std::string default_state_dir() {
  const char* given = std::getenv("STATE_DIRECTORY");
  const std::string_view list = given == nullptr ? "" : given;
  const std::string_view first = list.substr(0, list.find(':'));
  return first.empty() ? "/var/lib/stackwatch" : std::string(first);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace stackwatch;
  CLI::App cli{"Watches processes by their call stacks and tells in the journal what has changed."};
  cli.name("stackwatchd");
  AppOptions options;
  options.socket_path = std::string(kDefaultSocketPath);
  options.state_dir = default_state_dir();
  bool check_only = false;
  cli.add_option("--config", options.config_file, "Configuration file; FILE.d/*.toml are read after it")
      ->type_name("FILE");
  cli.add_option("--socket", options.socket_path, "Control socket")->type_name("PATH")->envname("STACKWATCH_SOCKET");
  cli.add_option("--state-dir", options.state_dir, "Where alerts and baselines are kept over restarts")
      ->type_name("DIR")
      ->capture_default_str();
  cli.add_flag("--foreground", options.foreground, "Tell alerts on standard output as well");
  cli.add_flag("--check-config", check_only, "Check the configuration and exit");
  cli.set_version_flag("--version", "stackwatchd " STACKWATCH_VERSION);
  cli.footer("Example: stackwatchd --config ./stackwatch.toml --socket /tmp/stackwatch.sock --foreground");
  try {
    cli.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return cli.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return cli.exit(version);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "stackwatchd: command line: %s (see stackwatchd --help)\n", error.what());
    return static_cast<int>(ErrorKind::kUsage);
  }
  const auto done = check_only ? check_configuration(options) : run_daemon(options);
  if (done) return 0;
  std::fprintf(stderr, "stackwatchd: %s\n", done.error().message().c_str());
  return done.error().exit_code();
}
