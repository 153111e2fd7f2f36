#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command that record.sh records: starts one wave of programs, makes their changes at random moments, and writes
what happened when.

  drive.py cpu|long|memory BINARIES OUT --frequency HZ --first N --repetitions R [--scale S]

Each run has a name, CASE-N, which is the name of its executable too: so each is a service of its own to the detectors,
and an alert's exe tells which run it is about. What is random about a run follows from its case and N. Truths go to
OUT/NAME.truth.json, of a run with several changes one of each to OUT/NAME.K.truth.json; times are seconds of
CLOCK_REALTIME.

Programs of the waves cpu and long use as little CPU time as samples at HZ allow: each is to have so many samples a
second, and a piece of its work is as long as the distance of two.
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
# After the longest baseline and the settling of each; long: with the baseline of a daemon that was installed some time.
ONSET_S = {"cpu": (215, 250), "long": (1500, 1620), "memory": (330, 390)}
AFTER_S = {"cpu": 150, "long": 1500, "memory": 250}
# Of long: how long a change stays, and then stays away.
STAYS_S, QUIET_S = (150, 180), (130, 170)
# What a change leaves behind is told for so long.
TOLD_S = 20

# case: is it a change, what is started, what is done to it at the onset, and samples a second. "signal": SIGUSR1;
# "again": it is stopped and started again with further arguments; "quota", "disk": its control group changes.
CASES = {
    "cpu": {
        "grow1": (True, ["--case", "grow", "--points", "1"], "signal", 100),
        "grow2": (True, ["--case", "grow", "--points", "2"], "signal", 100),
        "grow5": (True, ["--case", "grow", "--points", "5"], "signal", 100),
        "grow20": (True, ["--case", "grow", "--points", "20"], "signal", 40),
        "busyworker": (True, ["--case", "busy"], "signal", 10),
        "python": (True, ["grow"], "signal", 40),
        "lock": (True, ["--case", "lock"], "signal", 5),
        "slowdisk": (True, ["--case", "disk"], "disk", 10),
        "load": (False, ["--case", "load"], "signal", 20),
        "rename": (False, ["--case", "none"], ["--renamed"], 30),
        "move": (False, ["--case", "none"], ["--moved"], 30),
        "restart": (False, ["--case", "none"], [], 20),
        "quota": (False, ["--case", "none"], "quota", 40),
        "periodic": (False, ["--case", "periodic"], None, 20),
        "gc": (False, ["gc"], None, 20),
        "transient": (False, ["--case", "transient"], "signal", 30),
    },
    "long": {
        "grow5old": (True, ["--case", "grow", "--points", "5"], "signal", 100),
    },
    "memory": {
        "leak10k": (True, ["--case", "leak", "--rate", "10000"], "signal", None),
        "leak100k": (True, ["--case", "leak", "--rate", "100000"], "signal", None),
        "leak1m": (True, ["--case", "leak", "--rate", "1000000"], "signal", None),
        "leak10m": (True, ["--case", "leak", "--rate", "10000000"], "signal", None),
        "cache": (True, ["--case", "cache", "--rate", "50000"], "signal", None),
        "cachefills": (False, ["--case", "fill"], "signal", None),
        "saw": (False, ["--case", "saw"], None, None),
    },
}
PYTHON_CASES = ("python", "gc")
WORKERS = 4
QUOTA_PERIOD_US = 200000


