#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The daemon on a machine full of change, for hours: flat memory and descriptors, no missed watchdog, no false alarm, no
lost alert. With --storms: what the machine can do worst, one storm after the other. Prints tables for
docs/reliability.md; exit code 1 where something does not hold."""
import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # nothing beside the sources
import harness
import storms

# Everything that is needed for an alert, and room for the machine's other work: learning (45 s), quarantine (30 s).
ONSET_S = (90, 140)
AFTER_ONSET_S = 100
LANES = 3
LOAD = 0.3
# A smaller change than [alerts] min_change_cores is nothing to tell: what a starved machine leaves of the 20 points.
GROWTH = 0.2
MIN_CHANGE_CORES = 0.02
# One round of what the daemon is put under, in seconds each; between two rounds it is left alone.
PHASES = (("quiet", 60), ("memory pressure", 60), ("no journal", 60), ("clock jumps", 60), ("stuck clients", 60))
CLOCK_JUMPS_S = (3600, -3600, 86400, 0)
# Over which the memory of the whole group may not go; the daemon's own limit is below it.
GROUP_BYTES = 400 << 20
# First part of the run: caches fill, services are learned.
WARM_UP = 0.4
# What still counts as flat, per hour: less than the noise of a run of 20 minutes, far less than a leak worth the name.
FLAT_BYTES_PER_HOUR = 12e6
FLAT_FDS_PER_HOUR = 4
STATUS_S = 0.1
# While the daemon's own control group is full to its limit: each page that somebody in it asks for waits until the kernel
# has found another one to take back.
STARVED_STATUS_S = 0.5
STARVED_PHASE = "memory pressure"

# systemd/message_ids.h
FIRING = "9fc0a0ab93f14d3cb7f955ba7f7e61f4"

CONFIG = """[[watch]]
name = "changer*"
[[watch]]
name = "churn"
probes = ["on_cpu", "off_cpu"]
"""


class Pressure:
    """Walks through the phases, over and over."""

    def __init__(self, daemon, memory_group):
        self.daemon = daemon
        self.memory_group = memory_group
        self.since = time.monotonic()
        self.phase = 0
        self.steps = 0
        self.hog = None
        self.stuck = None
        self.rounds = collections.Counter()
        self.begin()

    @property
    def name(self):
        return PHASES[self.phase][0]

    def begin(self):
        self.since = time.monotonic()
        self.steps = 0
        self.rounds[self.name] += 1
        if self.name == "no journal":
            self.daemon.close_journal()
        elif self.name == "stuck clients":
            self.stuck = harness.StuckClients(self.daemon.socket, 60)

    def end(self):
        if self.name == "no journal":
            self.daemon.open_journal()
        elif self.name == "clock jumps":
            self.daemon.set_clock(0)
        elif self.name == "stuck clients":
            self.stuck.close()
        if self.hog:
            self.hog.kill()
            self.hog.wait()
            self.hog = None

    def press(self):
        """Somebody in the daemon's control group takes memory until the kernel ends it, first of all."""
        script = 'echo $$ >"$1/cgroup.procs"; echo 1000 >/proc/self/oom_score_adj; exec tail /dev/zero'
        return subprocess.Popen(["sh", "-c", script, "sh", self.memory_group], stderr=subprocess.DEVNULL,
                                stdin=subprocess.DEVNULL, preexec_fn=harness.end_with_parent)

    def step(self):
        """Once a second or so."""
        passed = time.monotonic() - self.since
        if passed >= PHASES[self.phase][1]:
            self.end()
            self.phase = (self.phase + 1) % len(PHASES)
            self.begin()
        elif self.name == "memory pressure" and self.memory_group and (not self.hog or self.hog.poll() is not None):
            self.hog = self.press()
            self.steps += 1
            self.rounds["memory taken"] += 1
        elif self.name == "clock jumps" and passed >= self.steps * 15:
            self.daemon.set_clock(CLOCK_JUMPS_S[self.steps % len(CLOCK_JUMPS_S)])
            self.steps += 1
            self.rounds["jumps"] += 1


