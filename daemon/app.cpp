// SPDX-License-Identifier: Apache-2.0
#include "daemon/app.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <spdlog/logger.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "bpf/bpf_census.h"
#include "bpf/exec_events.h"
#include "bpf/off_cpu_engine.h"
#include "bpf/sampling_engine.h"
#include "config/load.h"
#include "daemon/alerting/console_sink.h"
#include "daemon/alerting/journal_sink.h"
#include "daemon/control/server.h"
#include "daemon/daemon.h"
#include "daemon/detector_schema.h"
#include "daemon/event_loop.h"
#include "daemon/log.h"
#include "daemon/memory_probe.h"
#include "daemon/proc_census.h"
#include "daemon/state/saved_state.h"
#include "daemon/unwinding.h"

namespace stackwatch {
namespace {

Result<Config> load(const AppOptions& options) {
  const ConfigFiles files = options.config_file.empty() ? ConfigFiles{} : ConfigFiles::of(options.config_file);
  return load_config(files, detector_schemas());
}

std::optional<unsigned> allowed_cpus(int32_t pid_in_ns) {
  cpu_set_t cpus;
  if (pid_in_ns <= 0 || sched_getaffinity(pid_in_ns, sizeof cpus, &cpus) != 0) return std::nullopt;
  return static_cast<unsigned>(CPU_COUNT(&cpus));
}

// The loop takes these from a signalfd; every thread inherits the mask.
void block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

/// The parts that a running daemon is made of, in the order in which each needs the one before.
class App {
 public:
  App(AppOptions options, Config config) : options_(std::move(options)), config_(std::move(config)) {}

  Result<void> start();
  Result<void> run();

 private:
  Result<void> make_engines();
  void prepare_engines();
  [[nodiscard]] std::vector<ProbeEngine*> engines() const;
  Result<void> start_control();
  Result<void> start_sinks();
  Result<void> start_loop();
  Result<void> start_ticks();
  Result<void> start_exec_events();
  void follow_rules();
  void on_execs();
  void attach_new();
  void tick(uint64_t missed);
  void reload();
  void stop(const char* why);
  std::optional<Error> ended_;  // why it ends by itself

