#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How many user stacks reach the start of their thread, of real programs under load: ours beside perf's two modes, in
# turn on the same load. Of the frames that we name, the share of functions that perf's dwarf mode did not see at all:
# few are rare ones, many would be wrong stacks. unwind.sh [SECONDS [HZ]]. Names of the C library's threads need its debug symbols (libc6-dbg).
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/build/bin
seconds=${1:-10}
hz=${2:-199}
dir=$(mktemp -d)
chmod 755 "$dir"
declare -a started=()
finish() {
  [ "${#started[@]}" -eq 0 ] || kill "${started[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
command -v perf >/dev/null || { echo "perf is needed (package linux-perf)" >&2; exit 1; }

start() { "$@" >"$dir/log" 2>&1 & started+=($!); }
end_all() { kill "${started[@]}" 2>/dev/null || true; wait 2>/dev/null || true; started=(); }

# Where a thread starts: by name, or at the program's entry point, which a stripped program has no name for.
entry_of() { readelf -h "/proc/$1/exe" | sed -n 's/.*Entry point address: *0x\([0-9a-f]*\).*/\1/p'; }
base_of() { awk '{split($1, a, "-"); print a[1]; exit}' <(grep -F "$(readlink "/proc/$1/exe")" "/proc/$1/maps"); }
fixed() { readelf -h "/proc/$1/exe" | grep -q 'Type:.*EXEC'; }
starts='^(_start|__?clone3?|clone3?|start_thread|thread_start)$'

# Prints "samples reached" of our count: of the stacks with user frames those whose first frame is a start.
ours() {
  "$bin/stackwatch-standalone" count -p "$1" --probe on_cpu -F "$hz" -d "$seconds" --format folded 2>"$dir/count.err" |
    tee "$dir/ours.folded" | awk -v starts="$starts" -v entry="+0x$(entry_of "$1")" '{
      value = $NF; $NF = ""; n = split($0, f, ";"); root = f[2]; sub(/ +$/, "", root)
      if (n < 2 || root ~ /_\[k\]$/) next
      total += value
      if (root ~ starts || (length(root) > length(entry) && substr(root, length(root) - length(entry) + 1) == entry)) reached += value
    } END {print total + 0, reached + 0}'
}
# The same of perf in one of its modes.
of_perf() {
  local base=0
  fixed "$1" || base=$(base_of "$1")
  perf record -q -F "$hz" -e cpu-clock --call-graph "$2" -p "$1" -o "$dir/perf.data" -- sleep "$seconds" >/dev/null 2>&1 || true
  perf script -i "$dir/perf.data" -F ip,sym 2>/dev/null | tee "$dir/perf.script" |
    awk -v starts="$starts" -v begin="$(printf '%d' "0x$base")" -v entry="$(printf '%d' "0x$(entry_of "$1")")" '
      function number(hex,  i, v) { v = 0; for (i = 1; i <= length(hex); ++i) v = v * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1; return v }
      function end_of_stack() {
        if (last == "") return
        ++total
        if (name ~ starts || (number(last) >= begin + entry && number(last) < begin + entry + 64)) ++reached
        last = ""
      }
      NF == 0 {end_of_stack(); next}
      $1 !~ /^ffff/ {last = $1; name = $2}
      END {end_of_stack(); print total + 0, reached + 0}'
}
share() { awk -v t="$1" -v r="$2" 'BEGIN {if (t == 0) print "no samples"; else printf "%.1f %% of %d", 100 * r / t, t}'; }