class Shifts:
    """True changes at random moments: each must be told."""

    def __init__(self, load, directory, end):
        self.load = load
        self.directory = directory
        self.end = end
        self.lanes = [None] * LANES
        self.all = []

    def step(self):
        duration = ONSET_S[1] + AFTER_ONSET_S
        for lane, process in enumerate(self.lanes):
            if process is not None and process.poll() is None:
                continue
            if time.monotonic() + duration > self.end or (lane > 0 and self.lanes[lane - 1] is None):
                continue
            truth = os.path.join(self.directory, f"truth-{len(self.all)}")
            seed = random.randrange(1 << 31)
            # A name of its own: equal changes in several processes of one service are one alert.
            program = os.path.join(self.directory, f"changer-{len(self.all)}")
            shutil.copy(os.path.join(harness.PROGRAMS, "changer"), program)
            started = self.load.start(program, "--case", "grow20", "--load", LOAD, "--onset-min", ONSET_S[0],
                                      "--onset-max", ONSET_S[1], "--duration", duration, "--seed", seed,
                                      "--truth-file", truth)
            self.all.append((started, truth))
            self.lanes[lane] = started
            return  # one at a time: lanes do not keep step

    def running(self):
        return any(process.poll() is None for process, _ in self.all)

    def truths(self):
        for process, path in self.all:
            with open(path) as file:
                yield process.pid, json.load(file)


def judge_alerts(daemon, shifts, own):
    """Rows for the table, and every entry that was not asked for."""
    firing = [e for e in daemon.entries if e.get("STACKWATCH_STATE") == "firing"]
    # A function that is found later is told too, under a message id of its own.
    by_id = collections.Counter(e["STACKWATCH_ALERT_ID"] for e in firing if e["MESSAGE_ID"] == FIRING)
    delays, lost, starved, false, more = [], [], [], [], []
    wanted = set()
    truths = {pid: truth for pid, truth in shifts.truths()}
    for pid, truth in truths.items():
        mine = [e for e in firing if e["STACKWATCH_PID"] == str(pid) and e["at"] >= truth["onset_s"]]
        right = [e for e in mine if e["STACKWATCH_FRAME"] == truth["function"]]
        if right:
            delays.append(min(e["at"] for e in right) - truth["onset_s"])
            wanted.update(e["STACKWATCH_ALERT_ID"] for e in right)
        else:
            cores = truth["cpu_s"] / (truth["ended_s"] - truth["started_s"])
            kind = lost if GROWTH * cores >= MIN_CHANGE_CORES else starved
            kind.append(f"changer[{pid}], which had {cores:.3f} cores of {LOAD}")
    others = {}
    for entry in firing:
        if entry["STACKWATCH_ALERT_ID"] in wanted:
            continue
        pid = int(entry["STACKWATCH_PID"])
        if pid in truths and entry["at"] >= truths[pid]["onset_s"]:
            more.append(entry["MESSAGE"])
        elif pid in truths or entry["STACKWATCH_COMM"].partition("-")[0] in ("changer", "churn", "exe"):
            false.append(entry["MESSAGE"])
        else:
            kind = "the soak's own programs" if pid in own else "other programs of the machine"
            others[entry["STACKWATCH_ALERT_ID"]] = f"{kind}: {entry['MESSAGE']}"
    known = {alert["id"]: alert for alert in daemon.ask("ListAlerts")["alerts"]}
    untold = [i for i, alert in known.items() if alert["state"] != "pending" and i not in by_id]
    return {"shifts": len(truths), "delays": delays, "lost": lost, "starved": starved, "false": false, "more": more, "others": others,
            "untold": untold, "again": sum(by_id.values()) - len(by_id)}


def flatness(samples, value):
    rest = samples[int(WARM_UP * len(samples)):]
    return harness.slope_per_hour([(s.t, value(s), s.phase) for s in rest]), max(value(s) for s in samples)


def in_an_hour(slope, unit=1, name=""):
    return "too short to tell" if slope is None else f"{slope / unit:+.1f}{name} an hour"


