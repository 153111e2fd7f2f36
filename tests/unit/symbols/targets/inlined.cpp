// SPDX-License-Identifier: Apache-2.0
// A program full of inlined calls. It tells where `outer` is, and a place in a call inlined into a call inlined into
// it, then waits for the end of its input.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "tell.h"

extern "C" const char inlined_place[];

namespace deep {

struct Counter {
  [[gnu::always_inline]] inline void innermost(volatile int& value) {
    asm volatile(".globl inlined_place\ninlined_place:\n nop");
    value = value + 1;
  }
};

[[gnu::always_inline]] static inline void between(volatile int& value) {
  Counter counter;
  counter.innermost(value);
}

[[gnu::noinline]] int outer(volatile int& value) {
  value = value * 3;
  between(value);
  return value;
}

}  // namespace deep

/// What a standard library makes of a few lines: hundreds of inlined calls.
[[gnu::noinline]] static size_t much(size_t count) {
  std::map<std::string, std::vector<int>> words;
  for (size_t i = 0; i < count; ++i) words[std::to_string(i % 7)].push_back(static_cast<int>(i));
  size_t sum = 0;
  for (auto& [word, numbers] : words) {
    std::sort(numbers.begin(), numbers.end(), [](int a, int b) { return a > b; });
    sum += word.size() + static_cast<size_t>(std::accumulate(numbers.begin(), numbers.end(), 0));
  }
  return sum;
}

int main(int argc, char**) {
  volatile int value = argc;
  const size_t sum = much(static_cast<size_t>(deep::outer(value)) + 10);
  tell("outer", reinterpret_cast<uint64_t>(&deep::outer));
  tell("place", reinterpret_cast<uint64_t>(inlined_place));
  std::printf("end\n");
  std::fflush(stdout);
  std::getchar();
  return sum == 3 ? 1 : 0;
}
