// SPDX-License-Identifier: Apache-2.0
// Stacks that are hard to walk: through libraries that come and go, the vDSO, signal handlers.
#include "programs.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/time.h>

static const char kHelp[] =
    "frames plugins LIBRARY... | vdso | handler | handler-elsewhere\n"
    "Burns CPU until it is told to stop, and prints where its functions are: `function NAME START END`.\n"
    "  plugins            in `plugin_work` of each library in turn, loaded and unloaded; SIGUSR1: the next one. "
    "Before\n"
    "                     each, once its functions are printed: `phase N`\n"
    "  vdso               in clock_gettime of `ask_time`\n"
    "  handler            in `on_alarm`, a signal handler that interrupts `interrupted`\n"
    "  handler-elsewhere  the same on an alternate stack\n"
    "Example: frames vdso\n";

typedef void plugin_work_function(uint64_t until_ns);

static volatile sig_atomic_t next_one;
static void on_next(int number) {
  (void)number;
  next_one = 1;
}

static void print_function(const char* name, const void* address) {
  Dl_info info;
  const ElfW(Sym)* symbol = NULL;
  if (dladdr1(address, &info, (void**)&symbol, RTLD_DL_SYMENT) == 0 || symbol == NULL) {
    fprintf(stderr, "frames: where is %s?\n", name);
    exit(1);
  }
  uintptr_t start = (uintptr_t)info.dli_saddr;
  printf("function %s %lx %lx\n", name, start, start + symbol->st_size);
}

// 20 ms at a time, so that a plugin is left soon after the signal.
OWN_FRAME void visit(plugin_work_function* work) {
  while (!stopped && !next_one) work(thread_cpu_ns() + 20 * NS_PER_MS);
  work_sink += 1;
}

static int visit_plugins(char** paths) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_next;
  sigaction(SIGUSR1, &action, NULL);
  print_function("visit", (const void*)(uintptr_t)visit);
  for (int phase = 1; *paths != NULL && !stopped; ++paths, ++phase) {
    void* library = dlopen(*paths, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
      fprintf(stderr, "frames: %s\n", dlerror());
      return 1;
    }
    static const char* const kNames[] = {"plugin_work", "plugin_middle", "plugin_inner"};
    for (int i = 0; i < 3; ++i) print_function(kNames[i], dlsym(library, kNames[i]));
    printf("phase %d\n", phase);
    fflush(stdout);
    visit((plugin_work_function*)(uintptr_t)dlsym(library, "plugin_work"));
    next_one = 0;
    dlclose(library);
  }
  return 0;
}

OWN_FRAME void ask_time(void) {
  struct timespec now;
  while (!stopped) clock_gettime(CLOCK_MONOTONIC, &now);
  work_sink += (uint64_t)now.tv_nsec;
}

// Longer than the timer's period: most of the time is spent here.
OWN_FRAME void on_alarm(int number) {
  (void)number;
  WORK_UNTIL(thread_cpu_ns() + 15 * NS_PER_MS, 6364136223846793005ULL);
}

// Calls nothing: what is interrupted is this function.
OWN_FRAME void interrupted(void) {
  uint64_t state = work_sink | 1;
  while (!stopped) state = state * 6364136223846793005ULL + 12345;
  work_sink = state;
}

static void be_interrupted(bool elsewhere) {
  static char stack[1 << 16] __attribute__((aligned(16)));
  const stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_alarm;
  if (elsewhere) {
    sigaltstack(&other, NULL);
    action.sa_flags = SA_ONSTACK;
  }
  sigaction(SIGALRM, &action, NULL);
  const struct itimerval period = {.it_interval = {0, 20000}, .it_value = {0, 20000}};
  setitimer(ITIMER_REAL, &period, NULL);
  interrupted();
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    help_or_wrong_use(option, kHelp);
  }
  if (optind >= argc) help_or_wrong_use('?', kHelp);
  const char* what = argv[optind++];
  catch_stop();
  printf("function _start %lx %lx\n", getauxval(AT_ENTRY), getauxval(AT_ENTRY) + 64);
  print_function("main", (const void*)(uintptr_t)main);
  if (strcmp(what, "plugins") == 0) return visit_plugins(argv + optind);
  no_arguments_left(argc, argv);
  if (strcmp(what, "vdso") == 0) {
    const unsigned long vdso = getauxval(AT_SYSINFO_EHDR);
    printf("function vdso %lx %lx\n", vdso, vdso + 2 * (unsigned long)sysconf(_SC_PAGESIZE));
    print_function("ask_time", (const void*)(uintptr_t)ask_time);
    printf("phase 1\n");
    fflush(stdout);
    ask_time();
  } else if (strcmp(what, "handler") == 0 || strcmp(what, "handler-elsewhere") == 0) {
    print_function("on_alarm", (const void*)(uintptr_t)on_alarm);
    print_function("interrupted", (const void*)(uintptr_t)interrupted);
    printf("phase 1\n");
    fflush(stdout);
    be_interrupted(strcmp(what, "handler-elsewhere") == 0);
  } else {
    wrong_use(what, "is not one of what it does");
  }
  return 0;
}