def report(daemon, observer, prober, alerts, status, code):
    samples = observer.samples
    gaps = daemon.manager.gaps()
    limits = {limit["name"]: limit["limit"] for limit in status["limits"]}
    rows = []

    def row(what, asked, seen, good):
        rows.append((what, asked, seen, "yes" if good else "**no**"))

    for what, value in (("memory of the daemon", lambda s: s.daemon_own), ("memory of its worker", lambda s: s.worker_own),
                        ("memory of its maps", lambda s: s.maps)):
        slope, highest = flatness(samples, value)
        row(what, f"at most {FLAT_BYTES_PER_HOUR / 1e6:.0f} MB more in an hour",
            f"{in_an_hour(slope, 1e6, ' MB')}, at most {highest / 1e6:.1f} MB", (slope or 0) <= FLAT_BYTES_PER_HOUR)
    together = max(s.daemon + s.worker + s.maps for s in samples)
    row("memory of all", f"below its limit of {limits['memory'] / 1e6:.0f} MB", f"at most {together / 1e6:.1f} MB",
        together < limits["memory"])
    for what, value in (("descriptors", lambda s: s.fds), ("threads", lambda s: s.threads)):
        slope, highest = flatness(samples, value)
        row(what, "flat", f"{in_an_hour(slope)}, at most {highest}", (slope or 0) <= FLAT_FDS_PER_HOUR)
    mean_cpu = 100 * (samples[-1].cpu_s - samples[0].cpu_s) / (samples[-1].t - samples[0].t)
    row("CPU time", f"below its limit of {limits['cpu_percent']:g} %",
        f"{mean_cpu:.1f} % on average, {harness.highest_cpu_percent(samples):.1f} % in the worst 10 s",
        mean_cpu < limits["cpu_percent"])
    row("watchdog", f"no gap of {harness.WATCHDOG_US / 1e6:g} s",
        f"fed {len(gaps) + 1} times, longest gap {max(gaps):.2f} s", max(gaps) < harness.WATCHDOG_US / 1e6)
    starved = prober.phases.get(STARVED_PHASE, [])
    others = [answer for phase, answers in prober.phases.items() if phase != STARVED_PHASE for answer in answers]
    for what, answers, asked_s in (("status", others, STATUS_S),
                                   (f"status under {STARVED_PHASE}", starved, STARVED_STATUS_S)):
        worst = max(answers, default=0)
        row(what, f"within {1000 * asked_s:.0f} ms",
            f"{len(answers)} answers: median {1000 * harness.median(answers):.1f} ms, 99.9 % "
            f"{1000 * harness.quantile(answers, 0.999):.0f} ms, worst {1000 * worst:.0f} ms",
            worst <= asked_s)
    row("no answer", "none", f"{prober.failed} (an echo server's worst: {1000 * max(prober.echoes_s):.0f} ms)",
        prober.failed == 0)
    row("lost alerts", "none", f"{len(alerts['lost'])} of {alerts['shifts']} shifts not told, "
        f"{len(alerts['starved'])} more too small to tell, as the machine gave them too little CPU time; "
        f"{len(alerts['untold'])} alerts known to the daemon and not in the journal", not alerts["lost"] + alerts["untold"])
    row("delay", "", f"median {harness.median(alerts['delays']):.0f} s, longest {max(alerts['delays'], default=0):.0f} s "
        "from the onset to the entry, times without a journal included", bool(alerts["delays"]))
    row("false alarms", "none", f"{len(alerts['false'])}; {len(alerts['more'])} more about a shift; "
        f"{alerts['again']} told again with the same id", not alerts["false"])
    row("the end", "exit code 0", code, code == 0)
    print(harness.table(("what", "asked", "seen", "holds"), rows))
    print("\nStatus by what went on, median and worst: " + ", ".join(
        f"{name} {1000 * harness.median(times):.1f} and {1000 * max(times):.0f} ms"
        for name, times in prober.phases.items() if name) + ".")
    lost = {name: count for name, count in status["lost"].items() if count}
    print(f"Ticks: {status['ticks']}, missed {status['missed_ticks']}, longest {status['max_tick_ms']:.0f} ms. Losses: "
          f"{json.dumps(lost)}. Writes given up: {status['state']['dropped']}. Shed at the end: "
          f"{status['shedding'] or 'nothing'}.")
    for title, lines in (("Lost", alerts["lost"] + alerts["untold"]), ("Too small", alerts["starved"]),
                         ("False", alerts["false"]),
                         ("More about a shift", alerts["more"]), ("Not judged", alerts["others"].values())):
        for line in lines:
            print(f"{title}: {line}")
    return all(r[3] == "yes" for r in rows)


