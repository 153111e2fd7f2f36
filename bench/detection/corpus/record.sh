#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Records programs in which something happens, once; replays them with the detectors and scores the alerts.
#   record.sh record DIR [REPETITIONS] [AT_ONCE]   captures and truths into DIR; goes on where it stopped (default 20, 4)
#   record.sh score DIR                            replays all of DIR and prints the tables
# A run is 5 minutes: 10 cases × 20 repetitions / 4 at once take 4 hours and 10 minutes; 1 repetition, 5 at once,
# 10 minutes. Several at once share the machine, as processes do.
set -euo pipefail
usage=$(sed -n '3,8s/^# \{0,1\}//p' "$0")
[ $# -lt 2 ] || dir=$(realpath -m "$2")
cd "$(dirname "$(readlink -f "$0")")/../../.."
bin=$PWD/build/bin
cases=(grow1 grow2 grow5 grow20 steady load rename restart transient periodic)

record_one() { # DIR CASE REPETITION
  local name=$1/$2-$3 load=0.2
  [ ! -e "$name.truth.json" ] || return 0
  # The seed makes the onset, so a repetition is the same run wherever it is recorded.
  "$bin/stackwatch-standalone" record -o "$name.part" -- "$bin/programs/changer" --case "$2" --seed $((1000 + $3)) \
    --load "$load" --truth-file "$name.truth.part" >"$name.log" 2>&1 || { echo "$2 $3 failed: see $name.log" >&2; return 0; }
  mv "$name.part" "$name.capture"
  mv "$name.truth.part" "$name.truth.json"
}

case ${1:-} in
  record)
    # Without names, nothing could be found.
    [ -x "$bin/stackwatch-symbols" ] || { echo "record.sh: $bin/stackwatch-symbols is missing: build first" >&2; exit 1; }
    : "${dir:?DIR}"
    repetitions=${3:-20} at_once=${4:-4}
    mkdir -p "$dir"
    export -f record_one
    export bin
    for ((i = 1; i <= repetitions; ++i)); do for c in "${cases[@]}"; do printf '%s %s %s\n' "$dir" "$c" "$i"; done; done |
      xargs -P "$at_once" -L 1 bash -c 'record_one "$@"' record_one
    ;;
  score)
    : "${dir:?DIR}"
    for truth in "$dir"/*.truth.json; do
      name=${truth%.truth.json}
      "$bin/stackwatch-standalone" replay --json "$name.capture" >"$name.alerts" || rm -f "$name.alerts"
    done
    "$bin/bench_corpus" "$dir"
    ;;
  *) printf '%s\n' "$usage" >&2; exit 2 ;;
esac
