// SPDX-License-Identifier: Apache-2.0
// Each operator new and delete, their failures, and exceptions that pass through them, one per step.
#include <cstdlib>
#include <new>
#include <vector>

#include "allocate.h"

namespace {

constexpr size_t kHuge = size_t{1} << 62;

struct alignas(64) Aligned {
  char bytes[640];
};
struct Throws {
  char bytes[100];
  Throws() { throw 42; }
};

long long do_new() { return keep(::operator new(opaque(1000))) ? 1000 : 0; }
long long do_new_array() { return keep(new char[opaque(2000)]) ? 2000 : 0; }
long long do_new_nothrow() { return keep(::operator new(opaque(300), std::nothrow)) ? 300 : 0; }
long long do_new_aligned() { return keep(new Aligned) ? static_cast<long long>(sizeof(Aligned)) : 0; }
long long do_delete() {
  ::operator delete(keep(::operator new(opaque(700))));
  delete[] static_cast<char*>(keep(new char[opaque(800)]));
  ::operator delete (keep(::operator new(opaque(900))), size_t{900});
  delete static_cast<Aligned*>(keep(new Aligned));
  ::operator delete(keep(nullptr));
  return 0;
}
// Free pairs with malloc, but these must be told apart from a free that was not seen.
long long do_many() {
  std::vector<void*> kept;
  kept.reserve(opaque(1000));
  for (size_t i = 1; i <= 1000; ++i) kept.push_back(keep(::operator new(i * 10)));
  for (void* p : kept) ::operator delete(p);
  return 0;
}
long long do_bad_alloc() {
  int caught = 0;
  for (int i = 0; i < 100; ++i) {
    try {
      keep(::operator new(opaque(kHuge)));
    } catch (const std::bad_alloc&) {
      ++caught;
    }
    // What comes after an exception must count as what it is, at whatever depth it happens.
    void* p = keep(::operator new(opaque(64)));
    ::operator delete(p);
  }
  return caught == 100 ? 0 : 1;
}
long long do_bad_alloc_deep() {
  struct Deep {
    static long long go(int depth) {
      volatile char room[256] = {};
      if (depth > 0) return go(depth - 1) + room[0];
      try {
        keep(::operator new(opaque(kHuge)));
      } catch (const std::bad_alloc&) {
        return 0;
      }
      return 1;
    }
  };
  const long long left = Deep::go(20);
  return left + (keep(::operator new(opaque(111))) ? 111 : 0);
}
long long do_nothrow_fails() { return keep(::operator new(opaque(kHuge), std::nothrow)) ? 1 : 0; }
long long do_new_handler() {
  static int tries;
  tries = 0;
  std::set_new_handler([] {
    if (++tries == 3) throw std::bad_alloc();
  });
  try {
    keep(::operator new(opaque(kHuge)));
  } catch (const std::bad_alloc&) {
  }
  std::set_new_handler(nullptr);
  return tries == 3 ? 0 : 1;
}
long long do_constructor_throws() {
  try {
    keep(new Throws);
  } catch (int) {
  }
  return 0;
}
long long do_mixed() {
  void* a = keep(std::malloc(opaque(10)));
  void* b = keep(::operator new(opaque(20)));
  ::operator delete(b);
  std::free(a);
  return keep(std::malloc(opaque(30))) ? 30 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  static const step kSteps[] = {
      {"new", do_new},
      {"new_array", do_new_array},
      {"new_nothrow", do_new_nothrow},
      {"new_aligned", do_new_aligned},
      {"delete", do_delete},
      {"many", do_many},
      {"bad_alloc", do_bad_alloc},
      {"bad_alloc_deep", do_bad_alloc_deep},
      {"nothrow_fails", do_nothrow_fails},
      {"new_handler", do_new_handler},
      {"constructor_throws", do_constructor_throws},
      {"mixed", do_mixed},
      {nullptr, nullptr},
  };
  // The first exception of a static program makes the unwinder allocate its tables: none of a step's doing.
  try {
    throw 1;
  } catch (int) {
  }
  return run_steps(kSteps, argc, argv);
}