def put(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


class Run:
    def __init__(self, options, case, number):
        self.case, self.name = case, f"{case}-{number}"
        self.options = options
        self.is_change, self.arguments, self.action, samples = CASES[options.wave][case]
        self.load = samples / options.frequency if samples else None
        draw = random.Random(zlib.crc32(self.name.encode()))
        self.seed = draw.getrandbits(31)
        self.changes = self.draw_changes(draw)
        # Of what it uses: from a little tighter than that to half.
        self.quota = draw.uniform(0.5, 0.9)
        self.writes_a_second = draw.randint(1, 4)
        self.directory = os.path.join(options.out, "run", self.name)
        os.makedirs(self.directory, exist_ok=True)
        self.processes, self.reports, self.cgroups = [], [], []
        self.told = []  # of each change: from when on alerts are about it, its onset, its end
        self.cpu_s = 0.0

    def draw_changes(self, draw):
        """When it begins and, of a long run, ends: seconds after the start."""
        at = draw.uniform(*self.options.onset_s)
        if self.options.wave != "long":
            return [(at * self.options.scale, None)]
        changes = []
        while True:
            end = at + draw.uniform(*STAYS_S)
            if end > self.options.ends_s:
                return changes
            changes.append((at * self.options.scale, end * self.options.scale))
            at = end + draw.uniform(*QUIET_S)

    def command(self, more):
        exe = os.path.join(self.directory, self.name)
        if self.case in PYTHON_CASES:
            source = os.path.realpath(self.options.python)
            script = os.path.join(os.path.dirname(os.path.realpath(__file__)), "collector.py")
            command = [exe, script, *self.arguments, str(self.load), str(1e3 / self.options.frequency), str(self.seed)]
        else:
            program = "requests" if self.load else "allocations"
            source = os.path.join(self.options.binaries, program)
            load = ["--load", str(self.load), "--piece", str(1e3 / self.options.frequency)] if self.load else []
            command = [exe, *self.arguments, *load, "--seed", str(self.seed), *more]
        if not os.path.exists(exe):
            shutil.copy2(source, exe)
        return command

    def start(self, more=()):
        if self.action == "quota":
            # At first four times what it uses. The kernel takes no quota below 1 ms.
            self.into_cgroup(CPU_CGROUP, "cpu.cfs_period_us", str(QUOTA_PERIOD_US))
            self.into_cgroup(CPU_CGROUP, "cpu.cfs_quota_us", str(int(4 * self.load * QUOTA_PERIOD_US)))
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

    def begin_change(self):
        since_s = self.told[-1][2] + TOLD_S if self.told else self.started_s
        self.told.append((since_s, time.time(), None))
        if self.action == "signal":
            self.processes[0].send_signal(signal.SIGUSR1)
        elif self.action == "quota":
            put(os.path.join(self.cgroups[0], "cpu.cfs_quota_us"), str(int(self.quota * self.load * QUOTA_PERIOD_US)))
        elif self.action == "disk":
            with open("/sys/class/block/" + self.options.disk + "/dev", encoding="ascii") as file:
                device = file.read().strip()
            put(os.path.join(self.cgroups[0], "blkio.throttle.write_iops_device"), f"{device} {self.writes_a_second}")
        elif isinstance(self.action, list):
            self.reports.append(self.stop(self.processes.pop()))
            self.start(self.action)

    def end_change(self):
        self.told[-1] = (*self.told[-1][:2], time.time())
        self.processes[0].send_signal(signal.SIGUSR2)

    def end(self):
        ended_s = time.time()
        guilty = self.processes[0].pid
        self.reports += [self.stop(process) for process in self.processes]
        last = self.reports[0] if self.case == "busyworker" else self.reports[-1]
        planned_s = sum(report["planned_cpu_s"] for report in self.reports)
        for k, (since_s, onset_s, end_s) in enumerate(self.told or [(self.started_s, self.started_s, None)]):
            until_s = min(end_s + TOLD_S, ended_s) if end_s else ended_s
            truth = {"case": self.case, "run": self.name, "change": self.is_change, "pid": guilty, "started_s": since_s,
                     "onset_s": onset_s, "ended_s": until_s, "cpu_s": self.cpu_s, "planned_cpu_s": planned_s,
                     **last["changes"][k]}
            name = f"{self.name}.{k + 1}" if self.options.wave == "long" else self.name
            put(os.path.join(self.options.out, name + ".truth.json"), json.dumps(truth) + "\n")
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
    parser.add_argument("--frequency", type=float, required=True, help="of the recorder's samples")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1, help="of all times, to try it out")
    parser.add_argument("--cases", default="", help="only these, with commas")
    parser.add_argument("--onset", default="", help="LOW,HIGH: seconds after the start")
    options = parser.parse_args()
    options.onset_s = [float(s) for s in options.onset.split(",")] if options.onset else ONSET_S[options.wave]
    options.ends_s = options.onset_s[1] + AFTER_S[options.wave]
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
    steps = [(begin, run.begin_change) for run in runs if run.action is not None for begin, _ in run.changes]
    steps += [(end, run.end_change) for run in runs for _, end in run.changes if end]
    for at, step in sorted(steps, key=lambda s: s[0]):
        time.sleep(max(0, start + at - time.monotonic()))
        step()
    time.sleep(max(0, start + options.ends_s * options.scale - time.monotonic()))
    for run in runs:
        run.end()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(runs)} runs, {usage.ru_utime + usage.ru_stime:.0f} s of CPU time in "
          f"{time.monotonic() - start:.0f} s", file=sys.stderr)


main()
