# SPDX-License-Identifier: Apache-2.0
"""A daemon under observation: what it says to its service manager and its journal, what it answers, what it uses."""
import array
import collections
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(REPOSITORY, "build", "bin")
PROGRAMS = os.path.join(BIN, "programs")
PAGE = os.sysconf("SC_PAGESIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# What the unit gives, in microseconds.
WATCHDOG_US = 30_000_000


class Receiver(threading.Thread):
    """A datagram socket that hears with the kernel's own times of arrival, so that a late reader makes no gap."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_TIMESTAMPNS", 35), 1)
        self.socket.bind(path)
        self.ending = False
        self.start()

    def run(self):
        while not self.ending:
            if not select.select([self.socket], [], [], 0.2)[0]:
                continue
            data, ancillary, _, _ = self.socket.recvmsg(1 << 20, 1024)
            at, files = time.time(), array.array("i")
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    files.frombytes(content[: len(content) - len(content) % files.itemsize])
                elif level == socket.SOL_SOCKET:
                    seconds, nanoseconds = struct.unpack("qq", content[:16])
                    at = seconds + nanoseconds * 1e-9
            for file in files:  # what is too long for a datagram comes as a file
                with os.fdopen(file, "rb") as opened:
                    opened.seek(0)
                    data = data or opened.read()
            self.heard(data, at)

    def end(self):
        self.ending = True
        self.join()
        self.socket.close()
        os.unlink(self.path)


class ServiceManager(Receiver):
    """Hears READY=1 and counts what feeds the watchdog."""

    def __init__(self, path):
        self.ready = threading.Event()
        self.fed = []
        super().__init__(path)

    def heard(self, data, at):
        for line in data.decode(errors="replace").splitlines():
            if line == "READY=1":
                self.ready.set()
            elif line == "WATCHDOG=1":
                self.fed.append(at)

    def gaps(self):
        return [later - earlier for earlier, later in zip(self.fed, self.fed[1:])]


class Journal(Receiver):
    """Hears what journald would, in its own protocol."""

    def __init__(self, path, entries):
        self.entries = entries
        super().__init__(path)

    def heard(self, data, at):
        entry = {"at": at}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                (size,) = struct.unpack("<Q", data[:8])
                value, data = data[8 : 8 + size], data[8 + size + 1 :]
            entry[name.decode(errors="replace")] = value.decode(errors="replace")
        self.entries.append(entry)


def ask(path, method, parameters=None, timeout=30.0):
    """One call to the daemon: what it answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        client.connect(path)
        request = {"method": "io.stackwatch." + method, "parameters": parameters or {}}
        client.sendall(json.dumps(request).encode() + b"\0")
        reply = bytearray()
        while not reply.endswith(b"\0"):
            part = client.recv(1 << 20)
            if not part:
                raise OSError("the daemon closed the connection")
            reply += part
    answer = json.loads(reply[:-1])
    if "error" in answer:
        raise OSError(answer["error"])
    return answer["parameters"]


def cpu_s(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rsplit(b")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    except OSError:
        return 0.0


def memory_bytes(pid):
    """All that is resident, and of it what is nobody's file: a file's pages go under pressure and come back."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            resident, shared = (int(field) * PAGE for field in statm.read().split()[1:3])
            return resident, resident - shared
    except OSError:
        return 0, 0


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def wait_until(seconds, condition, step=0.1):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(step)
    return condition()


# Memory in bytes: all of it, and what is neither a file's nor a map's; `phase` is what else went on.
Sample = collections.namedtuple("Sample", "t cpu_s daemon worker daemon_own worker_own maps fds threads phase")


class Groups:
    """Control groups as the service has them: the daemon in one with the CPU weight of the unit, what weighs on the
    machine in another one with the usual weight, as if it were another service. With `memory` the daemon's group has a
    hard limit of it. Where the machine gives none, the daemon and its load are equals, which is told."""

    CPU_WEIGHT = 200  # systemd/stackwatchd.service.in; 100 is what others have

    def __init__(self, memory=None):
        self.made = []
        self.daemon, self.load = [], []
        self.memory = None
        unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        cpu, memory_top = ("/sys/fs/cgroup",) * 2 if unified else ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory")
        name = f"stackwatch-soak-{os.getpid()}"
        weight = ("cpu.weight", self.CPU_WEIGHT) if unified else ("cpu.shares", self.CPU_WEIGHT * 1024 // 100)
        self.daemon += self.make(os.path.join(cpu, name), *weight)
        self.load += self.make(os.path.join(cpu, name + "-load"))
        if memory:
            limit = ("memory.max" if unified else "memory.limit_in_bytes", memory)
            made = self.make(os.path.join(memory_top, name), *limit)
            self.memory = made[0] if made else None
            self.daemon += [group for group in made if group not in self.daemon]

    def make(self, path, setting=None, value=None):
        try:
            os.makedirs(path, exist_ok=True)
            if path not in self.made:
                self.made.append(path)
            if setting:
                with open(os.path.join(path, setting), "w") as file:
                    file.write(str(value))
            return [path]
        except OSError as error:
            print(f"soak: goes without a control group: {error}", file=sys.stderr)
            return []

    def close(self):
        for path in self.made:
            wait_until(30, lambda: removed(path))


def removed(path):
    try:
        os.rmdir(path)
        return True
    except OSError:
        return not os.path.isdir(path)


def enter(groups):
    for group in groups:
        with open(os.path.join(group, "cgroup.procs"), "w") as file:
            file.write("0")


@functools.cache
def installed():
    """The daemon and its worker as the package installs them: without debug information. With it, a daemon that surveys
    itself has 100 MB to read for its own names."""
    directory = os.path.join(REPOSITORY, "build", "soak")
    os.makedirs(directory, exist_ok=True)
    for program in ("stackwatchd", "stackwatch-symbols"):
        subprocess.run(["strip", "-o", os.path.join(directory, program), os.path.join(BIN, program)], check=True)
    return directory


class Daemon:
    """stackwatchd with a service manager and a journal of its own, in a mount namespace that has nothing in /run."""

    def __init__(self, directory, config, groups=(), preload=False):
        self.directory = directory
        self.socket = os.path.join(directory, "socket")
        self.journal_directory = os.path.join(directory, "journal")
        self.clock_file = os.path.join(directory, "clock")
        self.log_file = os.path.join(directory, "log")
        self.entries = []
        self.stopped = False
        os.makedirs(self.journal_directory)
        self.set_clock(0)
        config_file = os.path.join(directory, "stackwatch.toml")
        with open(config_file, "w") as file:
            file.write(config)
        self.manager = ServiceManager(os.path.join(directory, "notify"))
        self.journal = None
        self.open_journal()
        environment = dict(os.environ, NOTIFY_SOCKET=self.manager.path, WATCHDOG_USEC=str(WATCHDOG_US))
        if preload:
            environment.update(JUMPING_CLOCK=self.clock_file, SOAK_PRELOAD=os.path.join(PROGRAMS, "jumping_clock.so"))
        script = (
            'mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && mount --bind "$1" /run/systemd/journal\n'
            'shift; [ -z "${SOAK_PRELOAD:-}" ] || export LD_PRELOAD=$SOAK_PRELOAD\n'
            'exec "$@"'
        )
        command = [os.path.join(installed(), "stackwatchd"), "--foreground", "--config", config_file]
        command += ["--socket", self.socket, "--state-dir", os.path.join(directory, "state")]
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-ec", script, "sh", self.journal_directory, *command],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, preexec_fn=lambda: enter(groups))
        self.pid = self.process.pid  # unshare and sh become the daemon
        if not wait_until(60, lambda: self.manager.ready.is_set() or self.process.poll() is not None):
            raise RuntimeError("the daemon did not become ready: " + self.log())
        if self.process.poll() is not None:
            raise RuntimeError("the daemon did not start: " + self.log())

    def open_journal(self):
        self.journal = Journal(os.path.join(self.journal_directory, "socket"), self.entries)

    def close_journal(self):
        if self.journal:
            self.journal.end()
        self.journal = None

    def set_clock(self, offset_s):
        with open(self.clock_file + ".new", "w") as file:
            file.write(str(int(offset_s)))
        os.rename(self.clock_file + ".new", self.clock_file)

    def ask(self, method, parameters=None):
        return ask(self.socket, method, parameters)

    def log(self):
        with open(self.log_file, errors="replace") as file:
            return file.read()

    def usage(self, phase):
        """What the kernel says it uses, the worker included; the size of the maps is its own word."""
        workers = children(self.pid)
        maps = self.ask("GetStatus")["bpf_map_bytes"]
        try:
            fds = len(os.listdir(f"/proc/{self.pid}/fd"))
            threads = len(os.listdir(f"/proc/{self.pid}/task"))
        except OSError:
            fds = threads = 0
        used_s = cpu_s(self.pid) + sum(cpu_s(worker) for worker in workers)
        daemon, daemon_own = memory_bytes(self.pid)
        worker, worker_own = (sum(sizes) for sizes in zip((0, 0), *map(memory_bytes, workers)))
        return Sample(time.monotonic(), used_s, daemon, worker, daemon_own, worker_own, maps, fds, threads, phase)

    def stop(self):
        """Ends it as systemd would; its exit code, None where it had to be killed. Again: nothing more."""
        if self.stopped:
            return self.process.returncode
        self.stopped = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        self.close_journal()
        self.manager.end()
        return code


class Observer(threading.Thread):
    """Takes a sample of the usage each second."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.daemon_ = daemon
        self.samples = []
        self.phase = ""
        self.failures = 0
        self.ending = threading.Event()
        self.start()

    def run(self):
        while not self.ending.wait(1.0):
            try:
                self.samples.append(self.daemon_.usage(self.phase))
            except (OSError, ValueError, KeyError):
                self.failures += 1

    def end(self):
        self.ending.set()
        self.join()


class Prober(threading.Thread):
    """Asks for the status ten times a second and notes how long each answer takes, beside what the same takes with a
    process that does nothing else: on a busy machine that is the share of the machine in it."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.path = daemon.socket
        self.answers_s = []
        self.echoes_s = []
        self.phases = collections.defaultdict(list)  # answers by what else was going on
        self.phase = ""
        self.failed = 0
        self.echo_path = os.path.join(daemon.directory, "echo")
        self.echo = subprocess.Popen(["python3", "-c", ECHO, self.echo_path])
        wait_until(10, lambda: os.path.exists(self.echo_path))
        self.ending = threading.Event()
        self.start()

    def run(self):
        while not self.ending.wait(0.1):
            begun = time.monotonic()
            try:
                ask(self.path, "GetStatus")
                self.answers_s.append(time.monotonic() - begun)
                self.phases[self.phase].append(self.answers_s[-1])
            except (OSError, ValueError):
                self.failed += 1
            begun = time.monotonic()
            try:
                ask(self.echo_path, "Echo")
                self.echoes_s.append(time.monotonic() - begun)
            except (OSError, ValueError):
                pass

    def end(self):
        self.ending.set()
        self.join()
        self.echo.kill()
        self.echo.wait()


# As large an answer as that of GetStatus.
ECHO = """
import socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(sys.argv[1])
server.listen(16)
while True:
    client, _ = server.accept()
    while client.recv(4096)[-1:] not in (b"\\0", b""):
        pass
    client.sendall(b'{"parameters":{"filler":"' + b"x" * 2500 + b'"}}\\0')
    client.close()
"""


class StuckClients:
    """All places at the control socket: half ask for much and read nothing, half send half a message."""

    def __init__(self, path, count=64):
        much = b'{"method":"io.stackwatch.GetRanking","parameters":{"limit":1000}}\0'
        self.clients = []
        for i in range(count):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                client.connect(path)
                for _ in range(100 if i % 2 == 0 else 1):
                    client.send(much if i % 2 == 0 else b'{"method":"io.st')
            except OSError:
                pass  # full: that is what is wanted
            self.clients.append(client)

    def close(self):
        for client in self.clients:
            client.close()


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


# Longer than a phase: what differs between two phases of a round is no growth.
ROUND_S = 120


def slope_per_hour(points):
    """Theil and Sen: the median of the slopes of pairs; a third of the points may lie anywhere. `points` are (seconds,
    value, phase), thinned to 600. Pairs are of one phase in two rounds; None where there are none."""
    points = points[:: max(1, len(points) // 600)]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1 :]
              if b[2] == a[2] and b[0] - a[0] > ROUND_S]
    return 3600 * median(slopes) if slopes else None


def highest_cpu_percent(samples, window_s=10.0):
    """The highest CPU time of a window, in percent of a core."""
    highest, first = 0.0, 0
    for last, sample in enumerate(samples):
        while sample.t - samples[first].t > window_s:
            first += 1
        passed = sample.t - samples[first].t
        if passed >= 0.8 * window_s:
            highest = max(highest, 100 * (sample.cpu_s - samples[first].cpu_s) / passed)
    return highest


def table(headings, rows):
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


class Load:
    """Programs that go with whoever started them, in every way of ending."""

    def __init__(self, directory, groups=()):
        self.directory = directory
        self.groups = groups
        self.processes = []

    def start(self, name, *arguments):
        out = open(os.path.join(self.directory, f"load-{len(self.processes)}-{os.path.basename(name)}"), "w+b")
        process = subprocess.Popen([os.path.join(PROGRAMS, name), *map(str, arguments)], stdout=out, stderr=out,
                                   stdin=subprocess.DEVNULL, preexec_fn=self.begin)
        process.out = out
        self.processes.append(process)
        return process

    def begin(self):
        end_with_parent()
        enter(self.groups)

    @staticmethod
    def report(process):
        """What it says at its end."""
        process.out.seek(0)
        for line in process.out.read().decode(errors="replace").splitlines():
            if line.startswith("{"):
                return json.loads(line)
        return {}

    def end(self, process, seconds=60):
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return self.report(process)

    def end_all(self):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            self.end(process)


def end_with_parent():
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
