#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the daemon costs while nothing is attached: CPU, memory and BPF maps with 200 processes, the census with 5,000.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/build/bin
seconds=${1:-60}
dir=$(mktemp -d)
daemon=
sleepers=
finish() {
  [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
  [ -z "$sleepers" ] || kill "$sleepers" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
printf '[ranking]\nmax_suspects = 0\n' >"$dir/stackwatch.toml"
export STACKWATCH_SOCKET=$dir/socket

field() { "$bin/stackwatch" status --json | tr ',{' '\n\n' | sed -n "s/^\"$1\":\([0-9.e-]*\).*/\1/p" | head -n 1; }
# User and system time of a process and its threads, in hundredths of a second.
ticks_of() { awk '{print $14 + $15}' "/proc/$1/stat"; }

measure() { # measure PROCESSES
  local have worker before after worker_before=0 worker_after=0
  have=$(ls -d /proc/[0-9]* | wc -l)
  "$bin/programs/sleeper" --count $(($1 > have ? $1 - have : 0)) --seconds 3600 &
  sleepers=$!
  sleep 2
  "$bin/stackwatchd" --config "$dir/stackwatch.toml" --socket "$STACKWATCH_SOCKET" 2>"$dir/log" &
  daemon=$!
  sleep 5
  worker=$(pgrep -P "$daemon" || true)
  before=$(ticks_of "$daemon")
  [ -z "$worker" ] || worker_before=$(ticks_of "$worker")
  sleep "$seconds"
  after=$(ticks_of "$daemon")
  [ -z "$worker" ] || worker_after=$(ticks_of "$worker")
  awk -v p="$(field processes)" -v used=$((after - before + worker_after - worker_before)) -v s="$seconds" \
    -v rss="$(field resident_bytes)" -v wrss="$(field worker_resident_bytes)" -v maps="$(field bpf_map_bytes)" \
    -v census="$(field census_ms)" -v tick="$(field last_tick_ms)" 'BEGIN {
    printf "| %d | %.2f %% | %.1f MB | %.1f MB | %.1f MB | %.2f ms | %.2f ms |\n",
      p, used / s, rss / 1e6, wrss / 1e6, maps / 1e6, census, tick }'
  kill "$daemon" && wait "$daemon" 2>/dev/null || true
  daemon=
  kill "$sleepers" && wait "$sleepers" 2>/dev/null || true
  sleepers=
}

echo "Nothing attached, tick 1 s, measured over $seconds s each (CPU: daemon and worker, of one core):"
echo
echo "| processes | CPU | daemon resident | worker resident | BPF maps | census | tick |"
echo "|---|---|---|---|---|---|---|"
measure 200
measure 5000
echo
echo "Its tick alone, of CPU time, with very many processes (median):"
echo
"$bin/tick_cost" 20000