def keep(samples, path):
    with open(path, "w") as file:
        file.write(",".join(harness.Sample._fields) + "\n")
        file.writelines(",".join(map(str, sample)) + "\n" for sample in samples)


def soak(hours, directory):
    groups = harness.Groups(GROUP_BYTES)
    load = harness.Load(directory, groups.load)
    daemon = observer = prober = pressure = None
    try:
        # Steady, from before the daemon to its end: none of this is a change.
        load.start("churn", "--forks", 60, "--execs", 38, "--namespaces", 2)
        load.start("churn", "--maps", 20)
        load.start("churn", "--deep", 20)
        load.start("changer", "--case", "steady", "--load", 0.1, "--duration", 3600 * hours + 600)
        load.start("threads", "--count", 50, "--churn", "--cores", 0.05, "--seconds", 3600 * hours + 600)
        daemon = harness.Daemon(directory, CONFIG, groups.daemon, preload=True)
        observer = harness.Observer(daemon)
        prober = harness.Prober(daemon)
        pressure = Pressure(daemon, groups.memory)
        begun = time.monotonic()
        shifts = Shifts(load, directory, begun + 3600 * hours)
        while time.monotonic() < begun + 3600 * hours or shifts.running():
            if daemon.process.poll() is not None:
                raise RuntimeError("the daemon ended: " + daemon.log()[-2000:])
            pressure.step()
            observer.phase = prober.phase = pressure.name
            shifts.step()
            time.sleep(1)
        pressure.end()
        pressure_rounds, pressure = pressure.rounds, None
        time.sleep(35)  # what waited for a journal is tried again every 30 s
        observer.end()
        prober.end()
        keep(observer.samples, os.path.join(directory, "samples.csv"))
        status = daemon.ask("GetStatus")
        passed = time.monotonic() - begun
        print(f"{passed / 60:.0f} minutes, {status['processes']} processes, load average {os.getloadavg()[0]:.1f} on "
              f"{os.cpu_count()} CPUs. " + ", ".join(f"{k}: {v}" for k, v in pressure_rounds.items()) + ".\n")
        own = {os.getpid(), daemon.pid, prober.echo.pid, *harness.children(daemon.pid)}
        alerts = judge_alerts(daemon, shifts, own)
        return report(daemon, observer, prober, alerts, status, daemon.stop())
    finally:
        if pressure:
            pressure.end()
        for thread in (observer, prober):
            if thread:
                thread.end()
        load.end_all()
        if daemon:
            daemon.stop()
        groups.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hours", nargs="?", type=float, default=1 / 3, help="default: 20 minutes")
    parser.add_argument("--storms", action="store_true", help="the storms instead, a quarter of an hour")
    parser.add_argument("--only", metavar="NAME", help="one storm: " + ", ".join(storms.NAMES))
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("soak: root is needed: BPF, a mount namespace, a memory control group", file=sys.stderr)
        return 3
    if options.hours * 3600 < ONSET_S[1] + AFTER_ONSET_S or options.only not in (None, *storms.NAMES):
        parser.error("HOURS: at least 0.07, one shift; --only: one of " + ", ".join(storms.NAMES))
    # Every way of ending goes through the finally of whoever started something.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(130))
    directory = tempfile.mkdtemp(prefix="stackwatch-soak-")
    good = False
    try:
        good = storms.run(directory, options.only) if options.storms else soak(options.hours, directory)
    finally:
        if good:
            shutil.rmtree(directory)
        else:
            print(f"soak: logs are in {directory}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
