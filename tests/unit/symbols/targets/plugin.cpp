// SPDX-License-Identifier: Apache-2.0
// A library that a test loads after its mappings were read.
extern "C" [[gnu::noinline]] int plugin_function(int value) { return value * 3 + 1; }
