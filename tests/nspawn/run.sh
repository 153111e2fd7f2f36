#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the package on a booted plain Debian 12 and lives through what a machine does to a service:
# tests/nspawn/inside.sh says what. The Debian is debootstrap's smallest with systemd, and redis-server to be watched; it
# is made once, in build/nspawn/, and each run has it through an overlay.
#   usage: run.sh PACKAGE.deb SHIFT_PROGRAM
#          run.sh --prepare      only makes that Debian, where it is not there yet
# Ends with 77 and the reason where this machine cannot do that.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
base=$(readlink -f "$here/../..")/build/nspawn/bookworm
# An ordinary run takes four minutes; on a machine with much else to do, longer.
seconds=${STACKWATCH_NSPAWN_SECONDS:-900}

skip() { printf 'REQUIRES nspawn: %s\n' "$1"; exit 77; }
[ "$(id -u)" -eq 0 ] || skip "it must be root to boot a container"
command -v systemd-nspawn >/dev/null || skip "systemd-nspawn is not installed (package systemd-container)"
command -v debootstrap >/dev/null || skip "debootstrap is not installed"
[ -e /sys/kernel/btf/vmlinux ] || skip "the kernel has no BTF"
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || skip "the kernel has no overlayfs"

# Not under its final name before it is whole.
make_base() {
  local uri
  uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
  [ -n "$uri" ] || { printf 'apt has no source of Debian packages\n'; return 1; }
  rm -rf "$base" "$base.new"
  mkdir -p "$base.new"
  debootstrap --variant=minbase --include=systemd-sysv,dbus,redis-server,redis-tools bookworm "$base.new" "$uri" || return 1
  chroot "$base.new" apt-get clean
  mv "$base.new" "$base"
}
if [ ! -d "$base" ]; then
  printf 'making a plain Debian 12 in %s\n' "$base"
  make_base >"$(mkdir -p "${base%/*}" && echo "$base.log")" 2>&1 ||
    skip "debootstrap cannot make a Debian 12: $(tail -n 1 "$base.log"); all of it in $base.log"
fi
[ "$1" != --prepare ] || exit 0
package=$(readlink -f "$1")
shift_program=$(readlink -f "$2")

# An overlay cannot lie on an overlay: where /var/tmp is one, mounting fails below.
work=$(mktemp -d /var/tmp/stackwatch-nspawn-XXXXXX)
machine=
finish() {
  if [ -n "$machine" ]; then
    kill "$machine" 2>/dev/null || true # it powers off
    for _ in $(seq 50); do kill -0 "$machine" 2>/dev/null || break; sleep 0.2; done
    kill -KILL "$machine" 2>/dev/null || true
    wait "$machine" 2>/dev/null || true
  fi
  mountpoint -q "$work/root" && { umount -R "$work/root" 2>/dev/null || umount -R -l "$work/root"; }
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

mkdir "$work/up" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/up,workdir=$work/work" "$work/root" 2>"$work/error" ||
  skip "$(tr '\n' ' ' <"$work/error")"
root=$work/root
test_dir=$root/opt/stackwatch-test
mkdir -p "$test_dir"
cp "$package" "$test_dir/package.deb"
cp "$shift_program" "$test_dir/shift"
cp "$here/inside.sh" "$test_dir/"

# The same with a higher version.
dpkg-deb -R "$package" "$work/newer"
sed -i 's/^Version: .*/&+newer/' "$work/newer/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip -z1 -b "$work/newer" "$test_dir/newer.deb" >/dev/null

# What the package depends on is fetched here: the container has no network.
fetch_dependencies() {
  chroot "$root" apt-get install -q -y --no-install-recommends --download-only /opt/stackwatch-test/package.deb
}
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
{ fetch_dependencies || { chroot "$root" apt-get update -q && fetch_dependencies; }; } >"$work/apt" 2>&1 ||
  skip "apt cannot fetch what the package depends on: $(tail -n 1 "$work/apt")"

cat >"$root/etc/systemd/system/stackwatch-test.target" <<'UNIT'
[Unit]
Requires=basic.target stackwatch-test.service
After=basic.target
AllowIsolate=yes
UNIT
cat >"$root/etc/systemd/system/stackwatch-test.service" <<'UNIT'
[Unit]
After=basic.target dbus.socket
Wants=dbus.socket
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/bin/bash /opt/stackwatch-test/inside.sh
StandardOutput=append:/opt/stackwatch-test/log
StandardError=append:/opt/stackwatch-test/log
TimeoutStartSec=infinity
UNIT
touch "$test_dir/log"

mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null || true
tracing=()
mountpoint -q /sys/kernel/tracing && tracing=(--bind=/sys/kernel/tracing)
# The container has no seccomp filter of its own: the unit's is what is tested.
SYSTEMD_SECCOMP=0 SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 systemd-nspawn -D "$root" --machine="stackwatch-test-$$" \
  --register=no --keep-unit --capability=all "${tracing[@]}" --link-journal=no --private-network --console=pipe \
  -b systemd.unit=stackwatch-test.target </dev/null >"$work/console" 2>&1 &
machine=$!

for _ in $(seq "$((seconds * 2))"); do
  kill -0 "$machine" 2>/dev/null || break
  sleep 0.5
done
cat "$test_dir/log"
if grep -q '^all steps passed' "$test_dir/log"; then exit 0; fi
# Nothing ran in it: that is this machine's fault. A step that failed is ours.
if [ ! -s "$test_dir/log" ]; then
  if grep -qE 'Failed to|not permitted|not supported' "$work/console"; then
    skip "it does not boot here: $(grep -aE 'Failed to|not permitted|not supported' "$work/console" | head -n 1)"
  fi
  tail -n 40 "$work/console"
fi
kill -0 "$machine" 2>/dev/null && printf 'it was not done after %s s\n' "$seconds"
exit 1
