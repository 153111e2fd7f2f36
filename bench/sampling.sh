#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What sampling at some rate (99 Hz unless told: sampling.sh [ROUNDS [HZ]]) costs a switch-heavy target: perf bench sched pipe -T on one CPU, alone, watched by us, and
# under perf record -g, in turn, so that the machine's drift hits all alike. Ratios of medians.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/build/bin
rounds=${1:-8}
hz=${2:-99}
loops=2000000
dir=$(mktemp -d)
daemon=
finish() {
  [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
command -v perf >/dev/null || { echo "perf is needed (package linux-perf)" >&2; exit 1; }
# The launcher is attached while it waits; what it starts is counted from its first sample on.
printf '[ranking]\nmax_suspects = 0\n[[watch]]\ncmdline = "*sampling-bench-launcher*"\nchildren = true\nfrequency = %s\n[survey]\nenabled = false\n' "$hz" >"$dir/watch.toml"
export STACKWATCH_SOCKET=$dir/socket

pipe() { taskset -c 0 perf bench -f simple sched pipe -T -l "$loops"; } # prints seconds
launched_pipe() {
  bash -c ': sampling-bench-launcher; sleep 2.5; taskset -c 0 perf bench -f simple sched pipe -T -l '"$loops"'; :'
}

start_daemon() {
  "$bin/stackwatchd" --config "$dir/watch.toml" --socket "$STACKWATCH_SOCKET" 2>/dev/null &
  daemon=$!
  for _ in $(seq 100); do "$bin/stackwatch" status >/dev/null 2>&1 && break; sleep 0.1; done
}
stop_daemon() {
  kill "$daemon" && wait "$daemon" 2>/dev/null || true
  daemon=
}
# Samples of the target so far, as the daemon tells while it runs.
samples() {
  "$bin/stackwatch" attachments | awk '$2 ~ /^(perf|sched-pipe)/ {for (i = 1; i <= NF; ++i) if ($i ~ /^on_cpu/) n += $(i + 4)} END {print n + 0}'
}

run_ns() { bpftool prog show name sample 2>/dev/null | sed -n 's/.*run_time_ns \([0-9]*\) run_cnt \([0-9]*\).*/\1 \2/p' | head -n 1; }

pipe >/dev/null
start_daemon
stop_daemon
for _ in $(seq "$rounds"); do
  pipe >>"$dir/alone"
  start_daemon
  launched_pipe >>"$dir/watched" &
  sleep 6.5
  samples >>"$dir/samples"
  wait $!
  stop_daemon
  taskset -c 0 perf record -q -g -F "$hz" -e cpu-clock -o "$dir/perf.data" -- perf bench -f simple sched pipe -T -l "$loops" >>"$dir/perf" 2>/dev/null
done

median() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
quartile() { sort -n "$1" | awk -v q="$2" '{v[NR] = $1} END {i = int(q * (NR - 1)) + 1; print v[i]}'; }
ratios() { paste "$dir/$1" "$dir/alone" | awk '{print $1 / $2}' >"$dir/$1.ratio"; }
ratios watched
ratios perf
row() { # row NAME FILE RATIOS
  awk -v name="$1" -v us="$(median "$2")" -v loops="$loops" -v m="$(median "$3")" -v lo="$(quartile "$3" 0.25)" -v hi="$(quartile "$3" 0.75)" \
    'BEGIN {printf "| %s | %.2f | %.3f | %.3f .. %.3f |\n", name, us * 1e6 / loops, m, lo, hi}'
}
echo "perf bench sched pipe -T on CPU 0, $loops operations, $rounds rounds in turn:"
echo
echo "| $hz Hz, call chains | µs per operation (median) | ratio to alone (median of pairs) | quartiles |"
echo "|---|---|---|---|"
seq "$rounds" | sed "s/.*/1/" >"$dir/ones"
row "nobody" "$dir/alone" "$dir/ones"
row "stackwatchd" "$dir/watched" "$dir/watched.ratio"
row "perf record -g" "$dir/perf" "$dir/perf.ratio"

printf '\nSamples of the target that the daemon told of after four seconds of it: median %s (%s are due; those of the last second or two wait for their names).\n' "$(median "$dir/samples")" "$((4 * hz))"

if command -v bpftool >/dev/null && [ "$(id -u)" = 0 ]; then
  old=$(sysctl -n kernel.bpf_stats_enabled)
  sysctl -q kernel.bpf_stats_enabled=1
  start_daemon
  loops=$((loops * 3))
  launched_pipe >/dev/null &
  load=$!
  sleep 8
  read -r ns runs < <(run_ns) || true
  sysctl -q kernel.bpf_stats_enabled="$old"
  kill "$load" 2>/dev/null || true
  stop_daemon
  [ -z "${ns:-}" ] || awk -v ns="$ns" -v runs="$runs" -v hz="$hz" 'BEGIN {
    printf "\nThe sampling program itself: %d runs, %.0f ns each on average (idle CPUs included); at %d Hz that is %.4f %% of a CPU.\n", runs, ns / runs, hz, ns / runs * hz / 1e7}'
fi
