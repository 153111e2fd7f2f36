#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What counting off-CPU time costs a switch-heavy target: perf bench sched pipe -T on one CPU, alone, under
# `stackwatch count --probe off_cpu`, under libbpf-tools' offcputime and under perf record of the same switches with call
# chains, in turn, so that the machine's drift hits all alike. Ratios of pairs, medians.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/build/bin
rounds=${1:-6}
loops=${2:-1000000}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for tool in perf offcputime; do
  command -v "$tool" >/dev/null || { echo "$tool is needed (packages linux-perf, libbpf-tools)" >&2; exit 1; }
done

# measure NAME COMMAND…: one run of the target, under COMMAND with @PID@ filled in; its seconds go to $dir/NAME.
measure() {
  local name=$1 target watcher= pid
  shift
  taskset -c 0 perf bench -f simple sched pipe -T -l "$loops" >"$dir/seconds" &
  target=$!
  until pid=$(pgrep -P $$ -f 'sched pipe' | head -n 1) && [ -n "$pid" ]; do sleep 0.05; done
  if [ $# -gt 0 ]; then
    "${@//@PID@/$pid}" >"$dir/$name.out" 2>"$dir/$name.err" &
    watcher=$!
  fi
  wait "$target"
  cat "$dir/seconds" >>"$dir/$name"
  [ -z "$watcher" ] || { kill -INT "$watcher" 2>/dev/null || true; wait "$watcher" 2>/dev/null || true; }
}

for _ in $(seq "$rounds"); do
  measure alone
  measure stackwatch "$bin/stackwatch" count -p @PID@ --probe off_cpu -d 600 --format folded
  measure offcputime offcputime -p @PID@ 600
  measure perf perf record -q -e sched:sched_switch -g -p @PID@ -o "$dir/perf.data" -- sleep 600
done

median() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
quartile() { sort -n "$1" | awk -v q="$2" '{v[NR] = $1} END {i = int(q * (NR - 1)) + 1; print v[i]}'; }
echo "perf bench sched pipe -T on CPU 0, $loops operations (two switches each), $rounds rounds in turn:"
echo
echo "| watched by | µs per operation (median) | added µs | ratio to alone (median of pairs) | quartiles |"
echo "|---|---|---|---|---|"
for name in alone stackwatch offcputime perf; do
  paste "$dir/$name" "$dir/alone" | awk '{print $1 / $2}' >"$dir/$name.ratio"
  awk -v name="$name" -v s="$(median "$dir/$name")" -v a="$(median "$dir/alone")" -v loops="$loops" \
    -v m="$(median "$dir/$name.ratio")" -v lo="$(quartile "$dir/$name.ratio" 0.25)" -v hi="$(quartile "$dir/$name.ratio" 0.75)" \
    'BEGIN {printf "| %s | %.2f | %.2f | %.2f | %.2f .. %.2f |\n", name, s * 1e6 / loops, (s - a) * 1e6 / loops, m, lo, hi}'
done
