// SPDX-License-Identifier: Apache-2.0
#include "symbols/worker/demangle.h"

#include <gtest/gtest.h>

#include "symbols/worker/elf_object.h"

namespace stackwatch {
namespace {

TEST(Demangle, BrokenAndEndlessNamesStayAsTheyAre) {
  const std::string endless = "_ZN" + std::string(kMaxRawNameBytes, '3');
  for (const std::string& name : {std::string(), std::string("_Z"), std::string("_ZN"), std::string("_ZNSt6vectorIiE"),
                                  std::string("main"), std::string("_Zebra crossing"), endless}) {
    EXPECT_EQ(demangle(name), name);
  }
}

TEST(Demangle, CppWithParameters) {
  EXPECT_EQ(demangle("_ZN6shapes6Widget4turnEid"), "shapes::Widget::turn(int, double)");
  EXPECT_EQ(demangle("_ZN6shapes6Widget4turnEid.cold"), "shapes::Widget::turn(int, double) [clone .cold]");
}

TEST(Demangle, RustWithoutItsHash) {
  EXPECT_EQ(demangle("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE"), "core::fmt::Formatter::pad");
  EXPECT_EQ(
      demangle("_ZN66_$LT$alloc..vec..Vec$LT$T$GT$$u20$as$u20$core..ops..drop..Drop$GT$4drop17h0123456789abcdefE"),
      "<alloc::vec::Vec<T> as core::ops::drop::Drop>::drop");
  EXPECT_EQ(demangle("_ZN4main4main17h0123456789abcdefE.llvm.123"), "main::main");
  EXPECT_EQ(demangle("_ZN1a17h0123456789abcdegE"), "a::h0123456789abcdeg") << "g is no hexadecimal digit: C++";
}

}  // namespace
}  // namespace stackwatch
