// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace stackwatch {

/// A made-up /proc in a temporary directory, gone with the object.
class ProcTree {
 public:
  /// What the fake kernel says about a process.
  struct Process {
    int32_t pid = 0;
    std::string comm = "program";
    int32_t parent_pid = 1;
    uint64_t flags = 0;
    uint64_t minor_faults = 0;
    uint64_t major_faults = 0;
    uint64_t user_ticks = 0;
    uint64_t system_ticks = 0;
    int nice = 0;
    uint64_t start_ticks = 100;
    uint64_t rss_pages = 0;
    unsigned policy = 0;
    char state = 'S';
    uint32_t uid = 0;
    std::string cgroup = "0::/\n";
    std::string exe = "/usr/bin/program";
    struct Thread {
      int32_t tid = 0;
      uint64_t wait_ns = 0;
      uint64_t voluntary = 0;
      uint64_t involuntary = 0;
    };
    std::vector<Thread> threads = {};  ///< none: the leader alone
  };

  ProcTree() {
    std::string name = std::filesystem::temp_directory_path() / "stackwatch-proc-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) std::abort();
    root_ = name;
  }
  ~ProcTree() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  ProcTree(const ProcTree&) = delete;
  ProcTree& operator=(const ProcTree&) = delete;

  [[nodiscard]] const std::string& root() const { return root_; }

  void write(const std::string& path, const std::string& content) const {
    const std::filesystem::path full = root_ + "/" + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full, std::ios::binary | std::ios::trunc) << content;
  }
  void link(const std::string& path, const std::string& target) const {
    const std::filesystem::path full = root_ + "/" + path;
    std::filesystem::create_directories(full.parent_path());
    std::filesystem::remove(full);
    std::filesystem::create_symlink(target, full);
  }
  void remove(const std::string& path) const { std::filesystem::remove_all(root_ + "/" + path); }

  /// As proc(5) has it: 52 fields.
  [[nodiscard]] static std::string stat(const Process& p) {
    const size_t threads = p.threads.empty() ? 1 : p.threads.size();
    std::string line = std::to_string(p.pid) + " (" + p.comm + ") " + p.state + " " + std::to_string(p.parent_pid) +
                       " 1 1 0 -1 " + std::to_string(p.flags) + " " + std::to_string(p.minor_faults) + " 900 " +
                       std::to_string(p.major_faults) + " 901 " + std::to_string(p.user_ticks) + " " +
                       std::to_string(p.system_ticks) + " 902 903 20 " + std::to_string(p.nice) + " " +
                       std::to_string(threads) + " 0 " + std::to_string(p.start_ticks) + " 1000000 " +
                       std::to_string(p.rss_pages) + " 18446744073709551615";
    for (int field = 26; field <= 40; ++field) line += " " + std::to_string(field);
    line += " " + std::to_string(p.policy);
    for (int field = 42; field <= 52; ++field) line += " 0";
    return line + "\n";
  }

  /// Writes everything about a process anew.
  void put(const Process& p) const {
    const std::string dir = std::to_string(p.pid);
    remove(dir);
    write(dir + "/stat", stat(p));
    write(dir + "/cgroup", p.cgroup);
    if (!p.exe.empty()) link(dir + "/exe", p.exe);
    std::vector<Process::Thread> threads = p.threads;
    if (threads.empty()) threads.push_back({.tid = p.pid});
    for (const Process::Thread& thread : threads) {
      const std::string task = dir + "/task/" + std::to_string(thread.tid);
      write(task + "/schedstat", "123456 " + std::to_string(thread.wait_ns) + " 7\n");
      const std::string uid = std::to_string(p.uid);
      write(task + "/status", "Name:\tx\nUid:\t4242\t" + uid + "\t4343\t4444\nGid:\t1\t1\t1\t1\nThreads:\t1\n" +
                                  "voluntary_ctxt_switches:\t" + std::to_string(thread.voluntary) +
                                  "\nnonvoluntary_ctxt_switches:\t" + std::to_string(thread.involuntary) + "\n");
    }
  }

 private:
  std::string root_;
};

}  // namespace stackwatch
