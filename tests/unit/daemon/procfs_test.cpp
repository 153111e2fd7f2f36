// SPDX-License-Identifier: Apache-2.0
#include "daemon/procfs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/fakes/proc_tree.h"

namespace stackwatch {
namespace {

using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

TEST(Procfs, ATreeThatIsNotThereHasNothing) {
  const Procfs procfs("/nonexistent/proc");
  EXPECT_THAT(procfs.pids(), IsEmpty());
  EXPECT_THAT(procfs.threads(1), IsEmpty());
  EXPECT_EQ(procfs.read(1, "stat"), std::nullopt);
  EXPECT_EQ(procfs.exe(1), std::nullopt);
  EXPECT_EQ(procfs.cgroup(1), "");
}

TEST(Procfs, OnlyNumbersAreProcesses) {
  const ProcTree tree;
  for (const char* name : {"1", "4711", "self", "12abc", "abc12", "1.5", " 7", "0x10", "99999999999999", "sys"})
    tree.write(std::string(name) + "/stat", "");
  EXPECT_THAT(Procfs(tree.root()).pids(), UnorderedElementsAre(1, 4711));
}

TEST(Procfs, ThreadsOfAProcess) {
  const ProcTree tree;
  tree.put({.pid = 10, .threads = {{.tid = 10}, {.tid = 11}, {.tid = 500}}});
  EXPECT_THAT(Procfs(tree.root()).threads(10), UnorderedElementsAre(10, 11, 500));
  EXPECT_THAT(Procfs(tree.root()).threads(11), IsEmpty());
}

TEST(Procfs, ReadsUpToTheLimitAndAnEmptyFileIsNotAMissingOne) {
  const ProcTree tree;
  tree.write("10/cmdline", "0123456789");
  tree.write("10/empty", "");
  const Procfs procfs(tree.root());
  EXPECT_EQ(procfs.read(10, "cmdline"), "0123456789");
  EXPECT_EQ(procfs.read(10, "cmdline", 4), "0123");
  EXPECT_EQ(procfs.read(10, "cmdline", 10), "0123456789");
  EXPECT_EQ(procfs.read(10, "empty"), "");
}

TEST(Procfs, ADirectoryIsNoFileAndAFifoDoesNotBlock) {
  const ProcTree tree;
  tree.write("10/task/10/stat", "");
  EXPECT_EQ(Procfs(tree.root()).read(10, "task"), std::nullopt);
  ASSERT_EQ(mkfifo((tree.root() + "/10/fifo").c_str(), 0600), 0);
  EXPECT_EQ(Procfs(tree.root()).read(10, "fifo"), "");
}

TEST(Procfs, TheExecutableNeedNotExist) {
  const ProcTree tree;
  tree.link("10/exe", "/gone/away (deleted)");
  tree.link("11/exe", "/" + std::string(3000, 'x') + "/with\nnewline");
  tree.write("12/exe", "a file, not a link");
  const Procfs procfs(tree.root());
  EXPECT_EQ(procfs.exe(10), "/gone/away (deleted)");
  EXPECT_EQ(procfs.exe(11), "/" + std::string(3000, 'x') + "/with\nnewline");
  EXPECT_EQ(procfs.exe(12), std::nullopt);
}

TEST(CgroupPath, WhatIsNoCgroupFileIsTheRoot) {
  for (const char* lines : {"", "\n", "\n\n\n", "garbage", ":", "0", "0:", "0::", "::\n::", "0::\n", "cpu:/x"})
    EXPECT_EQ(cgroup_path(lines), "/") << '"' << lines << '"';
}

TEST(CgroupPath, TheUnifiedHierarchyAlone) {
  EXPECT_EQ(cgroup_path("0::/system.slice/redis.service\n"), "/system.slice/redis.service");
  EXPECT_EQ(cgroup_path("0::/system.slice/redis.service"), "/system.slice/redis.service") << "no line end";
  EXPECT_EQ(cgroup_path("0::/\n"), "/");
  EXPECT_EQ(cgroup_path("0::/../../other\n"), "/../../other") << "from inside a cgroup namespace";
}

TEST(CgroupPath, TheOldHierarchies) {
  EXPECT_EQ(cgroup_path("12:cpu,cpuacct:/docker/abc\n5:memory:/elsewhere\n1:name=systemd:/user.slice/a.scope\n"),
            "/user.slice/a.scope");
  EXPECT_EQ(cgroup_path("12:cpu,cpuacct:/docker/abc\n5:memory:/elsewhere\n1:name=systemd:/\n"), "/docker/abc");
  EXPECT_EQ(cgroup_path("3:cpu:/docker/abc\n5:memory:/elsewhere\n"), "/docker/abc");
  EXPECT_EQ(cgroup_path("5:memory:/elsewhere\n7:cpuset:/else\n"), "/") << "neither is about who it is";
}

TEST(CgroupPath, BothAtOnce) {
  const std::string v1 = "12:cpu,cpuacct:/c\n1:name=systemd:/system.slice/x.service\n";
  EXPECT_EQ(cgroup_path(v1 + "0::/\n"), "/system.slice/x.service") << "systemd did not use the new one";
  EXPECT_EQ(cgroup_path(v1 + "0::/new\n"), "/new");
  EXPECT_EQ(cgroup_path("0::/new\n" + v1), "/new") << "in any order";
}

TEST(CgroupPath, NamesAreWhatTheyAre) {
  EXPECT_EQ(cgroup_path("0::/a:b:c::/d\n"), "/a:b:c::/d") << "colons";
  EXPECT_EQ(cgroup_path("0::/with blank\\012and escape\n"), "/with blank\\012and escape");
  EXPECT_EQ(cgroup_path("0::/\xff\xfe\n"), "/\xff\xfe");
  EXPECT_EQ(cgroup_path("0::/0::\n"), "/0::");
  const std::string deep = "/" + std::string(5000, 'd');
  EXPECT_EQ(cgroup_path("0::" + deep + "\n"), deep);
}

TEST(Procfs, CgroupOfAProcess) {
  const ProcTree tree;
  tree.put({.pid = 10, .cgroup = "0::/system.slice/a.service\n"});
  EXPECT_EQ(Procfs(tree.root()).cgroup(10), "/system.slice/a.service");
  EXPECT_EQ(Procfs(tree.root()).cgroup(11), "");
}

}  // namespace
}  // namespace stackwatch
