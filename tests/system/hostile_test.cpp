// SPDX-License-Identifier: Apache-2.0
// Nobody without the rights gets in, and what strangers call themselves acts on nobody's terminal.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "core/utf8.h"
#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

/// What is in `text` that acts on a terminal, or is no UTF-8; line ends of our own are allowed.
std::string harm_in(const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t character = next_character(text, at);
    if (character == '\n') continue;
    if (is_control_character(character) || (character == kReplacementCharacter && at - begin < 3)) {
      return "byte " + std::to_string(begin) + " of: " + text;
    }
  }
  return "";
}

// Colour, clearing of the screen, a title, a line end, a byte that is no UTF-8, and a turned direction of writing.
constexpr char kName[] = "\x1b[31m\nb\xff\xe2\x80\xae";
constexpr char kArgument[] = "\x1b[2J\x1b]0;title\x07\r\nfake[1]: line\x9b\xc0\xaf";

class HostileName : public testing::Test {
 protected:
  void SetUp() override {
    program_ = directory_.path() + "/" + kName;
    std::filesystem::copy_file(test_program("burn"), program_);
  }
  TemporaryDirectory directory_;
  std::string program_;
};

TEST_F(HostileName, IsEscapedWhereverItIsShown) {
  STACKWATCH_REQUIRE_BPF();
  // `burn` refuses an argument that it does not know; the shell's own name is another argument of the process.
  Child child({"sh", "-c", "exec \"$0\" --seconds 60", program_});
  DaemonUnderTest daemon("[[watch]]\nexe = \"" + directory_.path() + "/*\"\n");
  ASSERT_TRUE(daemon.ready()) << daemon.process().output();
  const std::string pid = std::to_string(child.pid());
  ASSERT_TRUE(eventually(20, [&] {
    return daemon.ask({"stacks", pid}).output.find("burn_most") != std::string::npos;
  }));
  for (const std::vector<std::string>& verb :
       std::vector<std::vector<std::string>>{{"attachments"},
                                             {"attachments", "--json"},
                                             {"top", "--once", "-n", "1000"},
                                             {"top", "--json", "-n", "1000"},
                                             {"stacks", pid},
                                             {"stacks", pid, "--format", "folded"},
                                             {"stacks", pid, "--format", "json"},
                                             {"watch", "list"},
                                             {"watch", "list", "--json"}}) {
    const Answer answer = daemon.ask(verb);
    EXPECT_EQ(answer.exit_code, 0) << verb.front();
    EXPECT_EQ(harm_in(answer.output), "") << verb.front();
  }
  const Answer json = daemon.ask({"attachments", "--json"});
  EXPECT_EQ(json.lines(), 1U);
  EXPECT_THAT(json.output, HasSubstr("\\u001b")) << "the name is to be told, escaped";
  EXPECT_EQ(daemon.stop(), 0);
  EXPECT_EQ(harm_in(daemon.process().output()), "");
}

TEST_F(HostileName, IsEscapedByTheVerbsWithoutADaemon) {
  STACKWATCH_REQUIRE_BPF();
  Child child({program_, "--seconds", "60"});
  const std::string pid = std::to_string(child.pid());
  for (const char* format : {"tree", "folded", "json", "classic"}) {
    const Answer answer = run({our_program("stackwatch"), "count", "-p", pid, "-d", "0.5", "--format", format});
    EXPECT_EQ(answer.exit_code, 0) << answer.output;
    EXPECT_EQ(harm_in(answer.output), "") << format;
  }
}

TEST_F(HostileName, OfACommandLineIsMatchedAndEscaped) {
  STACKWATCH_REQUIRE_BPF();
  Child child({"sh", "-c", "while :; do :; done", kArgument});
  DaemonUnderTest daemon("[[watch]]\ncmdline = \"*fake?1?: line*\"\n");
  ASSERT_TRUE(daemon.ready());
  EXPECT_TRUE(eventually(20, [&] {
    return daemon.ask({"attachments", "--json"}).output.find("\"pid\":" + std::to_string(child.pid())) !=
           std::string::npos;
  }));
  EXPECT_EQ(harm_in(daemon.ask({"attachments"}).output), "");
  EXPECT_EQ(harm_in(daemon.ask({"attachments", "--json"}).output), "");
}

TEST(OtherUser, IsRefusedWithTheReason) {
  STACKWATCH_REQUIRE_BPF();
  DaemonUnderTest daemon("[ranking]\nmax_suspects = 0\n");
  ASSERT_TRUE(daemon.ready());
  // The directory is open to everybody, as /run/stackwatch is: the socket's own mode must keep them out.
  ASSERT_EQ(chmod(daemon.directory().path().c_str(), 0755), 0);
  struct stat status {};
  ASSERT_EQ(stat(daemon.socket().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0660U);
  // The shell opens the program before it is somebody else, who may not reach it.
  const std::vector<std::string> nobody = {
      "setpriv", "--reuid", "64321", "--regid", "64321", "--clear-groups", "--bounding-set=-all"};
  std::vector<std::string> command = nobody;
  command.insert(command.end(), {our_program("stackwatch"), "status", "--socket", daemon.socket()});
  const Answer answer = run(command);
  if (answer.exit_code == 126 || answer.exit_code == 127) GTEST_SKIP() << "another user cannot reach the program";
  EXPECT_EQ(answer.exit_code, 3) << answer.output;
  EXPECT_THAT(answer.output, HasSubstr("group"));
  EXPECT_EQ(daemon.ask({"status"}).exit_code, 0);
}

}  // namespace
}  // namespace stackwatch
