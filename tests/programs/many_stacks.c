/* SPDX-License-Identifier: Apache-2.0 */
/* Allocates in 100,000 different stacks, and frees all of it. */
#include "allocate.h"

#include <stdlib.h>

enum { kBits = 17, kStacks = 100000, kBytes = 64 };

static void* blocks[kStacks];

static void branch(unsigned number, int bits, size_t index);
/* Work after the call, so that neither is left before its end. */
static volatile int sink;
__attribute__((noinline)) static void left(unsigned number, int bits, size_t index) {
  branch(number, bits, index);
  sink += 2;
}
__attribute__((noinline)) static void right(unsigned number, int bits, size_t index) {
  branch(number, bits, index);
  sink += 3;
}
static inline __attribute__((always_inline)) void branch(unsigned number, int bits, size_t index) {
  if (bits == 0) {
    blocks[index] = keep(malloc(opaque(kBytes)));
  } else if (number & 1) {
    right(number >> 1, bits - 1, index);
  } else {
    left(number >> 1, bits - 1, index);
  }
}

static long long do_allocate(void) {
  for (size_t i = 0; i < kStacks; ++i) branch((unsigned)i, kBits, i);
  return (long long)kStacks * kBytes;
}

static long long do_free(void) {
  for (size_t i = 0; i < kStacks; ++i) free(blocks[i]);
  return -(long long)kStacks * kBytes;
}

int main(int argc, char** argv) {
  static const struct step kSteps[] = {{"allocate", do_allocate}, {"free", do_free}, {NULL, NULL}};
  return run_steps(kSteps, argc, argv);
}
