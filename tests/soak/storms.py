# SPDX-License-Identifier: Apache-2.0
"""Storms: what a machine can do worst, one after the other, each on a daemon of its own with its default limits. Beside
each runs a steady process that a rule watches: what was counted in it and what was lost must be what it used."""
import json
import os
import time

import harness

# The daemon has named what is there and attached what rules name, and its first minute, in which it sheds nothing, is
# over: what is measured is the storm and how the daemon holds its limits in it.
SETTLE_S = 75
FREQUENCY = 99
STATUS_S = 0.1
# Samples of a process against its CPU time: chance (1.5 % of 60 s at half a core), one tick at each end.
COUNTED = (0.93, 1.07)
# Of the machine's time. Above it counts are not judged: a sample that falls into stolen time is taken when the CPU goes
# on, but the time is nobody's (docs/architecture.md).
MAX_STOLEN = 0.01

CONFIG = f"""[[watch]]
name = "changer"
frequency = {FREQUENCY}
[[watch]]
name = "herd"
frequency = {FREQUENCY}
"""

# name, seconds, what it is, the programs with their arguments
STORMS = (
    ("forks", 60, "1,000 processes a second", [("churn", "--forks", 1000)]),
    ("execs", 30, "300 programs a second", [("churn", "--execs", 300)]),
    ("processes", 30, "20,000 processes", [("sleeper", "--count", 20000)]),
    ("threads", 30, "10,000 threads in one process", [("threads", "--count", 10000, "--cores", 0.3, "--seconds", 600)]),
    ("restarts", 30, "200 watched processes restart at once, every 10 s",
     [("herd", "--count", 200, "--every", 10, "--seconds", 600)]),
    ("maps", 30, "code is mapped and unmapped 200 times a second", [("churn", "--maps", 200)]),
    ("clients", 30, "60 of 64 clients do not read", []),
)
NAMES = [storm[0] for storm in STORMS]


class Counted:
    """What the daemon counted in the processes of a name, or in one of them: samples and what was lost of them, summed
    over all that it ever told of."""

    def __init__(self, comm, pid=None):
        self.comm = comm
        self.pid = pid
        self.rows = {}

    def look(self, daemon):
        for row in daemon.ask("ListAttachments")["attachments"]:
            process = row["process"]
            if process["comm"] == self.comm and self.pid in (None, process["pid"]):
                lost = row["lost"]
                uncounted = lost.get("map_full", 0) + lost.get("watch_full", 0) + lost.get("recursion_missed", 0)
                self.rows[process["pid"], process["start_time_ns"]] = row["samples"] + uncounted

    def sum(self):
        return sum(self.rows.values())


def watch(daemon, seconds, counted):
    """The time of the storm; the daemon must not end in it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if daemon.process.poll() is not None:
            raise RuntimeError("the daemon ended: " + daemon.log()[-2000:])
        counted.look(daemon)
        time.sleep(0.5)


def stolen_and_all():
    with open("/proc/stat") as stat:
        times = [int(field) for field in stat.readline().split()[1:9]]
    return times[7], sum(times)


def losses(before, after):
    return {name: count - before["lost"].get(name, 0) for name, count in after["lost"].items()
            if count > before["lost"].get(name, 0)}


def run_storm(directory, storm):
    name, seconds, what, programs = storm
    groups = harness.Groups()
    load = harness.Load(directory, groups.load)
    daemon = observer = prober = stuck = None
    try:
        steady = load.start("changer", "--case", "steady", "--load", 0.3, "--duration", 3600)
        daemon = harness.Daemon(directory, CONFIG, groups.daemon)
        time.sleep(SETTLE_S)
        counted, herd = Counted("changer", steady.pid), Counted("herd")
        before = daemon.ask("GetStatus")
        counted.look(daemon)
        samples, cpu_s = counted.sum(), harness.cpu_s(steady.pid)
        observer, prober = harness.Observer(daemon), harness.Prober(daemon)
        if name == "clients":
            stuck = harness.StuckClients(daemon.socket)
        stolen, all_time = stolen_and_all()
        storms = [load.start(*program) for program in programs]
        watch(daemon, seconds, herd)
        after = daemon.ask("GetStatus")
        counted.look(daemon)
        stolen_now, all_now = stolen_and_all()
        samples, cpu_s = counted.sum() - samples, harness.cpu_s(steady.pid) - cpu_s
        observer.end()
        prober.end()
        reports = [load.end(process) for process in storms]
        result = {"what": what, "before": before, "after": after, "observer": observer, "prober": prober,
                  "counted": samples / (FREQUENCY * cpu_s), "reports": reports,
                  "stolen": (stolen_now - stolen) / max(1, all_now - all_time), "herd": herd.sum(),
                  "code": daemon.stop()}
        daemon = None
        return result
    finally:
        for thread in (observer, prober):
            if thread:
                thread.end()
        if stuck:
            stuck.close()
        load.end_all()
        if daemon:
            daemon.stop()
        groups.close()


def row_of(result):
    """The row of the table, and what does not hold."""
    prober, samples = result["prober"], result["observer"].samples
    before, after = result["before"], result["after"]
    limits = {limit["name"]: limit["limit"] for limit in after["limits"]}
    worst, cpu = max(prober.answers_s), harness.highest_cpu_percent(samples)
    memory = max(s.daemon + s.worker + s.maps for s in samples)
    bad = []
    if worst > STATUS_S or prober.failed:
        bad.append("status")
    if cpu > limits["cpu_percent"]:
        bad.append("CPU")
    if memory > limits["memory"]:
        bad.append("memory")
    if not after["shedding"] and result["stolen"] < MAX_STOLEN and not COUNTED[0] <= result["counted"] <= COUNTED[1]:
        bad.append("counts")
    if result["code"] != 0:
        bad.append("exit code")
    echo = max(prober.echoes_s)
    row = (result["what"], after["tasks"],
           f"{1000 * harness.median(prober.answers_s):.1f} / {1000 * worst:.0f} ({1000 * echo:.0f})", prober.failed,
           f"{cpu:.1f} %", f"{memory / 1e6:.0f} MB", f"{after['max_tick_ms']:.0f} ms",
           after["missed_ticks"] - before["missed_ticks"], f"{result['counted']:.3f} ({100 * result['stolen']:.0f} % stolen)",
           json.dumps(losses(before, after)).strip("{}").replace('"', "") or "none", after["shedding"] or "nothing",
           ", ".join(bad) or "all")
    return row, bad


HEADINGS = ("storm", "tasks", "status: median / worst (echo server), ms", "no answer", "CPU, worst 10 s", "memory",
            "longest tick", "ticks missed", "counted of used CPU time", "lost", "shed", "does not hold")


def run(directory, only):
    rows, good = [], True
    for storm in STORMS:
        if only in (None, storm[0]):
            place = os.path.join(directory, storm[0])
            os.mkdir(place)
            result = run_storm(place, storm)
            row, bad = row_of(result)
            rows.append(row)
            good = good and not bad
            print(f"{storm[0]}: {row}", flush=True)
            for report in result["reports"]:
                print(f"  {json.dumps(report)}")
            if result["herd"]:
                used = sum(r.get("cpu_s", 0) for r in result["reports"])
                print(f"  samples in members of the herd, as far as seen: {result['herd']}, for {used:.2f} s of CPU time")
    print(f"\nLoad average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs.\n")
    print(harness.table(HEADINGS, rows))
    return good
