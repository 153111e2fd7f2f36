#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Boots Debian's kernels in QEMU (emulated: no KVM needed). On each: the truth tests of the probes, and the service.
#   tests/kernels/run.sh [SUITE…]      default: bullseye (5.10), bookworm (6.1), trixie (6.12), sid (newest)
# FILTER=… narrows the tests (a GoogleTest filter), PARTS=… to some of "truth service hotplug", BETWEEN=… on all kernels
# but the oldest and the newest; JOBS=… machines run at a
# time (default 2); CPUS=… gives them more than one, in the host's time, as hotplug always has. Kernels and results are kept in build/kernels/. Ends
# with 77 and the reason where nothing can be booted.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cd "$here/../.."
work=$PWD/build/kernels
bin=$PWD/build/bin
# Not here: what needs perf, and what takes an emulated CPU minutes to start (5,000 threads, 200 processes).
export FILTER=${FILTER:-"*:-PerfImport*:OffCpuProbe.FiveThousand*:*TwoHundred*:*HundredThousand*"}
read -ra parts <<<"${PARTS:-truth service hotplug}"

skip() { printf 'REQUIRES kernels: %s\n' "$1"; exit 77; }
die() { printf 'tests/kernels: %s\n' "$*" >&2; exit 1; }

# ---- what is booted ----

# Prints the kernel image of a suite; fetched once. The suite is an apt source for this download alone.
kernel_of() {
  local suite=$1 dir=$work/$1 image
  image=$(find "$dir" -maxdepth 1 -name 'vmlinuz-*' 2>/dev/null | head -n 1)
  [ -n "$image" ] || { fetch_kernel "$suite" "$dir" >&2 && image=$(find "$dir" -maxdepth 1 -name 'vmlinuz-*' | head -n 1); }
  [ -n "$image" ] && printf '%s\n' "$image"
}

fetch_kernel() { # SUITE DIRECTORY
  local suite=$1 dir=$2 uri package
  rm -rf "$dir" && mkdir -p "$dir"/{lists/partial,cache/archives/partial,root}
  uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
  [ -n "$uri" ] || { printf 'apt has no source of Debian packages\n'; return 1; }
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$uri" "$suite" >"$dir/sources.list"
  local -a apt=(-q -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$dir/lists"
    -o "Dir::Cache=$dir/cache" -o APT::Sandbox::User=root -o Acquire::Retries=3)
  apt-get "${apt[@]}" update || return 1
  # The image is in linux-image-*, and since Linux 7 in linux-binary-*, where linux-image-* holds nothing but a dependency.
  for package in linux-binary linux-image; do
    package=$(apt-cache "${apt[@]}" search --names-only "^$package-[0-9].*-cloud-amd64\$" | awk '{print $1}' | sort -V | tail -n 1)
    [ -z "$package" ] || break
  done
  [ -n "$package" ] || { printf 'no kernel package in %s\n' "$suite"; return 1; }
  (cd "$dir" && apt-get "${apt[@]}" download "$package" && dpkg-deb -x "$package"_*.deb root) || return 1
  # Modules are not needed: what the tests use is built in.
  find "$dir/root" -name 'vmlinuz*' -exec cp '{}' "$dir/vmlinuz-${package#linux-*-}" \;
  rm -rf "$dir"/{root,lists,cache,sources.list} "$dir"/*.deb
}

# A root file system with our programs at the paths they were built with, and their libraries. It stays in memory: /tmp
# is no other file system, since the checkout may lie there.
make_initramfs() {
  local root=$work/initramfs file
  rm -rf "$root" && mkdir -p "$root"/{bin,proc,sys,tmp,var/tmp,var/lib,run,dev,etc,root,usr/bin,stackwatch-test} "$root$bin"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for file in $(busybox --list); do ln -s busybox "$root/bin/$file" 2>/dev/null || true; done
  cp "$(command -v setpriv)" "$root/usr/bin/setpriv" # busybox's sets no users
  ln -s ../../bin/env "$root/usr/bin/env"
  for file in kernel_tests memory_tests stackwatch stackwatch-events stackwatch-standalone stackwatch-symbols stackwatchd; do
    strip --strip-debug -o "$root$bin/$file" "$bin/$file"
  done
  cp -r "$bin/programs" "$root$bin/"
  # Those that tests preload, and what all of them need. (ldd fails for static programs among others: told nowhere.)
  local -a preloaded=()
  mapfile -t preloaded < <(ls /usr/lib/*/libjemalloc.so.2 /usr/lib/*/libtcmalloc_minimal.so.4 /usr/lib/*/libmimalloc.so.2* 2>/dev/null || true)
  for file in "${preloaded[@]}" $({ find "$root$bin" "$root/usr/bin/setpriv" -type f -perm -u+x -exec ldd {} + ; ldd "${preloaded[@]}"; } 2>/dev/null |
    grep -oE '/[^ ]*\.so[^ :]*' | grep -v "^$bin" | grep -v "^$root" | sort -u); do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nstackwatch:x:990:990::/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\nstackwatch:x:990:\nnogroup:x:65534:\n' >"$root/etc/group"
  printf "BIN='%s'\nFILTER='%s'\n" "$bin" "$FILTER" >"$root/stackwatch-test/settings"
  cp "$here/stackwatch.toml" "$root/stackwatch-test/"
  cp "$here/init" "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initramfs.gz"
  rm -rf "$root"
}

