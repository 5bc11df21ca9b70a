#!/bin/sh
# Prints what a step sees of its sandbox, one `key|value` a line. Runs under busybox alone.
# The same script made buildkit-facts.json, so every runtime answers the same questions.
status() { grep "^$1:" /proc/self/status | tr -s '\t ' ' ' | cut -d' ' -f2-; }
for name in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters Groups; do
	echo "status.$name|$(status $name)"
done
echo "pid|$$"
echo "hostname|$(hostname)"
echo "umask|$(umask)"
echo "cwd|$(pwd)"
echo "id|$(id -u):$(id -g)"
echo "session|$(cut -d' ' -f5-6 /proc/self/stat)"
# the shell closes its end of the pipe some time after the fork
echo "fds|$(sleep 0.1; ls /proc/1/fd | tr '\n' ' ')"
echo "stdin|$(readlink /proc/1/fd/0)"
echo "signals.ignored|$(grep '^SigIgn' /proc/1/status | tr -d '\t' | cut -d: -f2)"
echo "signals.blocked|$(grep '^SigBlk' /proc/1/status | tr -d '\t' | cut -d: -f2)"
echo "cmdline|$(tr '\0' ' ' </proc/1/cmdline)"
echo "uid_map|$(tr -s ' ' </proc/self/uid_map)"
echo "gid_map|$(tr -s ' ' </proc/self/gid_map)"
echo "setgroups|$(cat /proc/self/setgroups)"
for name in cgroup ipc mnt net pid time user uts; do
	echo "ns.$name|$(readlink /proc/self/ns/$name)"
done
env | sort | while read -r line; do echo "env.${line%%=*}|${line#*=}"; done
while read -r line; do
	case "$line" in
	Limit*) continue ;;
	Max*) name="$(echo "$line" | cut -c5-25 | tr -s ' ' '-')"; echo "limit.${name%-}|$(echo "$line" | cut -c26- | tr -s ' ')" ;;
	esac
done </proc/self/limits
echo "cgroups|$(cut -d: -f3 /proc/self/cgroup | sed -E 's/[0-9a-z]{20,}/ID/g' | sort -u | tr '\n' ' ')"
echo "net.interfaces|$(ls /sys/class/net | tr '\n' ' ')"
echo "net.loopback|$(ping -c 1 -W 1 127.0.0.1 >/dev/null 2>&1 && echo yes || echo no)"
echo "keyrings|$(grep -c . /proc/keys)"
[ -x /calls ] && echo "calls|$(/calls | od -An -v -t d8 | tr -s '\n ' ' ')"
echo "oom_score_adj|$(cat /proc/self/oom_score_adj)"
echo "nofile|$(ulimit -n):$(ulimit -H -n)"
while read -r _ _ _ _ point options rest; do
	kind="${rest#*- }"
	case "$point" in
	/sys/fs/cgroup/*) continue ;;
	/) options="" kind="overlay" ;;
	esac
	super="${kind#* }"
	echo "mount.$point|${kind%% *} $(echo "$options" | tr ',' '\n' | grep -v relatime | sort | tr '\n' ',') $(echo "${super#* }" | tr ',' '\n' | grep -E '^(size|mode|gid|ptmxmode|ro)' | sort | tr '\n' ',')"
done </proc/self/mountinfo
for node in /dev/*; do
	if [ -L "$node" ]; then
		echo "dev.$node|link $(readlink "$node")"
	else
		echo "dev.$node|$(stat -c '%F %a %u:%g %t:%T' "$node")"
	fi
done
for path in acpi asound kcore keys latency_stats timer_list timer_stats sched_debug scsi interrupts bus fs irq sys sysrq-trigger; do
	[ -e "/proc/$path" ] || { echo "proc.$path|absent"; continue; }
	if [ -d "/proc/$path" ]; then
		echo "proc.$path|directory $(ls "/proc/$path" 2>/dev/null | grep -q . && echo full || echo empty)"
	elif [ "$path" = sysrq-trigger ]; then
		echo "proc.$path|file"
	elif [ "$path" = kcore ]; then
		echo "proc.$path|$(stat -c '%t:%T' "/proc/$path")"
	else
		echo "proc.$path|file $(head -c 10 "/proc/$path" 2>/dev/null | grep -q . && echo full || echo empty)"
	fi
done
for path in firmware devices/virtual/powercap; do
	[ -e "/sys/$path" ] || { echo "sys.$path|absent"; continue; }
	echo "sys.$path|$(ls "/sys/$path" 2>/dev/null | grep -q . && echo full || echo empty)"
done
try() { name="$1"; shift; "$@" >/dev/null 2>&1 && echo "try.$name|yes" || echo "try.$name|no"; }
try write-proc-sys sh -c 'echo x >/proc/sys/kernel/domainname'
try write-sysrq sh -c 'echo h >/proc/sysrq-trigger'
try write-sys sh -c 'echo 1 >/sys/kernel/uevent_helper'
try write-dev sh -c 'echo x >/dev/file && rm /dev/file'
try write-dev-null sh -c 'echo x >/dev/null'
try read-zero sh -c 'head -c 1 /dev/zero'
try read-urandom sh -c 'head -c 1 /dev/urandom'
try chroot chroot / true
try mount mount -t tmpfs none /mnt
try unshare-mount unshare -m true
try unshare-user unshare -U true
try sethostname hostname other
try mknod-null mknod /probe-node c 1 3
try open-null-node sh -c 'echo x >/probe-node'
rm -f /probe-node
try mknod-disk mknod /probe-disk b 7 250
try open-disk-node head -c 1 /probe-disk
rm -f /probe-disk
try mknod-dev-disk mknod /dev/probe-disk b 7 250
try open-dev-disk-node head -c 1 /dev/probe-disk
rm -f /dev/probe-disk
try setuid-bit sh -c 'echo >/probe-s && chmod 4755 /probe-s && [ -u /probe-s ]'
rm -f /probe-s
try chown sh -c 'echo >/probe-c && chown 1:1 /probe-c'
rm -f /probe-c
try dmesg dmesg
try write-resolv sh -c 'echo x >>/etc/resolv.conf'
try write-hosts sh -c 'echo x >>/etc/hosts'
try remove-hosts rm /etc/hosts
try nice nice -n -5 true
try stdout-reopen sh -c 'echo >/dev/stdout'
echo "hosts|$(tr '\n\t' ';_' </etc/hosts)"
echo "shm|$(stat -f -c '%b*%s' /dev/shm) $(stat -c %a /dev/shm)"
