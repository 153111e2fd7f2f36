#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Unwind tables against `readelf --debug-dump=frames-interp`, row by row, for every program and library below a root:
# unwind_rows.sh [ROOT...], /usr without any. Takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v readelf >/dev/null || { echo "readelf is needed (package binutils)" >&2; exit 1; }
[ -x build/bin/unwind_rows ] || { echo "build/bin/unwind_rows is needed (./dev build)" >&2; exit 1; }
exec nice -n 19 build/bin/unwind_rows "$@"
