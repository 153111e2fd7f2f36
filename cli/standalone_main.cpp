// SPDX-License-Identifier: Apache-2.0
// stackwatch-standalone: the verbs of stackwatch that need no daemon. `stackwatch VERB` runs it.
#include "cli/standalone.h"

int main(int argc, char** argv) { return stackwatch::run_standalone(argc, argv); }
