#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What counting every allocation costs a program that does nothing but malloc and free: alone, under our memory probe,
# and under memleak of libbpf-tools 0.31, in turn, so that the machine's drift hits all alike. Ratios of medians. Then
# what `mmap` for one process costs all others: mapping_cost, which needs no peer and can be run alone.
# STACKWATCH_MEMLEAK: the peer's command. Without it trixie's package is fetched through the mirror that apt uses, into
# a temporary directory, and run with trixie's own loader.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/build/bin
rounds=${1:-5}
seconds=2
dir=$(mktemp -d)
target=
watcher=
finish() {
  [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || true
  [ -z "$target" ] || kill "$target" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT

fetch_memleak() {
  local uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
  [ -n "$uri" ] || { echo "apt knows no mirror; set STACKWATCH_MEMLEAK" >&2; return 1; }
  mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/debs" "$dir/root"
  echo "deb [signed-by=$keyring] $uri trixie main" >"$dir/sources.list"
  local apt=(apt-get -q -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$dir/lists"
    -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root)
  "${apt[@]}" update >&2
  (cd "$dir/debs" && "${apt[@]}" download libbpf-tools libelf1t64 zlib1g libzstd1 libc6 >&2)
  local package
  for package in "$dir"/debs/*.deb; do dpkg-deb -x "$package" "$dir/root"; done
  local libraries=$dir/root/usr/lib/x86_64-linux-gnu
  memleak=("$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$dir/root/usr/sbin/memleak-libbpf")
}

run() { # run NAME COMMAND…: COMMAND PID holds probes on the target; appends ns per pair to a file
  local name=$1
  shift
  taskset -c 1 "$bin/programs/mallocs" --seconds $seconds --wait yes >"$dir/out" &
  target=$!
  if [ $# -gt 0 ]; then
    "$@" "$target" >"$dir/watcher" 2>&1 &
    watcher=$!
    # Ours says when it counts; the peer is given the time.
    for _ in $(seq 40); do grep -q '^counting' "$dir/watcher" && break; sleep 0.1; done
  else
    sleep 0.5
  fi
  kill -USR1 "$target"
  wait "$target"
  target=
  if [ -n "$watcher" ]; then
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true
    watcher=
  fi
  awk '{print $1}' "$dir/out" >>"$dir/$name"
}

memleak=()
if [ -n "${STACKWATCH_MEMLEAK:-}" ]; then read -r -a memleak <<<"$STACKWATCH_MEMLEAK"; else fetch_memleak; fi
peer() { "${memleak[@]}" -p "$1" 1; }
for _ in $(seq "$rounds"); do
  run alone
  run ours "$bin/watch_memory"
  run peer peer
done

median() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
alone=$(median "$dir/alone")
peer_ns=$(median "$dir/peer")
row() {
  awk -v name="$1" -v ns="$(median "$2")" -v alone="$alone" -v peer="$peer_ns" \
    'BEGIN {printf "| %s | %.0f | %.0f | %.2f |\n", name, ns, ns - alone, ns / peer}'
}
echo "malloc and free of 64 bytes, 12 calls deep, $rounds rounds of $seconds s in turn, medians:"
echo
echo "| probe | ns of CPU per pair | of these the probe's | ratio to memleak |"
echo "|---|---|---|---|"
row nobody "$dir/alone"
row stackwatch "$dir/ours"
row "memleak (libbpf-tools)" "$dir/peer"

echo
echo "What counting the mappings of one process costs another one (mmap on and off in turn):"
echo
taskset -c 1 "$bin/mapping_cost"