# The share of our named user frames whose function is nowhere in perf's last samples. Bare names: perf leaves out
# parameters, versions and clones' suffixes. Functions with several names are known by all of them.
strange() {
  awk -v "aliases=$dir/aliases" 'function bare(name) {
      sub(/^\(anonymous namespace\)/, "", name); gsub(/\(anonymous namespace\)/, "@", name)
      sub(/\(.*/, "", name); sub(/ \[clone.*/, "", name); sub(/[.](constprop|part|isra|cold|lto_priv).*/, "", name)
      sub(/@.*/, "", name); sub(/^.* /, "", name)
      return name
    }
    function know(name,  at) {
      if (name in seen) return
      seen[name] = 1
      for (at in addresses) if (addresses[at] ~ " " name " ") {split(addresses[at], same, " "); for (i in same) seen[same[i]] = 1}
    }
    BEGIN {
      while ((getline line <aliases) > 0) {split(line, s, " "); addresses[s[1]] = addresses[s[1]] " " bare(s[2]) " "}
      for (at in addresses) if (split(addresses[at], s, " ") < 2) delete addresses[at]
    }
    FNR == NR {$1 = ""; sub(/^ /, ""); sub(/ \(inlined\)$/, ""); know(bare($0)); next}
    {
      value = $NF; sub(/ [0-9]+$/, ""); n = split($0, f, ";")
      for (i = 2; i <= n; ++i) {
        if (f[i] ~ /_\[k\]$/ || f[i] ~ /^\[/ || f[i] ~ /\+0x/) continue
        all += value
        if (!(bare(f[i]) in seen)) {strange += value; by[f[i]] += value}
      }
    }
    END {printf "%.2f %%", all ? 100 * strange / all : 0; for (name in by) print by[name], name >"/dev/stderr"}' \
    "$dir/perf.script" "$dir/ours.folded" 2>"$dir/strange"
}

# Of our user frames: those with a name, and those of which only the start of their function is known (stripped code).
named() {
  awk '{
      value = $NF; sub(/ [0-9]+$/, ""); n = split($0, f, ";")
      for (i = 2; i <= n; ++i) {
        if (f[i] ~ /_\[k\]$/) continue
        all += value
        if (f[i] ~ /^\[.*\]\+0x/) starts += value
        else if (f[i] ~ /^\[unknown\]/) unknown += value
      }
    }
    END {if (all) printf "%.1f + %.1f %%", 100 * (all - starts - unknown) / all, 100 * starts / all}' "$dir/ours.folded"
}

# "FILE:ADDRESS NAME" of the C library, where most functions have several names.
aliases_of() {
  local libc id
  libc=$(sed -n 's|.* \(/[^ ]*/libc[.]so[.]6\)$|\1|p' "/proc/$1/maps" | head -n 1)
  [ -n "$libc" ] || return 0
  id=$(readelf -n "$libc" | sed -n 's/.*Build ID: *//p')
  for file in "$libc" "/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug"; do
    [ ! -e "$file" ] || readelf -sW "$file" 2>/dev/null | awk '$4 ~ /FUNC/ && $2 !~ /^0+$/ {print $2, $8}'
  done
}

row() { # row NAME PID
  local fp dwarf us
  us=$(ours "$2")
  aliases_of "$2" >"$dir/aliases"
  fp=$(of_perf "$2" fp)
  dwarf=$(of_perf "$2" dwarf)
  # shellcheck disable=SC2086
  printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$1" "$(share $us)" "$(share $fp)" "$(share $dwarf)" "$(strange)" "$(named)" "$(sed -n 's/.*lost of on_cpu: *//p' "$dir/count.err" | tail -n 1)"
  [ -z "${STACKWATCH_SHOW_STRANGE:-}" ] || sort -rn "$dir/strange" | head -n 12 >&2
}
have() { command -v "$1" >/dev/null || { printf '| %s | not installed | | | | | |\n' "$1"; return 1; }; }

echo "User stacks that reach the start of their thread, $hz Hz, $seconds s each, in turn on one load:"
echo
echo "| program | ours | perf --call-graph fp | perf --call-graph dwarf | our frames unknown to it | our frames: named + start of function known | our losses |"
echo "|---|---|---|---|---|---|---|"
if have redis-server; then
  for clients in 1 50; do
    start redis-server --port 7399 --save '' --daemonize no
    server=${started[0]}
    sleep 1
    start redis-benchmark -p 7399 -c "$clients" -n 100000000 -t get,set -q
    sleep 1
    row "redis-server, $clients clients" "$server"
    end_all
  done
fi
if have nginx && have wrk; then
  printf 'daemon off; worker_processes 1; pid %s/nginx.pid; error_log %s/nginx.log; events {} http { access_log off; server { listen 127.0.0.1:7398; location / { return 200 "hello"; } } }\n' "$dir" "$dir" >"$dir/nginx.conf"
  start nginx -c "$dir/nginx.conf"
  sleep 1
  start wrk -t 1 -c 10 -d 600 http://127.0.0.1:7398/
  sleep 1
  row "nginx (worker)" "$(pgrep -P "${started[0]}" | head -n 1)"
  end_all
fi
postgres=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1 || true)
if [ -n "$postgres" ] && have pgbench; then
  install -d -o nobody "$dir/pg"
  as() { setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME="$dir/pg" "$@"; }
  as "$postgres/initdb" -D "$dir/pg/data" >/dev/null 2>&1
  start as "$postgres/postgres" -D "$dir/pg/data" -p 7397 -k "$dir/pg" -c listen_addresses= -c fsync=off
  sleep 3
  as "$postgres/createdb" -h "$dir/pg" -p 7397 bench >/dev/null 2>&1
  as pgbench -h "$dir/pg" -p 7397 -i -q bench >/dev/null 2>&1
  start as pgbench -h "$dir/pg" -p 7397 -c 1 -T 600 -S bench
  sleep 2
  row "postgres (backend)" "$(pgrep -f 'postgres: nobody bench' | head -n 1)"
  end_all
else
  echo "| postgres | not installed | | | | | |"
fi
if [ -x /usr/bin/python3 ]; then
  printf 'def f(n):\n    return 1 if n < 2 else f(n - 1) + f(n - 2)\nwhile True:\n    f(20)\n    sorted(str(i) for i in range(1000))\n' >"$dir/load.py"
  start /usr/bin/python3 "$dir/load.py"
  sleep 1
  row "python3 (Debian)" "${started[0]}"
  end_all
fi
if have node; then
  printf 'function f(n) { return n < 2 ? 1 : f(n - 1) + f(n - 2); }\nwhile (true) { f(20); JSON.parse(JSON.stringify([...Array(1000).keys()])); }\n' >"$dir/load.js"
  start node "$dir/load.js"
  sleep 1
  row "node" "${started[0]}"
  end_all
fi
if have g++; then
  cat >"$dir/load.cpp" <<'CPP'
#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>
static void work(unsigned seed) {
  std::mt19937 random(seed);
  for (;;) {
    std::vector<std::string> words;
    for (int i = 0; i < 20000; ++i) words.push_back(std::to_string(random()));
    std::sort(words.begin(), words.end());
    std::map<std::string, int> counts;
    for (const auto& word : words) ++counts[word.substr(0, 3)];
  }
}
int main() {
  std::thread other(work, 1);
  work(2);
}
CPP
  g++ -O2 -fomit-frame-pointer -o "$dir/load" "$dir/load.cpp" -pthread
  start "$dir/load"
  sleep 1
  row "C++ -O2, two threads" "${started[0]}"
  end_all
fi
