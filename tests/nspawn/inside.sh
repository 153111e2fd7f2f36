#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs in the booted container, as root. Each step is a sentence of what must hold; the first that does not ends it.
set -euo pipefail
cd /opt/stackwatch-test
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

firing=9fc0a0ab93f14d3cb7f955ba7f7e61f4
begun=$SECONDS
step() { printf '[%3d s] %s\n' $((SECONDS - begun)) "$*"; }
fail() {
  printf 'FAILED: %s\n' "$*"
  systemctl status stackwatch --no-pager -l 2>&1 | tail -n 25
  journalctl -u stackwatch --no-pager -n 30 2>&1
  exit 1
}
# within SECONDS COMMAND…: until it succeeds.
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.3
  done
}
main_pid() { systemctl show -P MainPID stackwatch; }
answers() { stackwatch status --json; }
# A line of JSON has KEY with a VALUE (a regular expression).
has() { grep -qE "\"$1\":\"?$2"; }
# Two for each CPU, however often it was started.
events_are_kept() { [ "$(systemctl show -P NFileDescriptorStore stackwatch)" = $((2 * $(getconf _NPROCESSORS_ONLN))) ]; }
restarted_since() { [ "$(main_pid)" != "$1" ] && [ "$(main_pid)" != 0 ] && answers; }
start_count_forgotten() { systemctl reset-failed stackwatch 2>/dev/null || true; }

step "the package installs on a plain Debian 12 with what apt knows alone, and its service runs"
dpkg-query -W -f '${Package}\n' | grep -xE '(gcc|g[+][+]|clang)(-[0-9]+)?|cmake|.*-dev|bpftool' && fail "this is no plain Debian"
apt-get install -qq -y --no-install-recommends /opt/stackwatch-test/package.deb </dev/null >install.log 2>&1 ||
  fail "apt-get install: $(cat install.log)"
within 30 systemctl is-active -q stackwatch || fail "the service is not active after installing"
within 30 answers || fail "no answer on the control socket"
systemctl is-enabled -q stackwatch || fail "it is not enabled"
[ "$(systemctl show -P ActiveState stackwatch)" = active ] || fail "not active"

step "it runs as its user, with six capabilities, no new privileges and a filter"
pid=$(main_pid)
[ "$(stat -c %U "/proc/$pid")" = stackwatch ] || fail "it runs as $(stat -c %U "/proc/$pid")"
grep -q '^CapEff:.0*1c400080004$' "/proc/$pid/status" || fail "$(grep CapEff "/proc/$pid/status")"
grep -q '^CapBnd:.0*1c400080004$' "/proc/$pid/status" || fail "$(grep CapBnd "/proc/$pid/status")"
grep -q '^NoNewPrivs:.1$' "/proc/$pid/status" || fail "it may gain privileges"
grep -q '^Seccomp:.2$' "/proc/$pid/status" || fail "it has no seccomp filter"
[ "$(stat -c '%U:%G %a' /run/stackwatch/io.stackwatch)" = 'stackwatch:stackwatch 660' ] ||
  fail "socket: $(stat -c '%U:%G %a' /run/stackwatch/io.stackwatch)"
[ "$(stat -c '%U %a' /var/lib/stackwatch)" = 'stackwatch 750' ] || fail "state: $(stat -c '%U %a' /var/lib/stackwatch)"
events_are_kept || fail "events kept for it: $(systemctl show -P NFileDescriptorStore stackwatch)"
[ "$(grep -c : "/proc/$pid/net/dev")" = 1 ] || fail "it sees a network: $(cat "/proc/$pid/net/dev")"

step "its exposure is at most 2.0, as systemd-analyze counts"
exposure=$(systemd-analyze security --no-pager stackwatch.service | sed -n 's/.*Overall exposure level[^0-9]*service: \([0-9.]*\).*/\1/p')
printf '        exposure %s\n' "$exposure"
[ -n "$exposure" ] && [ "$(printf '%s\n2.0\n' "$exposure" | sort -V | tail -n 1)" = 2.0 ] || fail "exposure '$exposure'"

