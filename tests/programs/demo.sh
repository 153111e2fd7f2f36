#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The daemon watches a workload that shifts part of its time from some functions to another after a while. The daemon is
# the ordinary one and knows nothing of the demo; the workload draws functions, shares and the moment at random and
# tells the truth at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$PWD/build/bin
dir=$(mktemp -d)
daemon=
workload=
finish() {
  [ -z "$workload" ] || kill "$workload" 2>/dev/null || true
  [ -z "$daemon" ] || { kill "$daemon" 2>/dev/null && wait "$daemon"; } || true
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

printf '[[watch]]\nname = "shift"\n' >"$dir/stackwatch.toml"
export STACKWATCH_SOCKET=$dir/socket
say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }

say "stackwatchd starts; its configuration is one watch rule: name = \"shift\""
"$bin/stackwatchd" --foreground --config "$dir/stackwatch.toml" --socket "$STACKWATCH_SOCKET" --state-dir "$dir/state" &
daemon=$!
for _ in $(seq 100); do "$bin/stackwatch" status >/dev/null 2>&1 && break; sleep 0.1; done

say "a workload starts. One of its functions will grow from 10 % to 30 % of its time, 60 to 100 seconds from now"
"$bin/programs/shift" --onset-min 60 --onset-max 100 --duration 600 --truth-file "$dir/truth" >/dev/null &
workload=$!

sleep 15
say "the ranking (stackwatch top --once -n 5)"
"$bin/stackwatch" top --once -n 5
say "who is attached, and why (stackwatch attachments)"
"$bin/stackwatch" attachments
say "where its time goes (stackwatch stacks $workload)"
"$bin/stackwatch" stacks "$workload" --format tree | head -n 30

say "now it is the daemon's turn: the alert comes by itself, some 10 to 40 seconds after the shift"
# Of what else changes on this machine the daemon tells as well.
fired=
for _ in $(seq 180); do
  fired=$("$bin/stackwatch" alerts --state firing --json | sed 's/{"id":"/\n&/g' |
    sed -n "/\"pid\":$workload,/s/^{\"id\":\"\([0-9a-f]*\)\".*/\1/p" | head -n 1)
  [ -z "$fired" ] || break
  sleep 1
done
if [ -n "$fired" ]; then
  say "the evidence (stackwatch show $fired)"
  "$bin/stackwatch" show "$fired"
fi
sleep 2
kill "$workload"
wait "$workload" 2>/dev/null || true
workload=
say "the truth, which only the workload knew"
sed 's/.*"function":"\([a-z_]*\)".*"from":\([0-9.]*\),"to":\([0-9.]*\).*"onset_wall":"\([^"]*\)".*/    \1 grew from \2 to \3 at \4/' "$dir/truth"
[ -n "$fired" ] || { printf './dev: no alert in 180 s\n' >&2; exit 1; }
"$bin/stackwatch" status
