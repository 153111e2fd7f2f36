/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to allocations besides being made and freed: calls into the allocator that never return, forks, another
 * program in the same process, allocators that come and go with a library. */
#include "allocate.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/wait.h>

static jmp_buf way_out;
static char** arguments;
static void* library;

/* An allocator function of our own, found by its name: takes more from the next one than it was asked for, or leaves
 * for good. */
__attribute__((noipa)) void* valloc(size_t bytes) {
  if (bytes == 666) longjmp(way_out, 1);
  return keep(malloc(opaque(bytes + 100)));
}

__attribute__((noipa)) static long long deeper(int levels) {
  volatile char room[128];
  room[0] = 1;
  if (levels > 0) return deeper(levels - 1) + room[0] - 1;
  return keep(malloc(opaque(40))) ? 40 : 0;
}

static long long do_nested(void) { return keep(valloc(opaque(1000))) ? 1000 : 0; }
static long long do_leaves_for_good(void) {
  volatile long long left = 0;
  for (volatile int i = 0; i < 10; ++i) {
    if (setjmp(way_out) == 0) keep(valloc(opaque(666)));
    left += deeper(i); /* at all depths, below and above the call that was left */
  }
  return left;
}
static long long do_fork(void) {
  void* mine = keep(malloc(opaque(5000)));
  const pid_t child = fork();
  if (child == 0) {
    free(mine); /* its own copy */
    keep(malloc(opaque(70000)));
    _exit(0);
  }
  int status = 1;
  waitpid(child, &status, 0);
  return status == 0 && mine ? 5000 : 0;
}
static long long do_exec(void) {
  keep(malloc(opaque(123456)));
  arguments[1] = (char*)"after_exec";
  execv("/proc/self/exe", arguments);
  return 1;
}
static long long do_after_exec(void) { return keep(malloc(opaque(4321))) ? 4321 : 0; }

static long long do_library(void) {
  void* (*take)(size_t) = NULL;
  library = dlopen(getenv("PLUGIN"), RTLD_NOW | RTLD_LOCAL);
  if (library) *(void**)&take = dlsym(library, "take_from_plugin");
  return take && keep(take(opaque(10))) ? 10 : -1;
}
static long long do_library_again(void) {
  void* (*take)(size_t) = NULL;
  *(void**)&take = dlsym(library, "take_from_plugin");
  return take && keep(take(opaque(2000))) ? 2000 : -1;
}
static long long do_library_gone(void) {
  dlclose(library);
  return 0;
}

int main(int argc, char** argv) {
  static const struct step kSteps[] = {
      {"nested", do_nested},
      {"leaves_for_good", do_leaves_for_good},
      {"fork", do_fork},
      {"exec", do_exec},
      {"after_exec", do_after_exec},
      {"library", do_library},
      {"library_again", do_library_again},
      {"library_gone", do_library_gone},
      {NULL, NULL},
  };
  arguments = argv;
  return run_steps(kSteps, argc, argv);
}