step "reload takes new rules without a restart"
mkdir -p /etc/stackwatch/stackwatch.toml.d
cat >/etc/stackwatch/stackwatch.toml.d/test.toml <<'TOML'
[[watch]]
id = "redis"
unit = "redis-server"
probes = ["on_cpu", "off_cpu"]
[[watch]]
id = "shift"
unit = "shift-test"
[ranking]
max_suspects = 0
[detectors.composition]
learn = "30s"
TOML
systemctl reload stackwatch || fail "reload"
within 10 sh -c 'stackwatch watch list --json | grep -q shift-test' || fail "the new rules are not in force"
[ "$(main_pid)" = "$pid" ] || fail "reload restarted it"

step "an invalid file makes reload fail, and the old configuration stays in force"
printf '[survey]\nfrequnecy = 9\n' >/etc/stackwatch/stackwatch.toml.d/wrong.toml
if systemctl reload stackwatch 2>/dev/null; then fail "reload of an invalid file succeeded"; fi
journalctl -u stackwatch --no-pager -n 20 | grep -q 'wrong.toml:2:1' || fail "the journal does not say where it is wrong"
rm /etc/stackwatch/stackwatch.toml.d/wrong.toml
stackwatch watch list --json | grep -q shift-test || fail "the old rules are gone"
[ "$(main_pid)" = "$pid" ] || fail "it was restarted"

step "processes of other users are watched, by their unit"
redis=
if systemctl cat redis-server >/dev/null 2>&1; then
  systemctl start redis-server && redis=1 || fail "redis-server does not start"
  redis-cli rpush list $(seq 500) >/dev/null
  systemd-run -q --unit=redis-load redis-benchmark -q -n 1000000000 -c 2 get key
fi
systemd-run -q --unit=shift-test -p DynamicUser=yes -p StateDirectory=shift-test \
  /opt/stackwatch-test/shift --onset-min 45 --onset-max 50 --duration 900 --truth-file /var/lib/shift-test/truth
attached() { stackwatch attachments --json | has unit "$1"; }
within 20 attached shift-test.service || fail "shift-test is not attached"
[ -z "$redis" ] || within 20 attached redis-server.service || fail "redis-server is not attached"
shift_pid=$(systemctl show -P MainPID shift-test)
[ "$(stat -c %U "/proc/$shift_pid")" != stackwatch ] || fail "the target has the daemon's own user"
named() { stackwatch stacks "$1" --format folded | grep -q "$2"; }
within 20 named "$shift_pid" ';main;' || fail "its functions have no names: $(stackwatch stacks "$shift_pid" --format folded | head -n 3)"
if [ -n "$redis" ]; then
  redis_pid=$(systemctl show -P MainPID redis-server)
  within 20 named "$redis_pid" '_\[k\]' || fail "kernel functions of redis-server have no names"
fi

step "who is neither root nor in the group is refused; who is in it may read, and not change"
if setpriv --reuid nobody --regid nogroup --clear-groups stackwatch status >/dev/null 2>answer; then fail "nobody may read"; fi
grep -q 'stackwatch' answer || fail "the refusal does not say what to do: $(cat answer)"
setpriv --reuid nobody --regid stackwatch --clear-groups stackwatch status >/dev/null || fail "the group may not read"
if setpriv --reuid nobody --regid stackwatch --clear-groups stackwatch watch add --name x >/dev/null 2>&1; then
  fail "the group may change"
fi

