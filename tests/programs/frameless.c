// SPDX-License-Identifier: Apache-2.0
// A library without frame pointers, for `frames plugins`. Built twice: code of the same size, frames of other sizes
// (FRAME_WORDS), so that the call-frame information of one is wrong for the other.
#include "programs.h"

void plugin_work(uint64_t until_ns);
void plugin_middle(uint64_t until_ns);
void plugin_inner(uint64_t until_ns);

OWN_FRAME void plugin_inner(uint64_t until_ns) {
  volatile uint64_t locals[FRAME_WORDS];
  locals[0] = until_ns;
  WORK_UNTIL(until_ns, 6364136223846793005ULL);
  locals[FRAME_WORDS - 1] = locals[0];
}

OWN_FRAME void plugin_middle(uint64_t until_ns) {
  volatile uint64_t locals[FRAME_WORDS];
  locals[0] = until_ns;
  plugin_inner(until_ns);
  locals[FRAME_WORDS - 1] = locals[0];
}

OWN_FRAME void plugin_work(uint64_t until_ns) {
  volatile uint64_t locals[FRAME_WORDS];
  locals[0] = until_ns;
  plugin_middle(until_ns);
  locals[FRAME_WORDS - 1] = locals[0];
}
