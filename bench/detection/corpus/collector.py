# SPDX-License-Identifier: Apache-2.0
# A target of the corpus: a real interpreter with a real garbage collector. It makes cyclic garbage, which the collector
# finds every some seconds, all of it at once. SIGUSR1 (case "grow") makes each request sort more.
import gc
import json
import random
import resource
import signal
import sys
import time

case, load, piece_s, seed = sys.argv[1], float(sys.argv[2]), 1e-3 * float(sys.argv[3]), int(sys.argv[4])
draw = random.Random(seed)
changed = stopped = False


def on_change(*_):
    global changed
    changed = True


def on_stop(*_):
    global stopped
    stopped = True


signal.signal(signal.SIGUSR1, on_change)
signal.signal(signal.SIGTERM, on_stop)
gc.disable()
collect_every_s = draw.uniform(4, 15) if case == "gc" else 1e9
values = [draw.random() for _ in range(60)]
reply = {"key%d" % i: list(range(i % 7)) for i in range(20)}


class Node:
    pass


def serve():
    text = json.dumps(reply)
    if len(json.loads(text)) != len(reply):
        sys.exit("collector.py: json is broken")
    if case == "gc":
        for _ in range(40):
            one, other = Node(), Node()
            one.peer, other.peer = other, one
    for _ in range(6 if changed else 1):
        sorted(values)


# How long a request takes is measured, so that the load is what was asked for.
begin = time.process_time()
for _ in range(200):
    serve()
request_s = (time.process_time() - begin) / 200
collected = started = next_s = time.monotonic()
while not stopped:
    now = time.monotonic()
    if next_s > now:
        time.sleep(next_s - now)
    if now - next_s > 1:
        next_s = now
    count = max(1, round(piece_s / request_s))
    for _ in range(count):
        serve()
    next_s += random.expovariate(load / (count * request_s))
    if now - collected > collect_every_s:
        gc.collect()
        collected = now
functions = ["list_sort_impl", "binarysort", "builtin_sorted", "list_sort", "unsafe_float_compare", "count_run"]
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"changes": [{"functions": functions}], "cpu_s": usage.ru_utime + usage.ru_stime,
                  "planned_cpu_s": load * (time.monotonic() - started)}))
