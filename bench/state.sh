#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What it costs to keep what was learned: bytes that the daemon writes and CPU time, with many services that all change
# all the time. Each is an interpreter of its own name that works a twentieth of a second in each second.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/build/bin
services=${1:-32}
seconds=${2:-120}
dir=$(mktemp -d)
pids=()
finish() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
export STACKWATCH_SOCKET=$dir/socket

cat >"$dir/work.py" <<'PYTHON'
import json, re, time, zlib
text = json.dumps([{"key %d" % i: [i, str(i), None]} for i in range(200)])
while True:
    end = time.process_time() + 0.05
    while time.process_time() < end:
        sorted(json.loads(text), key=str)
        re.findall(r"key (\d+)", text)
        zlib.decompress(zlib.compress(text.encode()))
    time.sleep(0.95)
PYTHON
python=$(python3 -c 'import sys; print(sys.executable)')
PYTHONHOME=$(python3 -c 'import sys; print(sys.base_prefix)')
export PYTHONHOME
for i in $(seq "$services"); do
  cp "$python" "$dir/service-$i"
  "$dir/service-$i" "$dir/work.py" &
  pids+=($!)
  printf '[[watch]]\nexe = "%s"\n' "$dir/service-$i" >>"$dir/stackwatch.toml"
done
printf '[ranking]\nmax_suspects = 0\n[limits]\nattachments = 512\n' >>"$dir/stackwatch.toml"
mkdir -m 750 "$dir/state"
"$bin/stackwatchd" --config "$dir/stackwatch.toml" --socket "$STACKWATCH_SOCKET" --state-dir "$dir/state" 2>"$dir/log" &
daemon=$!
pids+=("$daemon")
sleep 120  # what is learned has its size
written() { sed -n 's/^write_bytes: //p' "/proc/$daemon/io"; }
store_time() { cat "/proc/$daemon"/task/*/stat | awk -v name="$1" '$2 == name {print $14 + $15}'; }
all_time() { awk '{print $14 + $15}' "/proc/$daemon/stat"; }
bytes=$(written) store=$(store_time "(store)") all=$(all_time)
sleep "$seconds"
awk -v n="$services" -v s="$seconds" -v bytes=$(($(written) - bytes)) -v store=$(($(store_time "(store)") - store)) \
  -v all=$(($(all_time) - all)) -v size="$(stat -c %s "$dir/state/state.db")" 'BEGIN {
  printf "| services | written | of each, in 10 s | CPU of the store | CPU of the daemon | file |\n|---|---|---|---|---|---|\n"
  printf "| %d | %.2f GB a day | %.1f kB | %.2f %% | %.2f %% | %.1f MB |\n",
    n, bytes / s * 86400 / 1e9, bytes / s * 10 / n / 1e3, store / s, all / s, size / 1e6 }'
