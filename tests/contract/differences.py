"""Every answer that differs from BuildKit's, by a pattern of the question, with the reason. A test holds that there is no
other; docs/explanation/sandbox.md tells users."""

from __future__ import annotations

NODES = ("null", "zero", "full", "random", "urandom", "tty")
MACHINE = {
    "limit.*": "those of whoever builds, as BuildKit's are those of its daemon",
    "nofile": "as limit.*",
    "oom_score_adj": "as limit.*",
    "net.interfaces": "the machine's",
}
OWN = {
    "stdin": "BuildKit gives a pipe that is at its end, we /dev/null: both read as empty",
    "mount./etc/hosts": "the generated files lie on a tmpfs, not on the builder's disk",
    "mount./etc/resolv.conf": "as /etc/hosts",
    "*/dev/otel-grpc.sock": "BuildKit's own tracing socket",
    "env.OTEL_*": "BuildKit's own tracing",
    "env.TRACEPARENT": "BuildKit's own tracing",
    "cgroups": "a group of the step's own is made by runc alone; with the others it is the builder's",
    "mount./sys/fs/cgroup": "native: the cgroup v2 hierarchy, else an empty directory; a runtime: what it can make",
}
_NODEV = "the step's file systems are nodev, since no device cgroup denies what it makes with mknod"
BY_RUNTIME: dict[str, dict[str, str]] = {
    "native": {
        "mount./dev": _NODEV,
        **{f"mount./dev/{name}": "bound, because /dev itself is nodev" for name in NODES},
        "try.open-null-node": _NODEV,
        "mount./proc/keys": "masked by the null device of a hidden tmpfs, which is noexec",
        "mount./proc/timer_list": "as /proc/keys",
        "ns.cgroup": "own: it hides the name of the builder's",
    },
    "runc": {},
    "crun": {
        "status.Cap*": "without a device cgroup CAP_MKNOD goes",
        "try.mknod-*": "as status.Cap*",
        "try.open-null-node": "as status.Cap*",
        "mount./proc/*": "crun masks and remounts with options of its own",
        "mount./sys/firmware": "as /proc",
        "call.too_new": "crun 1.8 gives the profile's EPERM to calls that it does not know, runc (and native) ENOSYS",
        "dev./dev/core": "crun links it whether or not there is /proc/kcore",
    },
}
_ROOTLESS_NODE = "on record: no user namespace may make a device, so the node is an empty file, and reads as one"
ORDINARY = {
    "ns.user": "it is what an ordinary user is isolated by",
    "uid_map": "as ns.user",
    "gid_map": "as ns.user",
    "mount./dev*": "device nodes are the machine's, bound one by one",
    "dev./dev/*": "nodes belong to the machine's root, who is nobody here",
    "mount./sys*": "the machine's, bound read-only: sysfs belongs to the owner of the network",
    "mount./proc/*": "masked by the machine's null device",
    "status.Seccomp_filters": "a second filter lets the keeper answer for what a user namespace refuses",
    "try.open-*-node": _ROOTLESS_NODE,
    "call.socket_packet": "the machine's network belongs to the machine's root; on the build's own it is let in",
    "call.socket_raw": "as call.socket_packet",
    "net.loopback": "as call.socket_packet: busybox's ping takes a raw socket",
}
SINGLE = {
    "setgroups": "has to be given up for a map of one id (CVE-2014-8989); the keeper answers setgroups(2)",
    "status.Groups": "the caller's; getgroups(2) is answered by the keeper",
    "mount./dev/pts": "group tty does not exist",
}


def reason(question: str, kind: str, ids: str) -> str:
    """Why the answer to ``question`` may differ for the runtime ``kind``; ``ids``: root, all or single. Empty: it may not."""
    from fnmatch import fnmatchcase

    lists = [MACHINE, OWN, BY_RUNTIME[kind]]
    if ids != "root":
        lists.append(ORDINARY)
    if ids == "single":
        lists.append(SINGLE)
    return next((why for each in lists for pattern, why in each.items() if fnmatchcase(question, pattern)), "")
