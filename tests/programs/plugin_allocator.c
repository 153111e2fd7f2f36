/* SPDX-License-Identifier: Apache-2.0 */
/* A library with an allocator of its own, as some plugins bring one. It hands out pieces of a static block. */
#include <stddef.h>

static char block[1 << 20];
static size_t used;

__attribute__((noipa)) void* malloc(size_t bytes);
void* malloc(size_t bytes) {
  void* piece = block + used;
  used += (bytes + 15) / 16 * 16;
  return piece;
}

__attribute__((noipa)) void free(void* piece);
void free(void* piece) { __asm__ volatile("" : : "r"(piece)); }

void* take_from_plugin(size_t bytes);
void* take_from_plugin(size_t bytes) {
  void* piece = malloc(bytes);
  __asm__ volatile("" : "+r"(piece));
  return piece;
}
