// SPDX-License-Identifier: Apache-2.0
#include "cli/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <string>

#include "cli/output.h"

namespace stackwatch {
namespace {

constexpr std::string_view kEnter = "\x1b[?1049h\x1b[?25l";
constexpr std::string_view kLeave = "\x1b[?25h\x1b[?1049l";
constexpr std::string_view kHome = "\x1b[H";
constexpr std::string_view kClearRest = "\x1b[J";

sigset_t screen_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH}) sigaddset(&set, signal);
  return set;
}

}  // namespace

TerminalSize terminal_size(int fd) {
  winsize size{};
  if (ioctl(fd, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 || size.ws_col == 0) return {};
  return {size.ws_row, size.ws_col};
}

Result<Screen> Screen::open() {
  Screen screen;
  if (tcgetattr(STDIN_FILENO, &screen.saved_) < 0) return fail_errno("use the terminal", errno);
  const sigset_t signals = screen_signals();
  UniqueFd fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return fail_errno("use the terminal", errno);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  screen.signals_ = std::move(fd);
  screen.enter();
  return screen;
}

Screen::~Screen() {
  if (!signals_) return;
  leave();
  const sigset_t signals = screen_signals();
  sigprocmask(SIG_UNBLOCK, &signals, nullptr);
}

void Screen::enter() const {
  termios raw = saved_;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);  // ISIG stays: ^C and ^Z come as signals
  raw.c_cc[VMIN] = 0;
  raw.c_cc[VTIME] = 0;
  tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  static_cast<void>(!write_output(STDOUT_FILENO, kEnter));  // a terminal that is gone shows at the next draw()
}

void Screen::leave() const {
  static_cast<void>(!write_output(STDOUT_FILENO, kLeave));
  tcsetattr(STDIN_FILENO, TCSANOW, &saved_);
}

Result<void> Screen::draw(std::string_view text) const {
  std::string frame(kHome);
  // Each line is cleared behind its text instead of the whole screen before it: no flicker.
  for (const char c : text) {
    if (c == '\n') frame += "\x1b[K";
    frame += c;
  }
  frame += kClearRest;
  return write_output(STDOUT_FILENO, frame);
}

Screen::Event Screen::wait(double timeout_s) {
  std::array<pollfd, 2> entries{{{signals_.get(), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}}};
  const int ready = poll(entries.data(), entries.size(), static_cast<int>(std::ceil(std::max(timeout_s, 0.0) * 1000)));
  if (ready < 0) return Event::kRedraw;
  if (ready == 0) return Event::kTimeout;
  if (entries[0].revents != 0) return on_signal();
  return on_key();
}

Screen::Event Screen::on_signal() const {
  signalfd_siginfo info{};
  if (read(signals_.get(), &info, sizeof(info)) != sizeof(info)) return Event::kRedraw;
  if (info.ssi_signo == SIGWINCH) return Event::kRedraw;
  if (info.ssi_signo != SIGTSTP) return Event::kQuit;
  leave();
  raise(SIGSTOP);  // SIGTSTP itself is blocked
  enter();
  return Event::kRedraw;
}

Screen::Event Screen::on_key() {
  std::array<char, 64> keys{};
  const ssize_t count = read(STDIN_FILENO, keys.data(), keys.size());
  if (count <= 0) return Event::kQuit;  // the terminal is gone
  const auto end = keys.begin() + count;
  const bool quit = std::any_of(keys.begin(), end, [](char key) { return key == 'q' || key == 'Q'; });
  return quit ? Event::kQuit : Event::kRedraw;
}

}  // namespace stackwatch
