#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails on an include that goes against the layers: main, cli -> daemon -> {config, detectors, bpf, symbols, capture,
# store} -> core.
set -euo pipefail
cd "$(dirname "$0")/../.."
failed=0

# allow FOLDER REGEX: project includes of FOLDER must match.
allow() {
  local folder=$1 allowed=$2 hits
  hits=$(grep -rnE --include='*.h' --include='*.cpp' '^#include "(core|bpf|capture|store|symbols|detectors|config|daemon|cli|systemd|tests)/' "$folder" |
    grep -vE "#include \"($allowed)/" || true)
  [ -z "$hits" ] || { printf '%s may include only %s:\n%s\n' "$folder" "$allowed" "$hits" >&2; failed=1; }
}
allow core 'core'
allow bpf 'bpf|core'
allow symbols 'symbols|core'
allow detectors 'detectors|core'
allow config 'config|core'
allow capture 'capture|core'
allow store 'store|core'
allow daemon 'daemon|capture|store|config|detectors|bpf|symbols|core|systemd'
# Its stand-alone verbs use the engines and the namer without a daemon.
allow cli 'cli|daemon|capture|config|detectors|bpf|symbols|core'

# Only bpf/ knows BPF, perf and the skeletons, and only the worker's half of symbols/ parses object files.
hits=$(grep -rnE --include='*.h' --include='*.cpp' '#include [<"](bpf/(bpf|libbpf|btf|bpf_support|map_reader|cpu_events?|abi)\.h|linux/bpf\.h|linux/perf_event\.h|[a-z_]+\.skel\.h)' \
  core symbols detectors config capture store daemon cli || true)
[ -z "$hits" ] || { printf 'BPF headers outside of bpf/:\n%s\n' "$hits" >&2; failed=1; }
hits=$(grep -rnE --include='*.h' --include='*.cpp' '#include <(libelf|gelf|elfutils/|dwarf)' core bpf detectors config capture store daemon cli symbols |
  grep -v '^symbols/worker/' || true)
[ -z "$hits" ] || { printf 'object files are parsed outside of symbols/worker/:\n%s\n' "$hits" >&2; failed=1; }

hits=$(grep -rnE --include='*.h' --include='*.cpp' '#include [<"](sqlite3\.h|store/sqlite\.h)' core bpf detectors config capture daemon cli symbols || true)
[ -z "$hits" ] || { printf 'SQLite outside of store/:\n%s\n' "$hits" >&2; failed=1; }

# Time comes from Clock alone.
hits=$(grep -rnE --include='*.h' --include='*.cpp' '(system_clock|steady_clock)::now|clock_gettime\(' \
  core bpf symbols detectors config capture store daemon cli | grep -v '^core/clock' || true)
[ -z "$hits" ] || { printf 'time is read outside of core/clock.cpp:\n%s\n' "$hits" >&2; failed=1; }
exit $failed
