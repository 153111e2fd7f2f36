#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How much of real object files has names, file and line, and what finding them costs: symbols.sh [FILE…]. Places are
# taken at random from code that call-frame information knows. Times are CPU time: of the first place asked in an object
# (its tables are read), and of each further one.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/build/bin
files=("$@")
if [ ${#files[@]} -eq 0 ]; then
  for path in /usr/bin/{redis-server,python3,node,perf,stress-ng} /usr/sbin/nginx /usr/lib/postgresql/*/bin/postgres /lib/*-linux-gnu/lib{c,stdc++,crypto,jemalloc}.so.[0-9]*; do
    [ ! -e "$path" ] || files+=("$(readlink -f "$path")")
  done
  files+=("$bin/stackwatch-symbols" "$bin/unit_symbols")
fi
mapfile -t files < <(for file in "${files[@]}"; do [ ! -e "$file" ] || echo "$file"; done | sort -u)
# Each by itself: the memory of one must not be the other's.
"$bin/name_objects"
for file in "${files[@]}"; do "$bin/name_objects" "$file" | tail -n +2 || true; done
echo
echo "resident memory of a process that asked about one object alone:"
for file in "${files[@]}"; do
  python3 - "$bin/name_objects" "$file" <<'PY'
import os, resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=False)
print(f"{os.path.basename(sys.argv[2]):34.34} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:8.1f} MB")
PY
done
