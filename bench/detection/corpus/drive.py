#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command that record.sh records: starts one wave of programs, makes their changes at random moments, and writes
what happened when.

  drive.py cpu|memory BINARIES OUT --first N --repetitions R [--scale S]

Each run has a name, CASE-N, which is the name of its executable too: so each is a service of its own to the detectors,
and an alert's exe tells which run it is about. What is random about a run follows from its case and N. Truths go to
OUT/NAME.truth.json; times are seconds of CLOCK_REALTIME.
"""
import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib

CPU_CGROUP, IO_CGROUP = "/sys/fs/cgroup/cpu/stackwatch-corpus", "/sys/fs/cgroup/blkio/stackwatch-corpus"
ONSET_S = {"cpu": (220, 280), "memory": (330, 390)}  # after the longest baseline and the settling of each
AFTER_S = {"cpu": 320, "memory": 330}

# case: is it a change, what is started, and what is done to it at the onset. "signal": SIGUSR1; "again": it is stopped
# and started again with further arguments; "quota", "disk": its control group changes.
CASES = {
    "cpu": {
        "grow1": (True, ["--case", "grow", "--points", "1"], "signal"),
        "grow2": (True, ["--case", "grow", "--points", "2"], "signal"),
        "grow5": (True, ["--case", "grow", "--points", "5"], "signal"),
        "grow20": (True, ["--case", "grow", "--points", "20"], "signal"),
        "busyworker": (True, ["--case", "busy", "--load", "0.01"], "signal"),
        "python": (True, ["grow", "0.04"], "signal"),
        "lock": (True, ["--case", "lock", "--load", "0.005"], "signal"),
        "slowdisk": (True, ["--case", "disk", "--load", "0.01"], "disk"),
        "load": (False, ["--case", "load", "--load", "0.02"], "signal"),
        "rename": (False, ["--case", "none", "--load", "0.03"], ["--renamed"]),
        "move": (False, ["--case", "none", "--load", "0.03"], ["--moved"]),
        "restart": (False, ["--case", "none", "--load", "0.02"], []),
        "quota": (False, ["--case", "none", "--load", "0.03"], "quota"),
        "periodic": (False, ["--case", "periodic", "--load", "0.02"], None),
        "gc": (False, ["gc", "0.02"], None),
        "transient": (False, ["--case", "transient", "--load", "0.03"], "signal"),
    },
    "memory": {
        "leak10k": (True, ["--case", "leak", "--rate", "10000"], "signal"),
        "leak100k": (True, ["--case", "leak", "--rate", "100000"], "signal"),
        "leak1m": (True, ["--case", "leak", "--rate", "1000000"], "signal"),
        "leak10m": (True, ["--case", "leak", "--rate", "10000000"], "signal"),
        "cache": (True, ["--case", "cache", "--rate", "50000"], "signal"),
        "cachefills": (False, ["--case", "fill"], "signal"),
        "saw": (False, ["--case", "saw"], None),
    },
}
PYTHON_CASES = ("python", "gc")
WORKERS = 4


def put(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


class Run:
    def __init__(self, options, case, number):
        self.case, self.name = case, f"{case}-{number}"
        self.options = options
        self.is_change, self.arguments, self.action = CASES[options.wave][case]
        draw = random.Random(zlib.crc32(self.name.encode()))
        self.seed = draw.getrandbits(31)
        low, high = options.onset_s
        self.onset_after_s = draw.uniform(low, high) * options.scale
        # Of what it uses: from a little tighter than that to half.
        self.quota = draw.uniform(0.5, 0.9)
        self.writes_a_second = draw.randint(1, 4)
        self.directory = os.path.join(options.out, "run", self.name)
        os.makedirs(self.directory, exist_ok=True)
        self.processes, self.reports, self.cgroups = [], [], []
        self.onset_s = None
        self.cpu_s = 0.0

    def command(self, more):
        exe = os.path.join(self.directory, self.name)
        if self.case in PYTHON_CASES:
            source = os.path.realpath(self.options.python)
            script = os.path.join(os.path.dirname(os.path.realpath(__file__)), "collector.py")
            command = [exe, script, *self.arguments, str(self.seed)]
        else:
            program = "requests" if self.options.wave == "cpu" else "allocations"
            source = os.path.join(self.options.binaries, program)
            command = [exe, *self.arguments, "--seed", str(self.seed), *more]
        if not os.path.exists(exe):
            shutil.copy2(source, exe)
        return command

    def start(self, more=()):
        if self.action == "quota":
            # At first as much again as it uses.
            self.into_cgroup(CPU_CGROUP, "cpu.cfs_quota_us", str(int(0.12 * 100000)))
        if self.action == "disk":
            self.into_cgroup(IO_CGROUP, None, None)
        environment = dict(os.environ, PYTHONHOME=self.options.python_home)
        for _ in range(WORKERS if self.case == "busyworker" else 1):
            self.processes.append(subprocess.Popen(self.command(more), stdout=subprocess.PIPE, cwd=self.directory,
                                                   env=environment, stdin=subprocess.DEVNULL))
            for path in self.cgroups:
                put(os.path.join(path, "cgroup.procs"), str(self.processes[-1].pid))

    def into_cgroup(self, top, key, value):
        path = os.path.join(top, self.name)
        os.makedirs(path, exist_ok=True)
        if key:
            put(os.path.join(path, key), value)
        if path not in self.cgroups:
            self.cgroups.append(path)

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        text, _ = process.communicate(timeout=30)
        report = json.loads(text)
        self.cpu_s += report["cpu_s"]
        return report

    def change(self):
        self.onset_s = time.time()
        if self.action == "signal":
            self.processes[0].send_signal(signal.SIGUSR1)
        elif self.action == "quota":
            put(os.path.join(self.cgroups[0], "cpu.cfs_quota_us"), str(int(max(0.03 * self.quota, 0.01) * 100000)))
        elif self.action == "disk":
            with open("/sys/class/block/" + self.options.disk + "/dev", encoding="ascii") as file:
                device = file.read().strip()
            put(os.path.join(self.cgroups[0], "blkio.throttle.write_iops_device"), f"{device} {self.writes_a_second}")
        elif isinstance(self.action, list):
            self.reports.append(self.stop(self.processes.pop()))
            self.start(self.action)

    def end(self):
        guilty = self.processes[0].pid
        self.reports += [self.stop(process) for process in self.processes]
        last = self.reports[0] if self.case == "busyworker" else self.reports[-1]
        truth = {"case": self.case, "run": self.name, "change": self.is_change, "functions": last["functions"],
                 "pid": guilty, "started_s": self.started_s, "ended_s": time.time(),
                 "onset_s": float(self.onset_s if self.onset_s else self.started_s),
                 "cpu_s": self.cpu_s, "planned_cpu_s": sum(report["planned_cpu_s"] for report in self.reports)}
        for key in ("before", "after", "kept_bytes"):
            if key in last:
                truth[key] = last[key]
        put(os.path.join(self.options.out, self.name + ".truth.json"), json.dumps(truth) + "\n")
        self.processes = []
        shutil.rmtree(self.directory)

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait()
        for path in self.cgroups:
            os.rmdir(path)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wave", choices=sorted(CASES))
    parser.add_argument("binaries")
    parser.add_argument("out")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1, help="of all times, to try it out")
    parser.add_argument("--cases", default="", help="only these, with commas")
    parser.add_argument("--onset", default="", help="LOW,HIGH: seconds after the start")
    options = parser.parse_args()
    options.onset_s = [float(s) for s in options.onset.split(",")] if options.onset else ONSET_S[options.wave]
    options.binaries, options.out = os.path.abspath(options.binaries), os.path.abspath(options.out)
    options.python, options.python_home = os.path.realpath(sys.executable), sys.base_prefix
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    # The disk below OUT: of the mounts that hold it the deepest, which is the longest.
    holding = [m for m in mounts if os.path.join(options.out, "").startswith(os.path.join(m[4], ""))]
    source = max(holding, key=lambda m: len(m[4]))
    options.disk = os.path.basename(os.path.realpath(source[source.index("-") + 2]))
    return options


def main():
    options = parse()
    wanted = options.cases.split(",") if options.cases else list(CASES[options.wave])
    runs = [Run(options, case, n) for n in range(options.first, options.first + options.repetitions) for case in wanted]
    # Asked to stop, it takes its programs along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        drive(options, runs)
    finally:
        for run in runs:
            run.kill()
    with contextlib.suppress(OSError):  # another wave may use it
        os.rmdir(os.path.join(options.out, "run"))


def drive(options, runs):
    start = time.monotonic()
    for run in runs:
        run.start()
        run.started_s = time.time()
        time.sleep(0.05)
    for run in sorted(runs, key=lambda r: r.onset_after_s):
        time.sleep(max(0, start + run.onset_after_s - time.monotonic()))
        if run.action is not None:
            run.change()
    time.sleep(max(0, start + (options.onset_s[1] + AFTER_S[options.wave]) * options.scale - time.monotonic()))
    for run in runs:
        run.end()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(runs)} runs, {usage.ru_utime + usage.ru_stime:.0f} s of CPU time in "
          f"{time.monotonic() - start:.0f} s", file=sys.stderr)


main()
