#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Records programs in which something happens, once; replays them with the detectors and scores the alerts.
#   record.sh record DIR [FIRST] [REPETITIONS] [cpu|long|memory] [OPTIONS]
#                                  one wave into DIR: repetitions FIRST, FIRST+1, … of each case of corpus/drive.py
#                                  (default 1, 1, cpu)
#   record.sh score DIR [OPTIONS]  replays all of DIR and prints the tables (bench_corpus's options)
# A wave of cpu takes 7 minutes and 0.18 cores a repetition, one of memory 11 minutes and 0.03 cores, a long one 52 minutes
# and 0.03 cores. The programs get the CPU time that they ask for before others (a control group of their own), or the
# figures mean nothing.
# It needs root, control groups v1 (cpu, blkio) and a DIR on a disk. What follows from FIRST is the same everywhere;
# when requests come is not. Of memory at most five repetitions at once: what more leave standing fills the map of the probe.
set -euo pipefail
usage=$(sed -n '3,13s/^# \{0,1\}//p' "$0")
[ $# -lt 2 ] || dir=$(realpath -m "$2")
cd "$(dirname "$(readlink -f "$0")")/../../.."
bin=$PWD/build/bin corpus=$PWD/bench/detection/corpus
groups=(/sys/fs/cgroup/cpu/stackwatch-corpus /sys/fs/cgroup/blkio/stackwatch-corpus)

case ${1:-} in
  record)
    # Without names, nothing could be found.
    for program in stackwatch-standalone stackwatch-symbols corpus/requests corpus/allocations; do
      [ -x "$bin/$program" ] || { echo "record.sh: $bin/$program is missing: build first" >&2; exit 1; }
    done
    : "${dir:?DIR}"
    first=${3:-1} repetitions=${4:-1} wave=${5:-cpu}
    case $wave in
      # As often as 5 % of a process's CPU time pays for: the less CPU time stands for a busy server.
      cpu | long) frequency=3593 probes=(--probe "on_cpu,off_cpu") ;;
      memory) frequency=99 probes=(--probe "on_cpu,memory") ;;
      *) printf '%s\n' "$usage" >&2; exit 2 ;;
    esac
    mkdir -p "$dir" "${groups[@]}"
    # Where another wave still runs they stay.
    trap 'echo $$ >/sys/fs/cgroup/cpu/cgroup.procs; rmdir "${groups[@]}" 2>/dev/null || true' EXIT
    # Eight times the weight of anybody else.
    echo 8192 >"${groups[0]}/cpu.shares"
    echo $$ >"${groups[0]}/cgroup.procs"
    # What a shim starts is another process: the interpreter itself is recorded.
    python=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')
    "$bin/stackwatch-standalone" record "${probes[@]}" --frequency "$frequency" -o "$dir/$wave-$first.capture" -- "$python" "$corpus/drive.py" \
      "$wave" "$bin/corpus" "$dir" --frequency "$frequency" --first "$first" --repetitions "$repetitions" "${@:6}"
    ;;
  score)
    : "${dir:?DIR}"
    "$bin/bench_corpus" "$dir" "${@:3}"
    ;;
  *) printf '%s\n' "$usage" >&2; exit 2 ;;
esac
