// SPDX-License-Identifier: Apache-2.0
#include "tests/system/daemon_under_test.h"

#include <linux/bpf.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace stackwatch {

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = std::filesystem::temp_directory_path() / "stackwatch-test-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryDirectory::write(const std::string& name, const std::string& content) const {
  const std::string path = path_ + "/" + name;
  std::ofstream(path) << content;
  return path;
}

rapidjson::Document Answer::json() const {
  rapidjson::Document document;
  document.Parse(output.c_str());
  if (document.HasParseError()) ADD_FAILURE() << "no JSON: " << output;
  return document;
}

size_t Answer::lines() const { return static_cast<size_t>(std::ranges::count(output, '\n')); }

Answer run(const std::vector<std::string>& command) {
  Child child(command);
  Answer answer;
  answer.exit_code = child.wait();
  answer.output = child.output();
  return answer;
}

DaemonUnderTest::DaemonUnderTest(const std::string& config, std::vector<std::string> environment)
    : environment_(std::move(environment)) {
  configure(config);
  start();
}

void DaemonUnderTest::start() {
  process_ = std::make_unique<Child>(command(), Child::Options{.stopped = false, .environment = environment_});
}

std::vector<std::string> DaemonUnderTest::command() const {
  return {our_program("stackwatchd"),   "--config",    config_file(), "--socket", socket(), "--state-dir",
          directory_.path() + "/state", "--foreground"};
}

bool DaemonUnderTest::ready() const {
  // A sanitizer's daemon takes a moment.
  return eventually(30, [this] {
    const Answer answer = ask({"status", "--json"});
    return answer.exit_code == 0 && answer.json()["ticks"].GetUint64() > 0;
  });
}

Answer DaemonUnderTest::ask(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), our_program("stackwatch"));
  arguments.insert(arguments.end(), {"--socket", socket()});
  return run(arguments);
}

int DaemonUnderTest::stop() {
  process_->signal(SIGTERM);
  return process_->wait();
}

void DaemonUnderTest::restart_after_kill() {
  process_->signal(SIGKILL);
  process_->wait();
  start();
}

int bpf_programs_loaded() {
  int loaded = 0;
  bpf_attr attributes{};
  while (syscall(SYS_bpf, BPF_PROG_GET_NEXT_ID, &attributes, sizeof(attributes)) == 0) {
    bpf_attr by_id{};
    by_id.prog_id = attributes.next_id;
    const auto fd = static_cast<int>(syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, &by_id, sizeof(by_id)));
    if (fd >= 0) {
      bpf_prog_info info{};
      bpf_attr query{};
      query.info.bpf_fd = static_cast<uint32_t>(fd);
      query.info.info_len = sizeof(info);
      query.info.info = reinterpret_cast<uint64_t>(&info);
      if (syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &query, sizeof(query)) == 0) {
        for (const char* name : {"sample_on_cpu", "take_census"}) loaded += std::strcmp(info.name, name) == 0 ? 1 : 0;
      }
      close(fd);
    }
    attributes.start_id = attributes.next_id;
    attributes.next_id = 0;
  }
  return loaded;
}

}  // namespace stackwatch