  AppOptions options_;
  Config config_;
  std::shared_ptr<spdlog::logger> log_ = make_log(options_.foreground);
  SystemClock clock_;
  Procfs procfs_;
  FunctionTable functions_;
  std::unique_ptr<Census> census_;
  std::unique_ptr<ExecEvents> execs_;
  uint64_t attached_new_ns_ = 0;
  bool attach_waits_ = false;
  std::vector<std::unique_ptr<ProbeEngine>> engines_;
  std::shared_ptr<Unwinding> unwinding_;
  MemoryProbeEngine* memory_ = nullptr;  // one of them
  std::unique_ptr<StackNamer> namer_;
  std::unique_ptr<Attachments> attachments_;
  std::unique_ptr<LiveSource> source_;
  std::unique_ptr<Detection> detection_;
  std::unique_ptr<AlertPolicy> policy_;
  std::unique_ptr<Pipeline> pipeline_;
  std::unique_ptr<JournalSink> journal_;
  std::unique_ptr<SavedState> state_;  // before the journal at the end: it has last words for it
  std::unique_ptr<ConsoleSink> console_;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<ControlServer> control_;
  std::string last_summary_;
  uint64_t ticks_since_summary_ = 0;
  bool watchdog_ = false;
  bool ready_ = false;
};

Result<void> App::start() {
  auto loop = EventLoop::create();
  if (!loop) return Failure(loop.error());
  loop_ = std::make_unique<EventLoop>(std::move(*loop));

  if (auto engines = make_engines(); !engines) return engines;
  auto census = make_bpf_census([this](int32_t pid) { return procfs_.cgroup(pid); });
  std::string census_problem;
  if (census) {
    census_ = std::move(*census);
  } else {
    census_problem = census.error().message() + "; processes are read from /proc, at some forty times the cost";
    census_ = make_proc_census(procfs_);
  }
  auto namer = make_namer(functions_, clock_);
  if (!namer) return Failure(namer.error());
  namer_ = std::move(*namer);

  attachments_ = std::make_unique<Attachments>(engines(), *namer_, functions_, clock_, AttachmentLimits{});
  Entitlement entitlement(std::max(1U, std::thread::hardware_concurrency()),
                          {CgroupFiles("/sys/fs/cgroup"), allowed_cpus});
  source_ = std::make_unique<LiveSource>(LiveSource::Parts{*census_, *attachments_, procfs_, std::move(entitlement)},
                                         clock_, config_);
  detection_ = std::make_unique<Detection>(detection_policy(config_), detector_settings(config_));
  policy_ = std::make_unique<AlertPolicy>(
      alert_policy_options(config_), clock_, random_alert_ids(),
      AlertContext{[this](const ProcessKey& process) { return source_->identify(process); },
                   [this](const ProcessKey& process, ProbeKind probe) { return source_->losses(process, probe); },
                   [this](const ProcessKey& process, ProbeKind probe, std::string_view detector) {
                     return detection_->remembers(process, probe, detector);
                   },
                   [this](const ProcessKey& process, ProbeKind probe, std::string_view detector) {
                     return detection_->remembers_each(process, probe, detector);
                   }});
  pipeline_ = std::make_unique<Pipeline>(*source_, *detection_, *policy_);
  daemon_ = std::make_unique<Daemon>(Daemon::Parts{clock_, *census_, engines(), *namer_, functions_, *attachments_,
                                                   *source_, *detection_, *policy_, *pipeline_, *log_, procfs_},
                                     config_);
  // The socket first: it tells whether another daemon runs, and then nothing else is to be told.
  if (auto control = start_control(); !control) return control;
  if (!census_problem.empty()) daemon_->warn(census_problem);
  daemon_->warn_about(config_);
  if (auto sinks = start_sinks(); !sinks) return sinks;
  prepare_engines();
  return start_loop();
}

// What the service manager keeps for us; the unit's ExecStartPre= gave it. Nothing where we were started by hand.
std::vector<NamedDescriptor> passed_descriptors() {
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(1, &names);
  std::vector<NamedDescriptor> passed;
  for (int i = 0; i < count; ++i) {
    passed.emplace_back(names == nullptr ? "" : names[i], UniqueFd(SD_LISTEN_FDS_START + i));
    if (names != nullptr) free(names[i]);
  }
  free(names);
  return passed;
}

Result<void> App::make_engines() {
  auto unwinding = Unwinding::create(clock_);
  if (!unwinding) return Failure(unwinding.error());
  unwinding_ = std::move(*unwinding);
  const auto& unwind_maps = unwinding_->maps();
  GivenEvents given = sort_given_events(passed_descriptors());
  auto on_cpu = make_on_cpu_engine(clock_, {}, unwind_maps, std::move(given.clock));
  if (!on_cpu) return Failure(on_cpu.error());
  // It is collected at each tick, and its costs are those of all.
  engines_.push_back(make_unwinding_engine(clock_, std::move(*on_cpu), unwinding_));
  auto page_fault = make_page_fault_engine(clock_, kPageFaultLimits, unwind_maps, std::move(given.page_faults));
  if (!page_fault) return Failure(page_fault.error());
  engines_.push_back(std::move(*page_fault));
  auto off_cpu = make_off_cpu_engine(clock_, {}, unwind_maps);
  if (!off_cpu) return Failure(off_cpu.error());
  engines_.push_back(std::move(*off_cpu));
  MemoryLimits memory_limits;
  memory_limits.overhead_percent = config_.limits.overhead_percent_per_process;
  auto memory = make_memory_probe_engine(clock_, memory_limits, unwind_maps);
  if (!memory) return Failure(memory.error());
  memory_ = memory->get();
  engines_.push_back(std::move(*memory));
  return {};
}

// What the rules ask for is loaded before the loop runs, so that their processes are counted from the first tick on;
// what else somebody asks for later, beside it. Where it fails nobody may ever need it; whoever does is told then.
void App::prepare_engines() {
  for (ProbeEngine* engine : engines()) {
    const auto counts = [&](ProbeKind kind) {
      return std::ranges::find(engine->kinds(), kind) != engine->kinds().end();
    };
    const bool wanted = std::ranges::any_of(
        config_.watch, [&](const WatchRule& rule) { return std::ranges::any_of(rule.probes, counts); });
    if (wanted) static_cast<void>(engine->prepare());
  }
  attachments_->set_load_beside();
}

std::vector<ProbeEngine*> App::engines() const {
  std::vector<ProbeEngine*> all;
  for (const auto& engine : engines_) all.push_back(engine.get());
  return all;
}

Result<void> App::start_sinks() {
  JournalSinkOptions journal_options;
  journal_options.object_pid = geteuid() == 0;
  auto journal = JournalSink::create(journal_options);
  if (!journal) return Failure(journal.error());
  journal_ = std::move(*journal);
  auto state =
      SavedState::open(options_.state_dir, config_.limits, {clock_, *policy_, *detection_, *journal_, procfs_});
  if (!state) return Failure(state.error());
  state_ = std::move(*state);
  source_->watch_again(state_->to_watch_again());
  daemon_->set_state(state_.get());
  if (!journal_->available()) {
    daemon_->warn("there is no journal (" + journal_options.socket_path + "): alerts are kept until there is one");
  }
  pipeline_->add_sink(state_->sink(), journal_->available());
  if (options_.foreground) {
    console_ = std::make_unique<ConsoleSink>(STDOUT_FILENO, wants_colour(STDOUT_FILENO));
    pipeline_->add_sink(*console_);
  }
  return {};
}

Result<void> App::start_control() {
  ControlOptions control_options;
  control_options.path = options_.socket_path;
  auto control = ControlServer::start(loop_->get(), *daemon_, control_options);
  if (!control) return Failure(control.error());
  control_ = std::move(*control);
  daemon_->set_on_alert([this](const Alert& alert) { control_->broadcast(alert); });
  return {};
}

Result<void> App::start_loop() {
  for (const int signal : {SIGTERM, SIGINT}) {
    auto added = loop_->on_signal(signal, [this, signal] { stop(signal == SIGTERM ? "SIGTERM" : "SIGINT"); });
    if (!added) return added;
  }
  if (auto added = loop_->on_signal(SIGHUP, [this] { reload(); }); !added) return added;
  for (ProbeEngine* engine : engines()) {
    const auto drain = [this, engine] {
      engine->drain();
      attachments_->attach_loaded();
    };
    if (auto added = loop_->on_readable(engine->poll_fd(), drain); !added) return added;
  }
  for (const int fd : {unwinding_->fd(), unwinding_->maps()->wanted_fd()}) {
    if (auto added = loop_->on_readable(fd, [this] { unwinding_->dispatch(); }); !added) return added;
  }
  if (auto added = loop_->on_readable(namer_->fd(), [this] { namer_->dispatch(); }); !added) return added;

  if (auto started = start_exec_events(); !started) daemon_->warn(started.error().message());
  return start_ticks();
}

// Without them a process that a rule names is attached at the next tick.
Result<void> App::start_exec_events() {
  auto execs = make_exec_events();
  if (!execs) return Failure(execs.error());
  if (auto added = loop_->on_readable((*execs)->fd(), [this] { on_execs(); }); !added) return added;
  execs_ = std::move(*execs);
  daemon_->set_on_rules([this] { follow_rules(); });
  follow_rules();
  return {};
}

// Where there are no rules nobody needs to know of execs.
void App::follow_rules() {
  if (auto switched = execs_->switch_on(source_->has_rules()); !switched) daemon_->warn(switched.error().message());
}

// A process that a rule may want is looked at right away; in a storm of them so seldom that it costs at most one part
// in kAttachPause of a core.
void App::on_execs() {
  constexpr uint64_t kAttachPause = 50;
  constexpr uint64_t kLeastPauseNs = 20'000'000;
  bool wanted = false;
  execs_->drain([&](std::string_view comm) { wanted = wanted || source_->may_want(comm); });
  if (!wanted || attach_waits_) return;
  const auto pause_ns = std::max(kLeastPauseNs, static_cast<uint64_t>(source_->census_ms() * 1e6) * kAttachPause);
  const uint64_t due_ns = attached_new_ns_ + pause_ns;
  const uint64_t now_ns = clock_.monotonic_ns();
  if (now_ns >= due_ns) {
    attach_new();
  } else {
    attach_waits_ = loop_->once((due_ns - now_ns) / 1000, [this] { attach_new(); }).has_value();
  }
}

void App::attach_new() {
  attach_waits_ = false;
  attached_new_ns_ = clock_.monotonic_ns();
  constexpr uint64_t kBetweenSlicesUs = 1000;
  // What fails here is told at the next tick, which does the same.
  const auto more = source_->attach_new();
  if (more && *more) attach_waits_ = loop_->once(kBetweenSlicesUs, [this] { attach_new(); }).has_value();
}

// The service manager must not take the pause between two long ticks for a hang.
Result<void> App::start_ticks() {
  const auto tick_us = static_cast<uint64_t>(config_.tick_s * 1e6);
  uint64_t watchdog_us = 0;
  watchdog_ = sd_watchdog_enabled(0, &watchdog_us) > 0;
  if (watchdog_) {
    sd_notifyf(0, "WATCHDOG_USEC=%lu", static_cast<unsigned long>(std::max(watchdog_us, 4 * tick_us)));
  }
  return loop_->every(tick_us, [this](uint64_t missed) { tick(missed); });
}

Result<void> App::run() {
  log_->info("stackwatchd {} watches {} rules; control socket {}", STACKWATCH_VERSION, config_.watch.size(),
             options_.socket_path);
  tick(0);
  auto done = loop_->run();
  sd_notify(0, "STOPPING=1");
  return ended_ ? Failure(*ended_) : done;
}

// The watchdog hears of completed ticks only: a daemon that answers but does not look is stuck.
void App::tick(uint64_t missed) {
  const bool done = daemon_->tick(missed);
  if (std::ranges::any_of(engines(), &ProbeEngine::wants_restart)) {
    ended_ = fail("sample all CPUs",
                  "a CPU was offline, the events that were opened for us ended with it, and new ones are refused",
                  "a new start brings new ones: the service manager sees to it")
                 .value();
    loop_->stop();
  }
  if (!done) return;
  if (watchdog_) sd_notify(0, "WATCHDOG=1");
  if (!ready_) sd_notify(0, "READY=1");
  ready_ = true;
  constexpr uint64_t kSummaryTicks = 5;
  if (++ticks_since_summary_ < kSummaryTicks && !last_summary_.empty()) return;
  ticks_since_summary_ = 0;
  if (std::string summary = daemon_->summary(); summary != last_summary_) {
    sd_notifyf(0, "STATUS=%s", summary.c_str());
    last_summary_ = std::move(summary);
  }
}

void App::reload() {
  sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lu", static_cast<unsigned long>(clock_.monotonic_ns() / 1000));
  auto config = load(options_);
  if (!config) {
    log_->error("the old configuration stays in force: {}", config.error().message());
  } else {
    const bool tick_changed = config->tick_s != config_.tick_s;
    config_ = std::move(*config);
    daemon_->reconfigure(config_);
    memory_->set_overhead_limit(config_.limits.overhead_percent_per_process);
    if (tick_changed) {
      auto started = start_ticks();
      if (!started) log_->error("{}", started.error().message());
    }
    log_->info("reloaded: {} watch rules", config_.watch.size());
  }
  sd_notify(0, "READY=1");
}

void App::stop(const char* why) {
  log_->info("{}: stopping", why);
  loop_->stop();
}

}  // namespace

Result<void> check_configuration(const AppOptions& options) {
  auto config = load(options);
  if (!config) return Failure(config.error());
  for (const std::string& warning : config->warnings)
    std::fprintf(stderr, "stackwatchd: warning: %s\n", warning.c_str());
  return {};
}

Result<void> run_daemon(const AppOptions& options) {
  block_signals();
  auto config = load(options);
  if (!config) return Failure(config.error());
  App app(options, std::move(*config));
  if (auto started = app.start(); !started) return started;
  return app.run();
}

}  // namespace stackwatch
