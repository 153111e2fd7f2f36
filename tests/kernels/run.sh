#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Boots Debian's kernels in QEMU (emulated: no KVM needed) and runs the truth tests of the probes on each.
#   tests/kernels/run.sh [SUITE…]      default: bullseye (5.10), bookworm (6.1), trixie (6.12), sid (newest)
# FILTER=… narrows the tests (a GoogleTest filter). Kernels and results are kept in build/kernels/.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
work=$PWD/build/kernels
bin=$PWD/build/bin
suites=("$@")
[ $# -gt 0 ] || suites=(bullseye bookworm trixie sid)
# What emulation is too slow for (hundreds of processes, thousands of threads), and what needs perf.
filter=${FILTER:-"*:-PerfImport*:*ThreeThousand*:*ThousandThreads*:*TwoHundred*:*HundredThousand*:*ManyProcesses*"}

die() { printf 'tests/kernels: %s\n' "$*" >&2; exit 1; }
for tool in qemu-system-x86_64 cpio busybox; do command -v $tool >/dev/null || die "$tool is missing: ./dev test --all installs it"; done
for program in kernel_tests memory_tests stackwatchd; do [ -x "$bin/$program" ] || die "$bin/$program is missing: ./dev build"; done

# Prints the kernel image of a suite; fetched once. The suite is an apt source for this download alone.
kernel_of() {
  local suite=$1 dir=$work/$1 uri package image
  image=$(find "$dir/root/boot" -name 'vmlinuz-*' 2>/dev/null | head -n 1)
  if [ -z "$image" ]; then
    mkdir -p "$dir"/{lists/partial,cache/archives/partial,root}
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | head -n 1)
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$uri" "$suite" >"$dir/sources.list"
    local -a apt=(-q -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$dir/lists"
      -o "Dir::Cache=$dir/cache" -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" update >&2
    package=$(apt-cache "${apt[@]}" search --names-only '^linux-image-[0-9].*-cloud-amd64$' | awk '{print $1}' | sort -V | tail -n 1)
    [ -n "$package" ] || die "no kernel package in $suite"
    (cd "$dir" && apt-get "${apt[@]}" download "$package" >&2 && dpkg-deb -x "$package"_*.deb root)
    rm -rf "$dir"/*.deb "$dir/lists" "$dir/cache"
    image=$(find "$dir/root/boot" -name 'vmlinuz-*' | head -n 1)
    [ -n "$image" ] || die "$package has no kernel image"
    # Modules are not needed: what the tests use is built in.
    rm -rf "$dir/root/lib" "$dir/root/usr"
  fi
  printf '%s\n' "$image"
}

# A root file system with our programs at the paths they were built with, and their libraries.
make_initramfs() {
  local root=$work/initramfs file
  rm -rf "$root" && mkdir -p "$root"/{bin,proc,sys,tmp,var/tmp,run,dev,etc,root,usr/bin} "$root$bin"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for file in sh mount umount mkdir cat sleep poweroff uname dmesg true false env ls grep ps kill stat sync mknod; do ln -s busybox "$root/bin/$file"; done
  ln -s ../../bin/env "$root/usr/bin/env"
  cp "$bin"/{kernel_tests,memory_tests,stackwatch-symbols} "$root$bin/"
  cp -r "$bin/programs" "$root$bin/"
  # Those that tests preload, and what all of them need. (ldd fails for static programs among others: told nowhere.)
  local -a preloaded=()
  mapfile -t preloaded < <(ls /usr/lib/*/libjemalloc.so.2 /usr/lib/*/libtcmalloc_minimal.so.4 /usr/lib/*/libmimalloc.so.2* 2>/dev/null || true)
  for file in "${preloaded[@]}" $({ find "$root$bin" -type f -perm -u+x -exec ldd {} + ; ldd "${preloaded[@]}"; } 2>/dev/null |
    grep -oE '/[^ ]*\.so[^ :]*' | grep -v "^$bin" | sort -u); do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
  cat >"$root/init" <<INIT
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs tmp /var/tmp
mount -t tmpfs tmp /run
mount -t tracefs tracefs /sys/kernel/tracing
mkdir -p /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
ulimit -l unlimited
echo "kernel: \$(uname -r)"
for program in kernel_tests memory_tests; do
  CI=true STACKWATCH_EMULATED=1 $bin/\$program --gtest_color=no --gtest_filter='$filter'
  echo "stackwatch-exit \$program \$?"
done
sync
poweroff -f
INIT
  chmod +x "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initramfs.gz"
}

mkdir -p "$work"
make_initramfs
failed=0
for suite in "${suites[@]}"; do
  image=$(kernel_of "$suite")
  log=$work/$suite.log
  printf '==> %s on %s (%s)\n' "truth tests" "${image##*/vmlinuz-}" "$suite" >&2
  # Emulated time is slow time: a test that takes a second takes up to ten.
  timeout "${LIMIT_S:-900}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1536 -nographic -no-reboot \
    -kernel "$image" -initrd "$work/initramfs.gz" -append 'console=ttyS0 quiet panic=-1 rdinit=/init' \
    </dev/null 2>&1 | tr -d '\r' >"$log" || true
  passed=$(grep -c '^\[       OK \]' "$log" || true)
  skipped=$(grep -cE '^\[  SKIPPED \] .*\(' "$log" || true)
  bad=$(grep -E '^\[  FAILED  \] .*\(' "$log" | sed 's/.*\] //' || true)
  printf '%s: %s passed, %s skipped' "${image##*/vmlinuz-}" "$passed" "$skipped"
  if [ -n "$bad" ]; then printf ', failed:\n%s\n' "$bad"; failed=1; else printf '\n'; fi
  if [ "$(grep -c '^stackwatch-exit' "$log" || true)" -ne 2 ]; then
    printf 'it did not get to its end: the last lines of %s:\n' "$log"
    tail -n 20 "$log"
    failed=1
  fi
  [ "$passed" -gt 0 ] || failed=1
done
exit "$failed"
