/* SPDX-License-Identifier: Apache-2.0 */
/* Each C function of an allocator, its failures and its odd cases, one per step. Steps whose name ends in "_glibc" need
 * functions that not all allocators have. */
#include "allocate.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

static const size_t kHuge = (size_t)1 << 62;

static void* before; /* allocated before anybody could have attached */

static void* handed_over; /* to the helper, which frees it and hands over another one */
static sem_t to_helper;
static sem_t from_helper;

static void* help(void* unused) {
  for (;;) {
    sem_wait(&to_helper);
    free(handed_over);
    handed_over = keep(malloc(77));
    sem_post(&from_helper);
  }
  return unused;
}

static long long do_malloc(void) { return keep(malloc(opaque(1000))) ? 1000 : 0; }
static long long do_malloc_zero(void) { return keep(malloc(opaque(0))) ? 0 : 0; }
static long long do_malloc_fails(void) { return keep(malloc(opaque(kHuge))) ? (long long)kHuge : 0; }
static long long do_free(void) {
  void* p = keep(malloc(opaque(500)));
  free(p);
  free(keep(NULL));
  return 0;
}
static long long do_many(void) {
  void* kept = NULL;
  for (size_t i = 1; i <= 1000; ++i) {
    void* p = keep(malloc(opaque(i)));
    if (i == 600) {
      kept = p;
    } else {
      free(p);
    }
  }
  return kept ? 600 : 0;
}
static long long do_large(void) { return keep(malloc(opaque(50000000))) ? 50000000 : 0; }
static long long do_calloc(void) { return keep(calloc(opaque(10), 30)) ? 300 : 0; }
static long long do_calloc_overflows(void) { return keep(calloc(opaque(kHuge), 8)) ? 1 : 0; }
static long long do_calloc_free(void) {
  free(keep(calloc(opaque(3), 1000)));
  return 0;
}
static long long do_realloc_null(void) { return keep(realloc(keep(NULL), opaque(123))) ? 123 : 0; }
static long long do_realloc_grows(void) {
  void* p = keep(malloc(opaque(100)));
  return keep(realloc(p, opaque(100000))) ? 100000 : 100;
}
static long long do_realloc_moves(void) { /* to its own mapping and back */
  void* p = keep(malloc(opaque(100)));
  p = keep(realloc(p, opaque(9000000)));
  return keep(realloc(p, opaque(64))) ? 64 : 0;
}
static long long do_realloc_shrinks(void) {
  void* p = keep(malloc(opaque(5000)));
  return keep(realloc(p, opaque(50))) ? 50 : 5000;
}
static long long do_realloc_fails(void) {
  void* p = keep(malloc(opaque(321)));
  return keep(realloc(p, opaque(kHuge))) ? (long long)kHuge : 321;
}
static long long do_realloc_zero(void) {
  /* Whether it frees (glibc, tcmalloc) or gives an empty block (musl, mimalloc): nothing is left. */
  void* p = keep(malloc(opaque(444)));
  p = keep(realloc(p, opaque(0)));
  free(p);
  return 0;
}
static long long do_posix_memalign(void) {
  void* p = NULL;
  return posix_memalign(&p, 64, opaque(640)) == 0 && keep(p) ? 640 : 0;
}
static long long do_posix_memalign_fails(void) {
  void* p = NULL;
  return posix_memalign(&p, opaque(3), 640) == 0 && keep(p) ? 640 : 0;
}
static long long do_aligned_alloc(void) { return keep(aligned_alloc(64, opaque(704))) ? 704 : 0; }
static long long do_memalign(void) { return keep(memalign(128, opaque(1024))) ? 1024 : 0; }
static long long do_other_thread_frees(void) {
  handed_over = keep(malloc(opaque(888)));
  sem_post(&to_helper);
  sem_wait(&from_helper);
  return handed_over ? 77 : 0;
}
static long long do_unknown_free(void) {
  free(before);
  before = NULL;
  return 0;
}
#ifdef __GLIBC__
static long long do_valloc_glibc(void) { return keep(valloc(opaque(5000))) ? 5000 : 0; }
static long long do_pvalloc_glibc(void) { return keep(pvalloc(opaque(6000))) ? 6000 : 0; }
static long long do_reallocarray_glibc(void) {
  void* p = keep(reallocarray(NULL, opaque(10), 20));
  return keep(reallocarray(p, opaque(100), 20)) ? 2000 : 200;
}
static long long do_reallocarray_overflows_glibc(void) {
  void* p = keep(malloc(opaque(55)));
  return keep(reallocarray(p, opaque(kHuge), 4)) ? 0 : 55;
}
#endif

int main(int argc, char** argv) {
  static const struct step kSteps[] = {
      {"malloc", do_malloc},
      {"malloc_zero", do_malloc_zero},
      {"malloc_fails", do_malloc_fails},
      {"free", do_free},
      {"many", do_many},
      {"large", do_large},
      {"calloc", do_calloc},
      {"calloc_overflows", do_calloc_overflows},
      {"calloc_free", do_calloc_free},
      {"realloc_null", do_realloc_null},
      {"realloc_grows", do_realloc_grows},
      {"realloc_moves", do_realloc_moves},
      {"realloc_shrinks", do_realloc_shrinks},
      {"realloc_fails", do_realloc_fails},
      {"realloc_zero", do_realloc_zero},
      {"posix_memalign", do_posix_memalign},
      {"posix_memalign_fails", do_posix_memalign_fails},
      {"aligned_alloc", do_aligned_alloc},
      {"memalign", do_memalign},
      {"other_thread_frees", do_other_thread_frees},
      {"unknown_free", do_unknown_free},
#ifdef __GLIBC__
      {"valloc_glibc", do_valloc_glibc},
      {"pvalloc_glibc", do_pvalloc_glibc},
      {"reallocarray_glibc", do_reallocarray_glibc},
      {"reallocarray_overflows_glibc", do_reallocarray_overflows_glibc},
#endif
      {NULL, NULL},
  };
  block_signals(); /* in the helper too */
  before = malloc(31337);
  sem_init(&to_helper, 0, 0);
  sem_init(&from_helper, 0, 0);
  /* The helper has allocated once before we say that we are ready: its thread's first allocation is none of a step. */
  pthread_t helper;
  if (pthread_create(&helper, NULL, help, NULL) != 0) return 1;
  sem_post(&to_helper);
  sem_wait(&from_helper);
  free(handed_over);
  handed_over = NULL;
  return run_steps(kSteps, argc, argv);
}
