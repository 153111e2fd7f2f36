/* SPDX-License-Identifier: Apache-2.0 */
/* What a program maps itself, one case per step; and what its allocator maps, which must not count twice. */
#include "allocate.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { kPage = 4096, kThreads = 4, kRounds = 3000 };

static char* before; /* mapped before anybody could have attached */

static char* map(size_t pages) {
  void* p = mmap(NULL, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? NULL : keep(p);
}

static char* map_at(char* address, size_t pages) {
  void* p = mmap(address, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  return p == MAP_FAILED ? NULL : keep(p);
}

static long long do_mmap(void) { return map(opaque(5)) ? 5 * kPage : 0; }
static long long do_mmap_odd_length(void) {
  void* p = mmap(NULL, opaque(5000), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return keep(p) != MAP_FAILED ? 2 * kPage : 0;
}
static long long do_mmap_file(void) {
  const int file = open("/proc/self/exe", O_RDONLY);
  void* p = mmap(NULL, opaque(100), PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  return keep(p) != MAP_FAILED ? kPage : 0;
}
static long long do_mmap_fails(void) {
  void* none = mmap(NULL, opaque(0), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void* huge = mmap(NULL, opaque((size_t)1 << 62), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return keep(none) == MAP_FAILED && keep(huge) == MAP_FAILED ? 0 : 1;
}
static long long do_munmap(void) {
  munmap(map(opaque(10)), 10 * kPage);
  return 0;
}
static long long do_munmap_middle(void) {
  munmap(map(opaque(10)) + 3 * kPage, 2 * kPage);
  return 8 * kPage;
}
static long long do_munmap_ends(void) {
  char* p = map(opaque(10));
  munmap(p, kPage);
  munmap(p + 7 * kPage, 3 * kPage);
  return 6 * kPage;
}
static long long do_munmap_two(void) { /* the end of one and the beginning of the other */
  char* p = map(opaque(8));
  map_at(p + 4 * kPage, opaque(4));
  munmap(p + 3 * kPage, 3 * kPage);
  return 5 * kPage;
}
static long long do_munmap_odd_length(void) {
  munmap(map(opaque(4)), opaque(kPage + 1));
  return 2 * kPage;
}
static long long do_munmap_fails(void) {
  char* p = map(opaque(4));
  return munmap(p + opaque(5), kPage) == 0 ? 0 : 4 * kPage;
}
static long long do_fixed_replaces(void) {
  char* p = map(opaque(8));
  map_at(p + 2 * kPage, opaque(3));
  return 8 * kPage;
}
static long long do_mremap_grows(void) {
  void* p = mremap(map(opaque(4)), 4 * kPage, 400 * kPage, MREMAP_MAYMOVE);
  return keep(p) != MAP_FAILED ? 400 * kPage : 4 * kPage;
}
static long long do_mremap_moves(void) {
  char* room = map(opaque(6));
  void* p = mremap(map(opaque(3)), 3 * kPage, 5 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, room);
  return keep(p) != MAP_FAILED ? 6 * kPage : 9 * kPage;
}
static long long do_mremap_shrinks(void) {
  void* p = mremap(map(opaque(9)), 9 * kPage, 2 * kPage, 0);
  return keep(p) != MAP_FAILED ? 2 * kPage : 9 * kPage;
}
static long long do_mremap_part(void) {
  char* p = mremap(map(opaque(6)) + 2 * kPage, 2 * kPage, 20 * kPage, MREMAP_MAYMOVE);
  return keep(p) != MAP_FAILED ? 24 * kPage : 6 * kPage;
}
static long long do_mremap_fails(void) {
  void* p = mremap(map(opaque(4)), 4 * kPage, opaque((size_t)1 << 62), MREMAP_MAYMOVE);
  return keep(p) == MAP_FAILED ? 4 * kPage : 0;
}
static long long do_mremap_keeps(void) {
#ifdef MREMAP_DONTUNMAP
  void* p = mremap(map(opaque(4)), 4 * kPage, 4 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
  return keep(p) != MAP_FAILED ? 8 * kPage : 4 * kPage;
#else
  return map(opaque(8)) ? 8 * kPage : 0;
#endif
}
static long long do_allocator_maps(void) { return keep(malloc(opaque(50000000))) ? 50000000 : 0; }
static long long do_allocator_unmaps(void) {
  free(keep(malloc(opaque(60000000))));
  return 0;
}
static long long do_allocator_remaps(void) {
  void* p = keep(malloc(opaque(70000000)));
  return keep(realloc(p, opaque(90000000))) ? 90000000 : 70000000;
}
static long long do_unknown_munmap(void) {
  munmap(before, 3 * kPage);
  return 0;
}

/* Addresses go from thread to thread as fast as they can. */
static void* churn(void* unused) {
  for (int i = 0; i < kRounds; ++i) {
    char* p = map(4);
    munmap(p + kPage, kPage);
    munmap(p, 4 * kPage);
  }
  return unused;
}
static pthread_t threads[kThreads];
static pthread_barrier_t start;
static pthread_barrier_t stop;
static void* help(void* unused) {
  for (;;) {
    pthread_barrier_wait(&start);
    churn(NULL);
    pthread_barrier_wait(&stop);
  }
  return unused;
}
static long long do_threads(void) {
  pthread_barrier_wait(&start);
  pthread_barrier_wait(&stop);
  return 0;
}

int main(int argc, char** argv) {
  static const struct step kSteps[] = {
      {"mmap", do_mmap},
      {"mmap_odd_length", do_mmap_odd_length},
      {"mmap_file", do_mmap_file},
      {"mmap_fails", do_mmap_fails},
      {"munmap", do_munmap},
      {"munmap_middle", do_munmap_middle},
      {"munmap_ends", do_munmap_ends},
      {"munmap_two", do_munmap_two},
      {"munmap_odd_length", do_munmap_odd_length},
      {"munmap_fails", do_munmap_fails},
      {"fixed_replaces", do_fixed_replaces},
      {"mremap_grows", do_mremap_grows},
      {"mremap_moves", do_mremap_moves},
      {"mremap_shrinks", do_mremap_shrinks},
      {"mremap_part", do_mremap_part},
      {"mremap_fails", do_mremap_fails},
      {"mremap_keeps", do_mremap_keeps},
      {"allocator_maps", do_allocator_maps},
      {"allocator_unmaps", do_allocator_unmaps},
      {"allocator_remaps", do_allocator_remaps},
      {"unknown_free", do_unknown_munmap},
      {"threads", do_threads},
      {NULL, NULL},
  };
  block_signals(); /* in the threads too */
  before = map(3);
  pthread_barrier_init(&start, NULL, kThreads + 1);
  pthread_barrier_init(&stop, NULL, kThreads + 1);
  for (int i = 0; i < kThreads; ++i) {
    if (pthread_create(&threads[i], NULL, help, NULL) != 0) return 1;
  }
  return run_steps(kSteps, argc, argv);
}