# Tests compare with clocks. Emulated time usually is the host's, in which an emulated CPU stands still whenever the
# emulator or somebody else runs, untold. With -icount time is what instructions make of it, 4 ns each: the clock and the
# CPU agree, nothing else that this machine does can be seen, and sleeping costs nothing. It goes with one CPU only.
# No cmpxchg16b: that of QEMU 7.2 leaves garbage in the flags at times, and the kernel's allocator dies of a double fault.
boot() { # SUITE PART
  local suite=$1 part=$2 log=$work/$1-$2.log limit=${LIMIT_S:-1500}
  local -a machine=(-accel "tcg,thread=single" -icount "shift=2,sleep=off" -smp 1)
  local cpus=${CPUS:-1}
  [ "$part" != hotplug ] || cpus=2
  [ "$cpus" -eq 1 ] || machine=(-accel "tcg,thread=multi" -smp "$cpus")
  local begun=$SECONDS
  : >"$log"
  timeout "$limit" qemu-system-x86_64 "${machine[@]}" -cpu max,cx16=off -m 1536 -display none -monitor none -serial "file:$log" \
    -no-reboot -kernel "$(kernel_of "$suite")" -initrd "$work/initramfs.gz" \
    -append "console=ttyS0 quiet panic=-1 no_timer_check rdinit=/init PART=$part" </dev/null >&2 || true
  tr -d '\r' <"$log" >"$log.text" && mv "$log.text" "$log"
  printf '@seconds %s\n' $((SECONDS - begun)) >>"$log"
}

# ---- what came of it ----

told() { sed -n "s/^.*@$1 //p" "$2"; } # KIND LOG
report() { # SUITE PART: prints it, fails where anything did
  local log=$work/$1-$2.log bad=
  printf '%s, %s (%s), %s s: ' "$(told kernel "$log")" "$2" "$1" "$(told seconds "$log")"
  if [ "$2" = truth ]; then
    printf '%s passed, %s skipped\n' "$(grep -c '^\[       OK \]' "$log")" "$(grep -cE '^\[  SKIPPED \] .*\(' "$log")"
    bad=$(grep -E '^\[  FAILED  \] .*\(' "$log" | sed 's/.*\] //')
    [ "$(told exit "$log" | wc -l)" -eq 2 ] || bad+=$'\nnot all test programs ended'
    told exit "$log" | grep -qv ' 0$' && [ -z "$bad" ] && bad=$(told exit "$log")
  else
    printf '%s steps passed\n' "$(told passed "$log" | wc -l)"
  fi
  bad+=$(told failed "$log")
  [ "$(told end "$log")" = "$2" ] || bad+=$'\nit did not get to its end; its last lines:\n'$(tail -n 15 "$log")
  [ -z "$bad" ] || printf 'FAILED: %s\nAll of it: %s\n' "$bad" "$log"
  [ -z "$bad" ]
}

if [ "${1:-}" = --boot ]; then
  boot "$2" "$3"
  exit 0
fi

for tool in qemu-system-x86_64 cpio busybox setpriv strip; do command -v $tool >/dev/null || skip "$tool is not installed"; done
[ "$(uname -m)" = x86_64 ] || skip "the kernels are those of x86_64"
for program in kernel_tests memory_tests stackwatch stackwatch-events stackwatchd; do
  [ -x "$bin/$program" ] || die "$bin/$program is missing: ./dev build"
done
mkdir -p "$work"
# Of the kernels between the oldest and the newest, BETWEEN narrows the parts.
parts_of() { # SUITE
  if [ "$1" = "${suites[0]}" ] || [ "$1" = "${suites[-1]}" ]; then printf '%s\n' "${parts[@]}"; else printf '%s\n' ${BETWEEN:-${parts[@]}}; fi
}

suites=()
[ $# -gt 0 ] || set -- bullseye bookworm trixie sid
for suite in "$@"; do
  if kernel_of "$suite" >/dev/null; then
    suites+=("$suite")
  else
    printf 'skipped: the kernel of %s cannot be fetched, see above\n' "$suite"
  fi
done
[ "${#suites[@]}" -gt 0 ] || skip "no kernel can be fetched"
make_initramfs
failed=0
for suite in "${suites[@]}"; do
  for part in $(parts_of "$suite"); do printf '%s %s\n' "$suite" "$part"; done
done |
  xargs -P "${JOBS:-2}" -L 1 "$here/run.sh" --boot
for suite in "${suites[@]}"; do
  for part in $(parts_of "$suite"); do report "$suite" "$part" || failed=1; done
done
exit "$failed"
