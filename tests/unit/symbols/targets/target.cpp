// SPDX-License-Identifier: Apache-2.0
// A program with functions of every kind that a symbol table can hold. It prints, for each, where it is: a line
// `NAME FILE_OFFSET ADDRESS` in hexadecimal, then `end`. Then it waits for a line on its standard input: `exec PATH`
// executes that program instead, anything else (or the end) ends it.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "tell.h"

// A routine as assemblers write them who do not care: no type, no size, no call-frame information.
asm(".text\n.globl bare_label\nbare_label:\n nop\n nop\n ret\n.p2align 4\n");
extern "C" void bare_label();

extern "C" [[gnu::noinline]] int plain_function(int value) { return value * 7 + 3; }
extern "C" int __private_alias(int value) __attribute__((alias("plain_function"), copy(plain_function)));

namespace shapes {
struct Widget {
  [[gnu::noinline]] int turn(int by, double speed) { return by + static_cast<int>(speed); }
};
}  // namespace shapes

[[gnu::noinline]] static int local_function(int value) { return value * 13 + 5; }

int main(int argc, char**) {
  shapes::Widget widget;
  int (*volatile local)(int) = local_function;
  int (shapes::Widget::*turn)(int, double) = &shapes::Widget::turn;
  uint64_t turn_address = 0;
  std::memcpy(&turn_address, &turn, sizeof turn_address);
  tell("plain_function", reinterpret_cast<uint64_t>(&plain_function));
  tell("bare_label", reinterpret_cast<uint64_t>(&bare_label));
  tell("turn", turn_address);
  tell("local_function", reinterpret_cast<uint64_t>(local));
  tell("write", reinterpret_cast<uint64_t>(&::write));
  std::printf("end\n");
  std::fflush(stdout);

  char order[4096] = {};
  if (std::fgets(order, sizeof order, stdin) != nullptr && std::strncmp(order, "exec ", 5) == 0) {
    order[std::strcspn(order, "\n")] = '\0';
    ::execl(order + 5, order + 5, static_cast<char*>(nullptr));
  }
  return argc > 100 ? local(widget.turn(1, 2)) : 0;
}
