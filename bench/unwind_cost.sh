#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What complete stacks cost: one sample of a stack of 31 user frames, and redis-server under redis-benchmark at 99 Hz,
# as CPU time per request with and without in turn, and as the kernel's own account of the program (run_time_ns).
# unwind_cost.sh [PAIRS [REQUESTS]]
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/build/bin
pairs=${1:-30}
requests=${2:-100000}
dir=$(mktemp -d)
declare -a started=()
stats_before=$(sysctl -n kernel.bpf_stats_enabled)
finish() {
  sysctl -qw kernel.bpf_stats_enabled="$stats_before"
  [ "${#started[@]}" -eq 0 ] || kill "${started[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
for tool in bpftool redis-server redis-benchmark g++; do
  command -v "$tool" >/dev/null || { echo "$tool is needed" >&2; exit 1; }
done

# "NANOSECONDS RUNS" of the sampling program since it was loaded.
account() {
  bpftool prog show | awk '/perf_event  name sample / {
      for (i = 1; i < NF; ++i) {if ($i == "run_time_ns") ns += $(i + 1); if ($i == "run_cnt") runs += $(i + 1)}
    } END {printf "%d %d\n", ns, runs}'
}
watch_for() { # watch_for PID HZ SECONDS
  "$bin/stackwatch-standalone" count -p "$1" --probe on_cpu -F "$2" -d "$3" --format folded >"$dir/folded" 2>"$dir/err" &
  watcher=$!
  for _ in $(seq 100); do bpftool prog show name sample 2>/dev/null | grep -q . && break; sleep 0.05; done
  sleep 0.3
}

cat >"$dir/frames.cpp" <<'CPP'
#include <cstdlib>
volatile unsigned long sink;
__attribute__((noinline)) void bottom() { for (;;) sink = sink * 6364136223846793005UL + 1; }
__attribute__((noinline)) void descend(int n) {
  if (n > 1) descend(n - 1); else bottom();
  sink = sink + 1;
}
int main(int, char** arguments) { descend(std::atoi(arguments[1])); }
CPP
g++ -O2 -fomit-frame-pointer -o "$dir/frames" "$dir/frames.cpp"
sysctl -qw kernel.bpf_stats_enabled=1
echo "One run of the sampling program (run_time_ns / run_cnt, 999 Hz on a program that spins on one CPU, 4 s):"
echo
echo "| target | user frames (median) | µs per run |"
echo "|---|---|---|"
for calls in 1 26 100; do
  taskset -c 1 "$dir/frames" "$calls" & started=($!)
  watch_for "${started[0]}" 999 4.8
  before=$(account)
  sleep 4
  after=$(account)
  wait "$watcher"
  kill "${started[@]}"
  wait "${started[@]}" 2>/dev/null || true
  frames=$(grep -v '_\[k\]' "$dir/folded" | awk '{v = $NF; n = split($0, f, ";"); for (i = 0; i < v; ++i) print n - 1}' | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}')
  echo "$before $after" | awk -v calls="$calls" -v frames="$frames" '{printf "| %d nested calls | %d | %.1f |\n", calls, frames, ($3 - $1) / ($4 - $2) / 1000}'
done
started=()
echo

cpu_s() { redis-cli -p 7396 info cpu | tr -d '\r' | awk -F: '/^used_cpu_(sys|user):/ {sum += $2} END {printf "%.6f", sum}'; }
load() { taskset -c 0 redis-benchmark -p 7396 -c "$1" -n "$requests" -t get -q >/dev/null; }
# The daemon as it is always on, and nothing else in it. Its page-fault probe is a program of the same name.
printf '[survey]\nenabled = false\n[ranking]\nmax_suspects = 0\n' >"$dir/stackwatch.toml"
export STACKWATCH_SOCKET=$dir/socket
"$bin/stackwatchd" --config "$dir/stackwatch.toml" --socket "$STACKWATCH_SOCKET" --state-dir "$dir/state" 2>"$dir/daemon.log" &
started=($!)
taskset -c 1 redis-server --port 7396 --save '' --daemonize no >"$dir/log" 2>&1 & started+=($!)
sleep 2
watch() { "$bin/stackwatch" watch add --name redis-server --probe on_cpu --id bench >/dev/null; sleep 1; }
unwatch() { "$bin/stackwatch" watch remove bench >/dev/null; sleep 0.2; }
echo "redis-server at 99 Hz, $pairs pairs of $requests GETs with and without in turn:"
echo
echo "| clients | CPU µs per request without | added (mean of pairs, 95 % interval) | by run_time_ns |"
echo "|---|---|---|---|"
for clients in 1 50; do
  load "$clients"
  : >"$dir/pairs"
  for pair in $(seq "$pairs"); do
    # Which of the two comes first alternates, so that drift hits both alike.
    for turn in 0 1; do
      if (((pair + turn) % 2)); then
        watch
        account_before=$(account)
        before=$(cpu_s)
        load "$clients"
        with=$(awk -v a="$before" -v b="$(cpu_s)" 'BEGIN {print b - a}')
        program=$(echo "$account_before $(account)" | awk '{print ($3 - $1) / 1e9}')
        unwatch
      else
        before=$(cpu_s)
        load "$clients"
        without=$(awk -v a="$before" -v b="$(cpu_s)" 'BEGIN {print b - a}')
      fi
    done
    echo "$without $with $program" >>"$dir/pairs"
  done
  # Student's t of 29 degrees of freedom, 2.05, serves for 20 pairs and more.
  awk -v clients="$clients" -v requests="$requests" '
    {r = $2 / $1 - 1; sum += r; squares += r * r; base += $1; program += $3; with += $2}
    END {
      mean = sum / NR; deviation = sqrt((squares - NR * mean * mean) / (NR - 1)); half = 2.05 * deviation / sqrt(NR)
      printf "| %d | %.2f | %+.2f %% (%+.2f .. %+.2f %%) | %.3f %% |\n", clients, base / NR / requests * 1e6,
        100 * mean, 100 * (mean - half), 100 * (mean + half), 100 * program / (with - program)
    }' "$dir/pairs"
done
