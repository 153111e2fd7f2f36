/* SPDX-License-Identifier: Apache-2.0 */
/* Does to itself what a probe must survive: threads allocate without a pause and look whether what they wrote is still
 * there; meanwhile a library with an allocator of its own comes, is used until SIGUSR1, and comes and goes many times
 * more; then another program takes the process while the threads are in the allocator.
 *   restless EXECS [NANOSECONDS that each thread pauses after an allocation]
 * PLUGIN: the library. Ends with 0 if all was well. */
#include "allocate.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { kThreads = 3, kSlots = 64, kVisits = 200 };

static atomic_int stop;
static long pause_ns;

_Noreturn static void broken(const char* what) {
  say(what, 1);
  _exit(3);
}

static void fill(unsigned char* block, size_t bytes) { memset(block, (int)(bytes & 0xff), bytes); }
static int is_filled(const unsigned char* block, size_t bytes) {
  return block[0] == (bytes & 0xff) && block[bytes / 2] == (bytes & 0xff) && block[bytes - 1] == (bytes & 0xff);
}

static void* churn(void* argument) {
  unsigned char* blocks[kSlots] = {0};
  size_t sizes[kSlots] = {0};
  unsigned long long random = 99 + (size_t)argument;
  const struct timespec pause = {0, pause_ns};
  while (!atomic_load(&stop)) {
    random = random * 6364136223846793005ULL + 1442695040888963407ULL;
    const size_t slot = (random >> 33) % kSlots;
    const size_t bytes = 1 + (random >> 45) % 3000;
    if (blocks[slot] && !is_filled(blocks[slot], sizes[slot])) broken("a block was changed");
    unsigned char* block = NULL;
    if (random >> 63) {
      block = realloc(blocks[slot], bytes);
    } else {
      free(blocks[slot]);
      block = malloc(bytes);
    }
    if (!block) broken("no memory");
    blocks[slot] = keep(block);
    sizes[slot] = bytes;
    fill(block, bytes);
    if (pause_ns > 0) nanosleep(&pause, NULL);
  }
  for (size_t slot = 0; slot < kSlots; ++slot) free(blocks[slot]);
  return NULL;
}

static void* (*load(void** library))(size_t) {
  void* (*take)(size_t) = NULL;
  *library = dlopen(getenv("PLUGIN"), RTLD_NOW | RTLD_LOCAL);
  if (!*library) broken(dlerror());
  *(void**)&take = dlsym(*library, "take_from_plugin");
  if (!take) broken("no function");
  return take;
}

/* Until SIGUSR1. */
static void use_library(void) {
  const struct timespec pause = {0, 50000000};
  void* library = NULL;
  void* (*take)(size_t) = load(&library);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  say("loaded", 0);
  unsigned char* before = NULL;
  do {
    unsigned char* block = take(opaque(16));
    if (before && block != before + 16) broken("the library's allocator lost count");
    before = block;
  } while (sigtimedwait(&set, NULL, &pause) != SIGUSR1);
  dlclose(library);
}

int main(int argc, char** argv) {
  pthread_t threads[kThreads];
  block_signals();
  pause_ns = argc > 2 ? atol(argv[2]) : 0;
  say("ready", 0);
  for (size_t i = 0; i < kThreads; ++i) pthread_create(&threads[i], NULL, churn, (void*)i);
  use_library();
  for (int i = 0; i < kVisits; ++i) {
    void* library = NULL;
    unsigned char* block = load(&library)(opaque(100));
    fill(block, 100);
    if (!is_filled(block, 100)) broken("a block of the library was changed");
    dlclose(library);
  }
  say("unloaded", kVisits);
  const int execs = argc > 1 ? atoi(argv[1]) : 0;
  if (execs > 0) {
    char rest[16];
    snprintf(rest, sizeof rest, "%d", execs - 1);
    char* const arguments[] = {argv[0], rest, argc > 2 ? argv[2] : NULL, NULL};
    execv("/proc/self/exe", arguments);
    broken("exec");
  }
  atomic_store(&stop, 1);
  for (size_t i = 0; i < kThreads; ++i) pthread_join(threads[i], NULL);
  say("end", 0);
  return 0;
}
