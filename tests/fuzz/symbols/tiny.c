// SPDX-License-Identifier: Apache-2.0
// An object file with the things that the reader looks for: symbols with sizes, one inside another, a mangled one.
int first(int x) { return x * 3; }
static __attribute__((noinline, used)) int inner(int x) { return first(x) + 1; }
int mangled(int x) __asm__("_ZN5outer6mangleEi");
int mangled(int x) { return inner(x) * 2; }