step "within the unit's own restrictions everything works, and each capability is needed"
doctor_unit() { # the service's own unit, with doctor in place of the daemon; less one capability
  sed -e '/^ExecReload=/d; /^Watchdog/d; /^Restart/d; /^RuntimeDirectory/d; /^NotifyAccess/d; /^ExecStartPre/d; s/^Type=.*/Type=oneshot/' \
    -e 's#^ExecStart=.*#ExecStart=/usr/bin/stackwatch doctor#' -e "s/ \?CAP_$1\b//" \
    /lib/systemd/system/stackwatch.service >/run/systemd/system/stackwatch-doctor.service
  # A oneshot's output, where it can be read right away.
  sed -i '/^\[Service\]/a StandardOutput=truncate:/run/doctor\nSuccessExitStatus=3' \
    /run/systemd/system/stackwatch-doctor.service
  systemctl daemon-reload
  systemctl start stackwatch-doctor || fail "stackwatch doctor in the unit"
}
doctor_unit NONE
# The container is one, and says so.
grep -vE '^ok|^Linux|^All|container|->' /run/doctor && fail "the unit lacks something: $(cat /run/doctor)"
grep -q '^All probes work' /run/doctor || fail "$(cat /run/doctor)"
sed 's/^/        /' /run/doctor
for row in BPF:on_cpu PERFMON:on_cpu SYS_PTRACE:executables DAC_READ_SEARCH:private_files \
  CHECKPOINT_RESTORE:deleted_objects SYSLOG:kernel_symbols; do
  doctor_unit "${row%:*}"
  grep -qE "^(limited|missing) +${row#*:} " /run/doctor || fail "without CAP_${row%:*} ${row#*:} works: $(cat /run/doctor)"
  printf '        without CAP_%s: %s\n' "${row%:*}" "$(grep -E "^(limited|missing) +${row#*:} " /run/doctor)"
done

step "the change is told in the journal, with the function that changed"
alert_of() { journalctl -o json --no-pager MESSAGE_ID=$firing "STACKWATCH_UNIT=$1" | head -n 1 | grep . >alert.json; }
within 150 alert_of shift-test.service || fail "no alert about shift-test: $(stackwatch alerts)"
truth=/var/lib/private/shift-test/truth
function=$(sed -n 's/.*"STACKWATCH_FRAME":"\([^"]*\)".*/\1/p' alert.json)
for field in ALERT_ID STATE PID COMM EXE CGROUP UNIT DETECTOR PROBE FRAME STACK BEFORE AFTER ONSET SCORE; do
  has "STACKWATCH_$field" . <alert.json || fail "the entry has no STACKWATCH_$field: $(cat alert.json)"
done
has PRIORITY 4 <alert.json || fail "priority"
id=$(sed -n 's/.*"STACKWATCH_ALERT_ID":"\([^"]*\)".*/\1/p' alert.json)
stackwatch show "$id" | grep -q "$function" || fail "stackwatch show $id does not name $function"
printf '        %s\n' "$(journalctl -o cat --no-pager MESSAGE_ID=$firing "STACKWATCH_ALERT_ID=$id" | head -n 1)"

step "journalctl -x explains it"
journalctl -x --no-pager "STACKWATCH_ALERT_ID=$id" >explained
grep -q 'does not behave as it did' explained || fail "no catalog text: $(cat explained)"
grep -q "stackwatch show $id" explained || fail "the catalog text does not name the alert"

if [ -n "$redis" ]; then
  step "redis-server's change is told too"
  systemctl stop redis-load
  systemd-run -q --unit=redis-load-2 redis-benchmark -q -n 1000000000 -c 2 lrange list 0 400
  within 90 alert_of redis-server.service || fail "no alert about redis-server: $(stackwatch alerts)"
  printf '        %s\n' "$(sed -n 's/.*"MESSAGE":"\([^"]*\)".*/\1/p' alert.json)"
  systemctl stop redis-load-2 redis-server
fi
systemctl stop shift-test
within 10 test -s "$truth" || fail "shift has not told the truth"
grep -q "\"$function\"" "$truth" || fail "$function did not change: $(cat "$truth")"

step "CAP_SYS_ADMIN, for kernels without uprobe_multi, comes with a file of the package's examples and goes with it"
mkdir -p /etc/systemd/system/stackwatch.service.d
cp /usr/share/doc/stackwatch/examples/perf-uprobes.conf /etc/systemd/system/stackwatch.service.d/
systemctl daemon-reload
start_count_forgotten
systemctl restart stackwatch || fail "it does not start with perf-uprobes.conf"
grep -q '^CapEff:.0*1c400280004$' "/proc/$(main_pid)/status" || fail "$(grep CapEff "/proc/$(main_pid)/status")"
within 30 answers || fail "no answer with perf-uprobes.conf"
rm -r /etc/systemd/system/stackwatch.service.d
systemctl daemon-reload
systemctl restart stackwatch
grep -q '^CapEff:.0*1c400080004$' "/proc/$(main_pid)/status" || fail "$(grep CapEff "/proc/$(main_pid)/status")"

step "a kernel that lets it open no event: it samples with those that were opened for it"
mkdir -p /run/systemd/system/stackwatch.service.d
printf '[Service]\nSystemCallFilter=~perf_event_open\n' >/run/systemd/system/stackwatch.service.d/test.conf
systemctl daemon-reload
start_count_forgotten
systemctl restart stackwatch || fail "it does not start where it may open no event"
systemd-run -q --unit=shift-test -p DynamicUser=yes /opt/stackwatch-test/shift --onset-min 600 --onset-max 600 --duration 900
shift_pid=$(systemctl show -P MainPID shift-test)
within 30 named "$shift_pid" ';main;' || fail "no stacks of shift-test: $(stackwatch attachments)"
systemctl stop shift-test
events_are_kept || fail "events kept for it: $(systemctl show -P NFileDescriptorStore stackwatch)"

step "a stuck tick: the watchdog has it started again"
mkdir -p /run/systemd/system/stackwatch.service.d
printf '[Service]\nWatchdogSec=5s\nRestartSec=1s\n' >/run/systemd/system/stackwatch.service.d/test.conf
systemctl daemon-reload
start_count_forgotten
systemctl restart stackwatch
pid=$(main_pid)
kill -STOP "$pid"
within 60 restarted_since "$pid" || fail "it was not restarted"
journalctl -u stackwatch --no-pager | grep -q 'Watchdog timeout' || fail "it was not the watchdog"

step "SIGKILL: it is started again"
start_count_forgotten
pid=$(main_pid)
kill -KILL "$pid"
within 30 restarted_since "$pid" || fail "it was not restarted"
events_are_kept || fail "events kept for it: $(systemctl show -P NFileDescriptorStore stackwatch)"

step "an upgrade keeps configuration and state"
start_count_forgotten
printf '# a line of my own\n' >>/etc/stackwatch/stackwatch.toml
touch /var/lib/stackwatch/kept
pid=$(main_pid)
dpkg --force-confold -i newer.deb || fail "the upgrade"
dpkg-query -W -f '${Version}' stackwatch | grep -q newer || fail "the version is the old one"
within 30 restarted_since "$pid" || fail "the new version does not run"
grep -q 'a line of my own' /etc/stackwatch/stackwatch.toml || fail "the configuration was overwritten"
[ -e /etc/stackwatch/stackwatch.toml.d/test.toml ] && [ -e /var/lib/stackwatch/kept ] || fail "files were lost"

step "remove stops the service and keeps configuration and state"
dpkg -r stackwatch || fail "dpkg -r"
systemctl is-active -q stackwatch && fail "it still runs"
grep -sxl stackwatchd /proc/[0-9]*/comm && fail "a process is left"
[ -e /etc/stackwatch/stackwatch.toml ] && [ -e /var/lib/stackwatch/kept ] || fail "remove removed too much"

step "purge leaves nothing"
rm -rf /run/systemd/system/stackwatch.service.d /run/systemd/system/stackwatch-doctor.service
dpkg -P stackwatch || fail "dpkg -P"
left=$(find /etc /usr/bin /usr/sbin /usr/lib* /usr/share /lib /var/lib /var/cache /run -xdev -iname '*stackwatch*' ! -path '*stackwatch-test*' \
  ! -path '/var/lib/private*' ! -name 'stackwatch-backports.sources' 2>/dev/null || true)
[ -z "$left" ] || fail "left: $left"
if getent passwd stackwatch >/dev/null || getent group stackwatch >/dev/null; then fail "the user is left"; fi
journalctl --list-catalog 2>/dev/null | grep -q stackwatch && fail "the catalog still has its texts"

printf 'all steps passed in %s s\n' $((SECONDS - begun))
