#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What counting off-CPU time costs a switch-heavy target: perf bench sched pipe -T on one CPU, alone, under
# `stackwatch count --probe off_cpu`, under libbpf-tools' offcputime and under perf record of the same switches with call
# chains. One target for all, watched by each in turn, the order changing each round. Measured is the target's own CPU time
# per switch (schedstat), from when the watcher has attached on: what others do on the CPU meanwhile is not in it, nor is
# the time before. Ratios are those of a round. (SIGTERM: a shell lets what it starts in the background ignore SIGINT.)
#   bench/off_cpu.sh [ROUNDS] [SWITCHES]
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/build/bin
rounds=${1:-6}
switches=${2:-400000}
dir=$(mktemp -d)
for tool in perf offcputime bpftool; do
  command -v "$tool" >/dev/null || { echo "$tool is needed (packages linux-perf, libbpf-tools, bpftool)" >&2; exit 1; }
done
taskset -c 0 perf bench -f simple sched pipe -T -l 2000000000 >/dev/null &
target=$!
trap 'kill "$target" 2>/dev/null; wait "$target" 2>/dev/null || true; rm -rf "$dir"' EXIT
until [ "$(cat /proc/$target/comm 2>/dev/null)" != taskset ] && [ "$(ls /proc/$target/task | wc -l)" -ge 3 ]; do sleep 0.1; done

# CPU time in nanoseconds and switches of the target so far.
used() { cat /proc/$target/task/*/schedstat | awk '{ns += $1; n += $3} END {printf "%.0f %.0f\n", ns, n}'; }
# One run of the target, under the command if there is one; nanoseconds per switch go to $dir/NAME.
measure() {
  local name=$1 watcher= before now end=$((SECONDS + 60))
  shift
  if [ $# -gt 0 ]; then
    "$@" >"$dir/out" 2>&1 &
    watcher=$!
    sleep 3 # all of them have attached by then, on a busy machine too
    kill -0 "$watcher" 2>/dev/null || { cat "$dir/out" >&2; exit 1; }
  fi
  before=$(used)
  now=$before
  until [ $((${now#* } - ${before#* })) -ge "$switches" ] || [ "$SECONDS" -ge "$end" ]; do
    sleep 0.2
    now=$(used)
  done
  echo "$before $now" | awk '{printf "%.1f\n", ($3 - $1) / ($4 - $2)}' >>"$dir/$name"
  [ -z "$watcher" ] || { kill -TERM "$watcher" 2>/dev/null || true; wait "$watcher" 2>/dev/null || true; }
}
run() {
  case $1 in
    alone) measure alone ;;
    stackwatch) measure stackwatch "$bin/stackwatch" count -p "$target" --probe off_cpu -d 600 --format folded ;;
    offcputime) measure offcputime offcputime -p "$target" 600 ;;
    perf) measure perf perf record -q -e sched:sched_switch -g -p "$target" -o "$dir/perf.data" -- sleep 600 ;;
  esac
}

uptime
for round in $(seq "$rounds"); do
  order=(alone stackwatch offcputime perf)
  [ $((round % 2)) -eq 1 ] || order=(perf offcputime stackwatch alone)
  for name in "${order[@]}"; do run "$name"; done
done
uptime

# quantile FILE SHARE
quantile() { sort -n "$1" | awk -v q="$2" '{v[NR] = $1} END {printf "%.2f", v[int(q * (NR - 1) + 0.5) + 1]}'; }
echo
echo "perf bench sched pipe -T on CPU 0, $switches switches each, $rounds rounds in turn; CPU time of the target:"
echo
echo "| watched by | ns per switch (median) | added ns (median) | ratio to alone (median) | quartiles |"
echo "|---|---|---|---|---|"
for name in alone stackwatch offcputime perf; do
  paste "$dir/$name" "$dir/alone" | awk '{print $1 / $2}' >"$dir/ratio"
  paste "$dir/$name" "$dir/alone" | awk '{print $1 - $2}' >"$dir/added"
  printf '| %s | %.0f | %.0f | %s | %s .. %s |\n' "$name" "$(quantile "$dir/$name" 0.5)" "$(quantile "$dir/added" 0.5)" \
    "$(quantile "$dir/ratio" 0.5)" "$(quantile "$dir/ratio" 0.25)" "$(quantile "$dir/ratio" 0.75)"
  cp "$dir/added" "$dir/added.$name"
done
echo
for peer in offcputime perf; do
  paste "$dir/added.stackwatch" "$dir/added.$peer" | awk '{print $1 / $2}' >"$dir/ratio"
  echo "added by stackwatch / by $peer: $(quantile "$dir/ratio" 0.5) ($(quantile "$dir/ratio" 0.25) .. $(quantile "$dir/ratio" 0.75))"
done
