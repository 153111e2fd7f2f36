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
  EXPECT_EQ(demangle("_ZN6shapes6Widget4turnEid@plt"), "shapes::Widget::turn(int, double)@plt");
}

TEST(Demangle, NewerRust) {
  EXPECT_EQ(demangle("_RNvCskwGfYPst2Cb_3foo16example_function"), "foo::example_function");
  EXPECT_EQ(demangle("_RNvMs_CsXFtTTlMTTF_4testNtB4_3Foo3bar"), "<test::Foo>::bar");
  EXPECT_EQ(demangle("_RNCNvC4main1f0"), "main::f::{closure#0}");
  EXPECT_EQ(demangle("_RNCNvC4main1fs_0"), "main::f::{closure#1}");
  EXPECT_EQ(demangle("_RINvC4main1gmReE"), "main::g::<u32, &str>");
  EXPECT_EQ(demangle("_RNvXs_C4mainNtB4_1SNtNtC4core3fmt5Debug3fmt"), "<main::S as core::fmt::Debug>::fmt");
  EXPECT_EQ(demangle("_RINvC4main1gAmj4_E"), "main::g::<[u32; 4]>");
  EXPECT_EQ(demangle("_RINvC4main1gFUKCmEuE"), "main::g::<unsafe extern \"C\" fn(u32)>");
  EXPECT_EQ(demangle("_RINvC4main1gDNtC4core4SendEL_E"), "main::g::<dyn core::Send>");
  EXPECT_EQ(demangle("_RNvC4main1f.llvm.12345"), "main::f");
}

TEST(Demangle, BrokenNewerRustIsLeftAsItIs) {
  for (const std::string name : {"_R", "_RNv", "_RNvC4main", "_RNvC9999main1f", "_RB_", "_RNvB_1f", "_RNvC4main1fzz",
                                 "_RNvC18446744073709551615main1f", "_RIC4mainB_E", "_RLC4main"}) {
    EXPECT_EQ(demangle(name), name);
  }
  EXPECT_EQ(demangle("_R" + std::string(4000, 'Y')), "_R" + std::string(4000, 'Y'));
  // A tuple of references to the tuple before, forty times over: 2^40 parts.
  std::string bomb = "_RINvC1a1fTuuE";
  std::string last = "7_";
  for (int i = 0; i < 9; ++i) {
    const size_t at = bomb.size() - 2;
    bomb += "TB" + last + "B" + last + "B" + last + "B" + last + "B" + last + "B" + last + "E";
    last = std::string(1, static_cast<char>(at < 11 ? '0' + at - 1 : at < 37 ? 'a' + at - 11 : 'A' + at - 37)) + "_";
    if (at > 62) break;
  }
  static_cast<void>(demangle(bomb + "E"));
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
