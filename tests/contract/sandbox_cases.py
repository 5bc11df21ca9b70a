"""What every runtime must do, as plain functions over a Room: run by pytest as root, and by a bare interpreter as an
ordinary user inside a user namespace (sandbox_child.py), where there is no pytest."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from shiplap.errors import Interrupted, SandboxError
from shiplap.sandbox.native import NativeRuntime
from shiplap.sandbox.spec import Emulator, ExitStatus, Identity, ProcessSpec, Rootfs, Runtime, StepMount
from shiplap.sandbox.userns import current

PATH = "PATH=/bin"
_numbers = itertools.count(1)
OLD = 978_307_200
"""2001-01-01: what the layers are dated."""


class Room:
    """A directory on disk, a busybox root file system as the lower layer, and a runtime under test.

    ``emulated``: each step is in the user namespace that knows an emulator, as those of another processor are. The
    emulator is for files that nobody has, so that the same programs run in there.
    """

    def __init__(self, runtime: Runtime, directory: Path, emulated: bool = False) -> None:
        program = shutil.which("busybox") or "/bin/busybox"
        self.emulator = Emulator(program, b"\x7fNOBODY", b"\xff" * 7, "OCF") if emulated else None
        self.runtime = runtime
        self.directory = directory
        self.ids = current()
        self.base = directory / "base"
        self.victim = directory / "victim"
        self.spec: ProcessSpec
        if not self.base.exists():
            build_base(self.base)
            self.victim.mkdir()
            (self.victim / "ptmx").write_text("host")
            (self.victim / "null").write_text("host")
        self.fresh()

    def fresh(self, *lowers: Path, base: bool = True) -> ProcessSpec:
        """A new, empty upper directory over ``lowers`` (top first) and the base."""
        number = next(_numbers)
        upper, work = (self.directory / f"{self.runtime.name}-{number}-{name}" for name in ("upper", "work"))
        upper.mkdir(mode=0o755)
        work.mkdir(mode=0o755)
        stack = (*map(str, lowers), *((str(self.base),) if base else ()))
        self.spec = ProcessSpec(("true",), (PATH,), "/", Rootfs(stack, str(upper), str(work)), emulator=self.emulator)
        return self.spec

    @property
    def upper(self) -> Path:
        return Path(self.spec.rootfs.upper)

    def layer(self, name: str) -> Path:
        """An empty directory to be used as a layer or a mount's source."""
        path = self.directory / f"{self.runtime.name}-{next(_numbers)}-{name}"
        path.mkdir(mode=0o755)
        return path

    def ended(self, *args: str) -> ExitStatus:
        """How it ended, without the owners on record, which only some machines need."""
        return replace(self.run(*args)[0], owners=None)

    def run(self, *args: str, cancel: threading.Event | None = None, **changes: Any) -> tuple[ExitStatus, str, str]:
        """Status, standard output and standard error of ``args`` over the present root."""
        out = {1: bytearray(), 2: bytearray()}
        spec = replace(self.again(), args=args, **changes)
        status = self.runtime.run(spec, lambda stream, data: out[stream].extend(data), cancel or threading.Event())
        return status, out[1].decode(errors="replace"), out[2].decode(errors="replace")

    def again(self) -> ProcessSpec:
        """The present spec with another empty work directory: one that was used cannot be mounted again."""
        work = self.layer("work")
        self.spec = replace(self.spec, rootfs=replace(self.spec.rootfs, work=str(work)))
        return self.spec

    def sh(self, script: str, **changes: Any) -> str:
        """Standard output of a shell script that must succeed."""
        status, out, err = self.run("/bin/sh", "-c", script, **changes)
        assert status.code == 0, (status, out, err)
        return out

    def changed(self) -> dict[str, str]:
        """Path below upper to kind, without the directories that exist in the base unchanged."""
        found = {}
        for path in sorted(self.upper.rglob("*")):
            info = path.lstat()
            name = str(path.relative_to(self.upper))
            lower = self.base / name
            if stat.S_ISDIR(info.st_mode):
                if lower.is_dir() and not lower.is_symlink() and lower.stat().st_mtime_ns == info.st_mtime_ns:
                    continue
                found[name] = "directory"
            elif stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                found[name] = "whiteout"
            else:
                found[name] = "link" if stat.S_ISLNK(info.st_mode) else "file"
        return found


BARE = {"dev": "directory", "proc": "directory", "sys": "directory"}
"""What even a step that does nothing leaves on a root without them, as with BuildKit."""


def build_base(base: Path) -> None:
    """bin/ of busybox, a few files, everything dated ``OLD``. No dev, proc, sys, etc/hosts or etc/resolv.conf."""
    for name in ("bin", "etc", "tmp", "root", "var/lib"):
        (base / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", base / "bin/busybox")
    names = subprocess.run([str(base / "bin/busybox"), "--list"], capture_output=True, text=True, check=True).stdout
    for name in names.split():
        if name != "busybox":
            (base / "bin" / name).symlink_to("busybox")
    (base / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (base / "etc/old").write_text("old\n")
    (base / "var/lib/keep").write_text("keep\n")
    for path in [*base.rglob("*"), base]:
        os.utime(path, (OLD, OLD), follow_symlinks=False)


def asked(room: Room, here: Path) -> str:
    """What probe.sh in the directory ``here`` prints in a step."""
    sys.path.insert(0, str(here))
    import calls

    layer = room.layer("probe")
    shutil.copy(here / "probe.sh", layer / "probe.sh")
    (layer / "calls").write_bytes(calls.program())
    (layer / "calls").chmod(0o755)
    (layer / "mnt").mkdir()
    room.fresh(layer)
    return room.sh(". /probe.sh", identity=Identity(groups=(0,)), env=(PATH, "HOME=/root"))


def exit_codes(room: Room) -> None:
    assert room.ended("true") == ExitStatus(0)
    assert room.ended("sh", "-c", "exit 3") == ExitStatus(3)
    assert room.run("sh", "-c", "sh -c 'kill -9 $$'; exit $?")[0].code == 137
    assert room.run("sh", "-c", "exit 255")[0].code == 255


def streams_are_apart(room: Room) -> None:
    assert room.run("sh", "-c", "echo out; echo err >&2")[1:] == ("out\n", "err\n")


def stdin_is_empty(room: Room) -> None:
    assert room.sh("cat; echo end") == "end\n"


def environment_is_exact(room: Room) -> None:
    os.environ["SHIPLAP_CANARY"] = "host"
    words = (PATH, "B=2", "A=1", "EMPTY=", "ODD=a=b c", "SHIPLAP_CANARY2")
    expected = [word for word in words if "=" in word]
    # crun and runc add HOME where the specification has none; the caller of a runtime always gives one.
    out = room.run("cat", "/proc/self/environ", env=(*words, "HOME=/h"))[1]
    assert sorted(out.rstrip("\0").split("\0")) == sorted([*expected, "HOME=/h"])
    assert "canary" not in out.lower()


def arguments_are_exact(room: Room) -> None:
    odd = "a b", "", "*", "$HOME", "'\"", "\\", "é\n"
    status, out, _ = room.run("printf", "[%s]", *odd)
    assert (status.code, out) == (0, "".join(f"[{word}]" for word in odd))


def large_environment(room: Room) -> None:
    value = "x" * (120 << 10)
    assert room.sh('echo "${#A}:${#B}"', env=(PATH, f"A={value}", f"B={value}")) == f"{len(value)}:{len(value)}\n"


def is_root_inside(room: Room) -> None:
    assert room.sh("id -u; id -g; cat /proc/self/status | grep -E '^Cap(Inh|Bnd|Amb)'").split() == [
        *("0", "0", "CapInh:", "0000000000000000", "CapBnd:"),
        "00000000a80425fb" if getattr(room.runtime, "way", None) is None else mask_of(room),
        *("CapAmb:", "0000000000000000"),
    ]


def mask_of(room: Room) -> str:
    """Without a device cgroup and without a user namespace, CAP_MKNOD goes (docs/explanation/sandbox.md)."""
    runtime: Any = room.runtime
    full = runtime.way.cgroups or not current().initial or room.emulator is not None
    return "00000000a80425fb" if full else "00000000a00425fb"


def filter_is_on(room: Room) -> None:
    out = room.sh("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status")
    assert out.split() == ["NoNewPrivs:", "0", "Seccomp:", "2"]
    for refused in ("mount -t tmpfs none /tmp", "unshare -m true", "unshare -U true", "hostname other", "dmesg"):
        assert room.run("sh", "-c", refused)[0].code != 0, refused


def ordinary_user_has_no_powers(room: Room) -> None:
    out = room.sh(
        "id -u; id -g; id -G; grep -E '^Cap(Prm|Eff)' /proc/self/status; echo ok >/dev/stdout",
        identity=Identity(1000, 1001, (1002, 1003)),
    )
    lines = out.splitlines()
    assert lines[:2] == ["1000", "1001"]
    assert sorted(lines[2].split()) == ["1001", "1002", "1003"]
    if not room.ids.single:  # there nobody else exists, so the powers are those over one's own
        assert [line.split()[1] for line in lines[3:5]] == ["0" * 16, "0" * 16]
    assert lines[5] == "ok"
    assert room.run("cat", "/root/none", identity=Identity(1000, 1000))[0].code == 1


def owned(room: Room, status: ExitStatus) -> dict[str, str]:
    """Path in upper to type, owner and device number, as the layer will have them."""
    found = {}
    for path in room.upper.rglob("*"):
        name, info = str(path.relative_to(room.upper)), path.lstat()
        uid, gid, mode, rdev = (status.owners or {}).get(name, (info.st_uid, info.st_gid, -1, -1))
        kind = "dlcb-ps"["dlcb-ps".index(stat.filemode(mode if mode >= 0 else info.st_mode)[0])]
        device = f" {os.major(rdev)}:{os.minor(rdev)}" if rdev >= 0 else ""
        if (uid, gid, device) != (0, 0, ""):
            found[name] = f"{kind} {uid}:{gid}{device}"
    return found


def owners_are_kept(room: Room) -> None:
    """Whoever may give files away by the rules can, sees it, and the layer has it: by the kernel or on record."""
    script = """
        mkdir /d && chown 33:34 /d && chmod 2775 /d && touch /d/in && mkdir /d/sub
        echo >/f && chown 5 /f && chown :6 /f && ln /f /g && mv /f /h && cp -a /h /copy
        ln -s /h /l && chown -h 7:8 /l && chown 9:9 /l
        touch /gone && chown 11:11 /gone && rm /gone && touch /fresh && touch /old && chown 0:0 /old
        chown 12:13 /etc/old
        stat -c '%n %u:%g' /d /d/in /d/sub /g /h /copy /l /fresh /etc/old; stat -L -c '%u:%g' /l
    """
    status, out, err = room.run("sh", "-c", script)
    assert (status.code, err) == (0, "")
    assert out.split() == [
        *("/d", "33:34", "/d/in", "0:34", "/d/sub", "0:34", "/g", "9:9", "/h", "9:9", "/copy", "5:6", "/l", "7:8"),
        *("/fresh", "0:0", "/etc/old", "12:13", "9:9"),
    ]
    expected = {
        "d": "d 33:34",
        "d/in": "- 0:34",
        "d/sub": "d 0:34",
        "g": "- 9:9",
        "h": "- 9:9",
        "copy": "- 5:6",
        "l": "l 7:8",
        "etc/old": "- 12:13",
    }
    assert owned(room, status) == expected
    # The next step is told, and passes on what it copies up.
    records = status.owners or {}
    room.fresh(room.upper)
    status, out, err = room.run(
        "sh", "-c", "stat -c %u:%g /d /h /l /etc/old; echo >>/etc/old; rm /h; mv /d /e; touch /e/more", owners=records
    )
    assert (out.split(), err) == (["33:34", "9:9", "7:8", "12:13"], "")
    assert owned(room, status) == {
        "e": "d 33:34",
        "e/in": "- 0:34",
        "e/sub": "d 0:34",
        "e/more": "- 0:34",
        "etc/old": "- 12:13",
    }


def owners_follow_the_rules(room: Room) -> None:
    """A process that became another user makes that user's files, gives none away, and stays who it is."""
    layer = room.layer("layer")
    (layer / "etc").mkdir()
    (layer / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\none:x:1000:1001::/:/bin/sh\n")
    (layer / "etc/group").write_text("root:x:0:\none:x:1001:\nmore:x:1002:one\n")
    (layer / "pub").mkdir()
    (layer / "pub").chmod(0o1777)
    room.fresh(layer)
    script = """
        id -u; id -g; id -G; touch /pub/f; mkdir /pub/d; ln -s x /pub/l; mkfifo /pub/p; echo >/pub/redirected
        chgrp 1002 /pub/f && stat -c %u:%g /pub/f; chown 0 /pub/f || echo no; chgrp 77 /pub/f || echo no
    """
    status, out, _ = room.run("su", "one", "-c", script)
    assert out.split() == ["1000", "1001", "1001", "1002", "1000:1002", "no", "no"]
    mine = owned(room, status)
    assert {name: mine.get(f"pub/{name}") for name in ("f", "d", "l", "p", "redirected")} == {
        "f": "- 1000:1002",
        "d": "d 1000:1001",
        "l": "l 1000:1001",
        "p": "p 1000:1001",
        "redirected": "- 1000:1001",
    }
    room.fresh(layer)
    who = Identity(1000, 1001, (1001, 1002))
    status, out, err = room.run("sh", "-c", "id -u; id -G; echo >/pub/x; umask 077; mkdir /pub/y", identity=who)
    assert (out.split(), err) == (["1000", "1001", "1002"], "")
    assert owned(room, status).get("pub/x") == "- 1000:1001"
    assert stat.S_IMODE((room.upper / "pub/y").stat().st_mode) == 0o700


def device_nodes_are_kept(room: Room) -> None:
    """mknod of a device: by the kernel as root, on record in a user namespace (which may not make one)."""
    if room.ids.initial and not getattr(room.runtime, "way", None):
        room.sh("mknod /n c 1 3")  # native: made, but its file systems are nodev
        assert stat.S_ISCHR((room.upper / "n").stat().st_mode)
    if room.ids.initial:
        return
    status, _, err = room.run("sh", "-c", "umask 0; mknod -m 640 /n c 1 3 && mknod /dev/x b 7 1; mkfifo /p; mv /n /m")
    assert (status.code, err) == (0, "")
    assert status.owners is not None
    assert status.owners["m"] == (0, 0, stat.S_IFCHR | 0o640, os.makedev(1, 3))
    assert not stat.S_ISCHR((room.upper / "m").stat().st_mode)
    room.sh("mknod /test-dev-null c 1 3 && echo test >/test-dev-null && rm /test-dev-null")  # as debootstrap tries
    if room.ids.single:
        room.fresh(room.upper)
        assert room.sh("stat -c '%F %t:%T' /m", owners=status.owners) == "character special file 1:3\n"


def network_powers(room: Room) -> None:
    """Over its own networks a step has what BuildKit's have: raw sockets, ports below 1024."""
    for kind in ("none", "default") if room.runtime.outlet()[0] else ("none",):
        out = room.sh("ping -c 1 -W 5 127.0.0.1 && busybox httpd -p 127.0.0.1:81 && echo bound", network=kind)
        assert "1 packets received" in out and out.endswith("bound\n"), (kind, out)


def unmapped_user_is_refused(room: Room) -> None:
    if room.ids.initial or room.ids.single:
        return
    with raises(SandboxError) as error:
        room.run("true", identity=Identity(4_000_000_000, 0))
    assert error[0].code == "unmapped-id"


def three_descriptors(room: Room) -> None:
    spare = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(spare, True)
    try:
        # ls itself holds the directory
        assert room.run("ls", "/proc/self/fd")[1].split() == ["0", "1", "2", "3"]
    finally:
        os.close(spare)


def is_first_process(room: Room) -> None:
    assert room.sh("echo $$; ls -d /proc/[0-9]* | wc -l").split()[0] == "1"
    assert room.sh("cut -d' ' -f6 /proc/1/stat") == "1\n"


def shell_state(room: Room) -> None:
    out = room.sh("umask; hostname; pwd; grep -E '^Sig(Ign|Blk)' /proc/1/status | cut -f2", cwd="/var//lib/../lib/")
    assert out.split()[:3] == ["0022", "buildkitsandbox", "/var/lib"]
    blocked, ignored = (int(word, 16) for word in out.split()[3:])
    assert ignored & ~4 == 0 and blocked == 0, "busybox sh itself ignores SIGQUIT; nothing else may be"
    assert room.sh("hostname", hostname="other") == "other\n"


def limits(room: Room) -> None:
    mine = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert room.sh("ulimit -n; ulimit -Hn").split() == [str(mine[0]), str(mine[1])]
    assert room.sh("ulimit -n; ulimit -Hn", ulimits={"nofile": (64, 128)}).split() == ["64", "128"]
    assert room.sh("df -k /dev/shm | tail -1", shm_size=1 << 20).split()[1] == "1024"


def writes_land_in_upper(room: Room) -> None:
    room.sh("echo new >/etc/new; mkdir /srv; chmod 750 /srv; ln -s x /srv/link")
    assert room.changed() == {
        **BARE,
        "etc": "directory",
        "etc/new": "file",
        "srv": "directory",
        "srv/link": "link",
    }
    assert (room.upper / "etc/new").read_text() == "new\n"
    assert stat.S_IMODE((room.upper / "srv").stat().st_mode) == 0o750
    assert not (room.base / "etc/new").exists()


def deletion_is_a_whiteout(room: Room) -> None:
    room.sh("rm /etc/old; rm -r /var/lib; mkdir /var/lib")
    assert room.changed() == {
        **BARE,
        "etc": "directory",
        "etc/old": "whiteout",
        "var": "directory",
        "var/lib": "directory",
    }
    name = "trusted.overlay.opaque" if room.ids.initial else "user.overlay.opaque"
    assert os.getxattr(room.upper / "var/lib", name) == b"y"
    room.fresh(room.upper)
    assert room.sh("ls -A /etc /var/lib") == "/etc:\nhosts\npasswd\nresolv.conf\n\n/var/lib:\n"


def no_layer_below(room: Room) -> None:
    room.fresh(base=False)
    shutil.copytree(room.base, room.upper, symlinks=True, dirs_exist_ok=True)
    assert room.sh("rm /etc/old; echo >/x; ls -A /") == "bin\ndev\netc\nproc\nroot\nsys\ntmp\nvar\nx\n"
    assert sorted(os.listdir(room.upper / "etc")) == ["passwd"]


def nothing_done_leaves_nothing(room: Room) -> None:
    room.sh("true")
    assert room.changed() == BARE
    room.fresh(room.upper)
    room.sh("true")
    assert room.changed() == {}


def placeholders_vanish(room: Room) -> None:
    cache = room.layer("cache")
    mounts = (
        StepMount("bind", "/a/b/c", source=str(cache), readonly=False),
        StepMount("secret", "/run/secrets/s", data=b"x"),
        StepMount("tmpfs", "/tmp/t"),
    )
    room.sh("echo >/a/b/c/kept", mounts=mounts)
    assert room.changed() == BARE
    assert os.listdir(cache) == ["kept"]
    room.fresh()
    room.sh("echo >/a/mine", mounts=mounts)
    assert room.changed() == {**BARE, "a": "directory", "a/mine": "file"}


def placeholder_replaced_by_the_step_stays(room: Room) -> None:
    """Same name, other inode: a directory the step itself made must not be taken for the placeholder."""
    # a mount point cannot be removed from inside, so the step fills the parent instead
    room.sh("mkdir /a/own", mounts=(StepMount("tmpfs", "/a/b"),))
    assert room.changed() == {**BARE, "a": "directory", "a/own": "directory"}


def parent_times_are_restored(room: Room) -> None:
    room.sh("true", mounts=(StepMount("tmpfs", "/var/lib/x"),))
    for name in ("etc", "var/lib"):
        if (room.upper / name).exists():
            assert (room.upper / name).stat().st_mtime == OLD, name


def hosts_and_resolvers(room: Room) -> None:
    expected = "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.9\tdb\n"
    assert room.sh("cat /etc/hosts", extra_hosts=("db=10.0.0.9",)) == expected
    assert room.sh("cat /etc/resolv.conf", dns="nameserver 192.0.2.1\n") == "nameserver 192.0.2.1\n"
    for refused in ("echo x >>/etc/hosts", "rm -f /etc/hosts", "echo x >/etc/resolv.conf", "mv /etc/hosts /etc/h"):
        assert room.run("sh", "-c", refused)[0].code != 0, refused
    assert room.changed() == BARE


def own_hosts_file_is_kept(room: Room) -> None:
    layer = room.layer("layer")
    (layer / "etc").mkdir()
    (layer / "etc/hosts").write_text("image\n")
    room.fresh(layer)
    assert room.sh("cat /etc/hosts").startswith("127.0.0.1")
    assert not (room.upper / "etc/hosts").exists()


def network_none(room: Room) -> None:
    out = room.sh(
        "ls /sys/class/net; cat /proc/net/dev | grep -c :; ping -c 1 -W 1 127.0.0.1 >/dev/null && echo up",
        network="none",
    )
    assert out.split() == ["lo", "1", "up"]
    assert room.run("ping", "-c", "1", "-W", "1", "192.0.2.1", network="none")[0].code != 0
    assert room.run("nslookup", "example.org", network="none")[0].code != 0
    assert "nameserver" not in room.sh("cat /etc/resolv.conf", network="none")


def network_host(room: Room) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        thread = threading.Thread(target=lambda: server.accept()[0].sendall(b"hello\n"), daemon=True)
        thread.start()
        assert room.sh(f"nc 127.0.0.1 {port} </dev/null") == "hello\n"


def network_default(room: Room) -> None:
    """It leads out, but not to what the machine keeps for itself; without pasta or slirp4netns it is the machine's."""
    import socket

    reason = room.runtime.outlet()[1]
    name = f"shiplap-{os.getpid()}-{next(_numbers)}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as hidden:
        hidden.bind(f"\0{name}")
        port = server.getsockname()[1]
        script = (
            f"nc -w 1 127.0.0.1 {port} </dev/null && echo reached; grep -c {name} /proc/net/unix; ls /sys/class/net"
        )
        _, out, _ = room.run("sh", "-c", script, network="default")
        if reason:
            assert out.split()[:2] == ["reached", "1"], (reason, out)
            return
        words = out.split()
        assert words[0] == "0" and "lo" in words[1:] and len(words) == 3, out
        begin = time.monotonic()
        assert room.run("nc", "-w", "2", "169.254.169.254", "80", network="default")[0].code != 0
        assert time.monotonic() - begin < 1, "refused at once, not timed out"
        assert "unreachable 169.254.0.0/16" in room.sh("ip route", network="default")
        assert "default via" in room.sh("ip route", network="default")
        assert room.run("ip", "route", "del", "169.254.0.0/16", network="default")[0].code != 0
        # The steps of one runtime share it, and it is ready when the first has begun.
        inode = room.sh("readlink /proc/self/ns/net", network="default")
        assert inode == room.sh("readlink /proc/self/ns/net", network="default")
        assert inode not in (room.sh("readlink /proc/self/ns/net"), os.readlink("/proc/self/ns/net"))


def secret_is_a_file_in_memory(room: Room) -> None:
    value = bytes(range(256)) * 2000
    mounts = (StepMount("secret", "/run/secrets/key", data=value, mode=0o440),)
    out = room.sh(
        "stat -c '%a %u %g %s' /run/secrets/key; sha256sum </run/secrets/key; grep ' /run/secrets/key ' /proc/self/mountinfo",
        mounts=mounts,
    )
    import hashlib

    lines = out.splitlines()
    assert lines[0] == f"440 0 0 {len(value)}"
    assert lines[1].split()[0] == hashlib.sha256(value).hexdigest()
    assert set(lines[2].split()[5].split(",")) >= {"ro", "nosuid", "nodev", "noexec"} and " tmpfs " in lines[2]
    assert room.run("sh", "-c", "echo >/run/secrets/key", mounts=mounts)[0].code != 0
    assert room.changed() == BARE


def secret_of_another_user(room: Room) -> None:
    mounts = (StepMount("secret", "/key", data=b"x", uid=1000, gid=1001),)
    assert room.sh("stat -c %u:%g /key", mounts=mounts) == "1000:1001\n"
    assert room.sh("cat /key", mounts=mounts, identity=Identity(1000, 1001)) == "x"


def tmpfs(room: Room) -> None:
    mounts = (StepMount("tmpfs", "/scratch", size=1 << 20),)
    out = room.sh("stat -c %a /scratch; df -k /scratch | tail -1; echo >/scratch/x", mounts=mounts)
    assert out.split()[0] == "1777" and out.split()[2] == "1024"
    assert room.changed() == BARE
    assert (
        room.sh("stat -c %a /dev/shm; ls -A /dev/shm; echo >/dev/shm/x", mounts=(StepMount("tmpfs", "/dev/shm"),))
        == "1777\n"
    )


def bind_shared_and_readonly(room: Room) -> None:
    cache = room.layer("cache")
    (cache / "in").mkdir()
    (cache / "in/file").write_text("seen\n")
    write = StepMount("bind", "/cache", source=str(cache), readonly=False)
    room.sh("echo one >/cache/one; cat /cache/in/file", mounts=(write,))
    assert (cache / "one").read_text() == "one\n"
    read = replace(write, readonly=True)
    assert room.run("sh", "-c", "echo two >/cache/two", mounts=(read,))[0].code != 0
    assert room.sh("cat /cache/file", mounts=(replace(read, subpath="in"),)) == "seen\n"
    single = StepMount("bind", "/etc/one", source=str(cache / "one"))
    assert room.sh("cat /etc/one", mounts=(single,)) == "one\n"
    assert sorted(os.listdir(cache)) == ["in", "one"]


def mounts_nest_by_depth(room: Room) -> None:
    outer, inner = room.layer("outer"), room.layer("inner")
    (inner / "x").write_text("inner\n")
    mounts = (
        StepMount("bind", "/m/deep/er", source=str(inner)),
        StepMount("bind", "/m", source=str(outer), readonly=False),
    )
    assert room.sh("cat /m/deep/er/x", mounts=mounts) == "inner\n"
    assert room.changed() == BARE


def subpath_stays_inside(room: Room) -> None:
    """CVE-2024-1753, CVE-2024-23651."""
    source = room.layer("source")
    (source / "up").symlink_to("../../../../../../..")
    (source / "abs").symlink_to("/")
    (source / "etc").mkdir()
    (source / "etc/inner").write_text("inner")
    for path in ("up/etc", "abs/etc", "../../etc", "abs/../../etc"):
        for mount in (
            StepMount("bind", "/x", source=str(source), subpath=path, readonly=False),
            StepMount("overlay", "/x", lowers=(str(source),), subpath=path, readonly=False),
        ):
            assert room.sh("ls /x", mounts=(mount,)) == "inner\n", (path, mount.kind)


def view_is_thrown_away(room: Room) -> None:
    top, bottom = room.layer("top"), room.layer("bottom")
    (top / "a").write_text("top\n")
    (bottom / "a").write_text("bottom\n")
    (bottom / "b").write_text("bottom\n")
    mount = StepMount("overlay", "/v", lowers=(str(top), str(bottom)), readonly=False)
    assert room.sh("cat /v/a /v/b; echo x >/v/a; echo y >/v/new; cat /v/a", mounts=(mount,)) == "top\nbottom\nx\n"
    assert (top / "a").read_text() == "top\n" and os.listdir(top) == ["a"] and len(os.listdir(bottom)) == 2
    assert room.changed() == BARE
    room.fresh()
    assert room.run("sh", "-c", "echo >/v/a", mounts=(replace(mount, readonly=True),))[0].code != 0


def target_through_links(room: Room) -> None:
    """A link in the image is followed inside the image, whatever it says (CVE-2026-17106 and kin)."""
    layer = room.layer("layer")
    (layer / "up").symlink_to("../../../../../.." + str(room.victim))
    (layer / "abs").symlink_to(str(room.victim))
    room.fresh(layer)
    before = snapshot(room.victim)
    for name in ("up", "abs"):
        room.sh(f"echo data >/{name}/t/file", mounts=(StepMount("tmpfs", f"/{name}/t"),))
    assert snapshot(room.victim) == before


def bad_targets(room: Room) -> None:
    for target in ("/", "", "/proc/sys/kernel", "/a/../proc/1"):
        with raises(SandboxError) as error:
            room.run("true", mounts=(StepMount("tmpfs", target),))
        assert error[0].code == "mount-target", target
        room.fresh()


def links_for_system_directories(room: Room) -> None:
    """CVE-2026-41579: the image's /dev is a link to a directory of the machine."""
    for names in (("dev",), ("proc",), ("sys",), ("etc/resolv.conf",), ("etc",), ("dev", "proc", "sys", "etc/hosts")):
        layer = room.layer("layer")
        for name in names:
            path = layer / name
            path.parent.mkdir(exist_ok=True)
            end = room.victim / "resolv.conf" if name.startswith("etc/") else room.victim
            path.symlink_to(end)
        room.fresh(layer)
        before = snapshot(room.victim)
        room.sh("ls /dev/null /proc/self/status /sys/kernel && cat /etc/resolv.conf >/dev/null")
        assert snapshot(room.victim) == before, names


def links_inside_dev(room: Room) -> None:
    """CVE-2025-31133, CVE-2025-52565: the image prepares what the runtime is going to write to."""
    layer = room.layer("layer")
    (layer / "dev").mkdir()
    for name in ("null", "ptmx", "pts", "shm", "console", "mqueue"):
        (layer / "dev" / name).symlink_to(str(room.victim / name))
    room.fresh(layer)
    before = snapshot(room.victim)
    room.sh("echo >/dev/null; echo x >/dev/shm/x; ls /dev/pts/ptmx")
    assert snapshot(room.victim) == before


def snapshot(directory: Path) -> list[tuple[object, ...]]:
    """Everything a write would change."""
    found: list[tuple[object, ...]] = []
    for path in sorted([directory, *directory.rglob("*")]):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        found.append((str(path), info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns, info.st_size, content))
    return found


def devices(room: Room) -> None:
    out = room.sh(
        "head -c 4 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; echo x >/dev/null; "
        "echo x 2>/dev/null >/dev/full || echo full; ls -l /dev/stdin /dev/ptmx | wc -l"
    )
    assert out.split() == ["4", "3", "full", "2"]
    for node in ("/dev/d", "/d"):  # made, or refused, or an empty file on record: nothing of the machine's is read
        assert room.run("sh", "-c", f"mknod {node} b 7 250 && head -c 1 {node} | grep -q .")[0].code != 0


def kernel_is_out_of_reach(room: Room) -> None:
    assert room.sh("cat /proc/keys /proc/timer_list; ls /proc/acpi; ls /sys/firmware; true") == ""
    for refused in (
        "echo x >/proc/sys/kernel/domainname",
        "echo h >/proc/sysrq-trigger",
        "echo x >/sys/kernel/uevent_helper",
        "mkdir /sys/fs/cgroup/memory/x",
        "mount -o remount,rw /sys",
    ):
        assert room.run("sh", "-c", refused)[0].code != 0, refused


def machine_paths_do_not_show(room: Room) -> None:
    if room.runtime.name == "native":
        # the place of the root itself; lower directories show as numbers
        assert "base" not in room.sh("grep ' / / ' /proc/self/mountinfo")


def program_not_found(room: Room) -> None:
    for words, texts in {
        ("nope",): ("nope", "not found in $PATH"),
        ("/nope",): ("/nope", "no such file"),
        ("/etc",): ("/etc|open executable", "ermission denied|not permitted"),
        ("/etc/passwd",): ("/etc/passwd|open executable", "ermission denied|not permitted"),
    }.items():
        status, out, err = room.run(*words)
        assert status.code in (1, 126, 127), (words, status)
        for text in texts:
            assert any(part in err.lower() for part in text.lower().split("|")), (words, err)
        assert out == ""
    assert room.changed() == BARE


def program_of_another_kind(room: Room) -> None:
    layer = room.layer("layer")
    (layer / "bad").write_bytes(b"\x7fELF")
    (layer / "script").write_text("#!/no/such\n")
    for name in ("bad", "script"):
        (layer / name).chmod(0o755)
    room.fresh(layer)
    for name, text in (("bad", "exec format error"), ("script", "no such file or directory")):
        status, _, err = room.run(f"/{name}")
        assert status.code in (1, 126, 127) and text in err.lower(), (status, err)


def path_is_the_steps(room: Room) -> None:
    layer = room.layer("layer")
    (layer / "mine").mkdir()
    (layer / "mine/tool").write_text("#!/bin/sh\necho mine\n")
    (layer / "mine/tool").chmod(0o755)
    room.fresh(layer)
    assert room.run("tool", env=("PATH=/bin:/mine",))[1] == "mine\n"


def working_directory_is_made(room: Room) -> None:
    owner = Identity(1000, 1000)
    assert (
        room.sh("pwd; stat -c '%a %u:%g' .", cwd="/new/deep", identity=owner)
        == f"/new/deep\n755 {owner.uid}:{owner.gid}\n"
    )
    assert room.changed() == {**BARE, "new": "directory", "new/deep": "directory"}
    room.fresh()
    inside = (StepMount("tmpfs", "/t"),)
    assert room.sh("pwd", cwd="/t/below", mounts=inside) == "/t/below\n"


def working_directory_is_a_file(room: Room) -> None:
    with raises(SandboxError):
        room.run("true", cwd="/etc/passwd/x")
    assert mounts_of(room) == []


def many_layers(room: Room) -> None:
    layers = []
    for number in range(300):
        layer = room.layer(f"a-rather-long-name-of-a-layer-{number}")
        (layer / f"f{number}").touch()
        layers.append(layer)
    room.fresh(*layers)
    assert room.sh("ls / | grep -c '^f[0-9]'") == "300\n"


def large_output_in_little_memory(room: Room) -> None:
    total = 0

    def count(_: int, data: bytes) -> None:
        nonlocal total
        total += len(data)
        assert len(data) <= 1 << 20

    before = resident()
    spec = replace(room.spec, args=("sh", "-c", "head -c 100000000 /dev/zero; head -c 1000000 /dev/zero >&2"))
    assert room.runtime.run(spec, count, threading.Event()).code == 0
    assert total == 101_000_000
    assert resident() - before < 32 << 20


def resident() -> int:
    with open("/proc/self/statm") as table:
        return int(table.read().split()[1]) * resource.getpagesize()


def cancel_kills(room: Room) -> None:
    cancel = threading.Event()
    marker = f"31{os.getpid()}.{time.monotonic_ns()}"
    started = threading.Event()
    times = {}

    def output(_: int, __: bytes) -> None:
        started.set()

    def stop() -> None:
        started.wait(10)
        times["set"] = time.monotonic()
        cancel.set()

    threading.Thread(target=stop, daemon=True).start()
    script = f"trap '' TERM INT HUP; sleep {marker} & setsid sleep {marker} & echo started; wait; sleep {marker}"
    spec = replace(room.spec, args=("sh", "-c", script), mounts=(StepMount("tmpfs", "/a/b"),))
    with raises(Interrupted):
        room.runtime.run(spec, output, cancel)
    took = time.monotonic() - times["set"]
    assert took < 1.0, took
    assert alive(marker) == []
    assert mounts_of(room) == []
    assert room.changed() == BARE


def cancelled_before_start(room: Room) -> None:
    cancel = threading.Event()
    cancel.set()
    with raises(Interrupted):
        room.run("touch", "/ran", cancel=cancel)
    assert room.changed() == {}


def callback_fails(room: Room) -> None:
    marker = f"32{os.getpid()}.{time.monotonic_ns()}"

    def output(_: int, __: bytes) -> None:
        raise ValueError("full disk")

    with raises(ValueError):
        room.runtime.run(replace(room.spec, args=("sh", "-c", f"echo x; sleep {marker}")), output, threading.Event())
    assert alive(marker) == []


def orphans_die(room: Room) -> None:
    marker = f"33{os.getpid()}.{time.monotonic_ns()}"
    begin = time.monotonic()
    room.sh(f"setsid sh -c 'trap \"\" HUP TERM; sleep {marker}' & sleep 0.05; echo left")
    assert time.monotonic() - begin < 2
    assert alive(marker) == []


def many_processes_end_with_the_step(room: Room) -> None:
    """A crowd that forks on, deaf to every signal, is gone when the first process ends, and when the step is cancelled."""
    marker = f"35{os.getpid()}.{time.monotonic_ns()}"
    crowd = (
        f"trap '' TERM INT HUP; n=0; while [ $n -lt 150 ]; do (sleep {marker} & setsid sleep {marker} &) ; n=$((n+1)); done"
        f"; (while :; do sleep {marker} & sleep 0.01; done) & echo started"
    )
    begin = time.monotonic()
    assert room.sh(crowd) == "started\n"
    took = time.monotonic() - begin
    assert alive(marker) == []
    cancel = threading.Event()
    spec = replace(room.again(), args=("sh", "-c", f"{crowd}; sleep {marker}"))
    times = []

    def output(_: int, __: bytes) -> None:
        times.append(time.monotonic())
        cancel.set()

    with raises(Interrupted):
        room.runtime.run(spec, output, cancel)
    assert alive(marker) == []
    assert time.monotonic() - times[0] < 2 + took


def endless_output_is_cancelled(room: Room) -> None:
    cancel = threading.Event()
    total = 0

    def count(_: int, data: bytes) -> None:
        nonlocal total
        total += len(data)
        if total > 20_000_000 and not cancel.is_set():
            times.append(time.monotonic())
            cancel.set()

    times: list[float] = []
    before = resident()
    with raises(Interrupted):
        room.runtime.run(replace(room.spec, args=("sh", "-c", "yes & yes >&2 & yes")), count, cancel)
    assert time.monotonic() - times[0] < 1.5
    assert resident() - before < 32 << 20


def held_pipe(room: Room) -> None:
    """Something outside keeps the step's output open: run() returns all the same."""
    marker = f"34{os.getpid()}{time.monotonic_ns()}"
    held: list[int] = []
    go = room.layer("go")

    def hold() -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not held:
            for pid in alive(marker):
                with contextlib.suppress(OSError):
                    held.append(os.open(f"/proc/{pid}/fd/1", os.O_WRONLY))
                    break
            time.sleep(0.01)
        (go / "go").touch()

    thread = threading.Thread(target=hold)
    thread.start()
    script = f": {marker}; while [ ! -e /go/go ]; do sleep 0.02; done; echo last; date +%s.%N >/go/ended"
    out = room.sh(script, mounts=(StepMount("bind", "/go", source=str(go), readonly=False),))
    returned = time.time()
    thread.join()
    try:
        assert held, "the test could not get hold of the pipe"
        assert out == "last\n"
        assert returned - (go / "ended").stat().st_mtime < 1.0
    finally:
        for fd in held:
            os.close(fd)


def steps_at_once(room: Room) -> None:
    specs = [room.fresh() for _ in range(6)]
    results: list[object] = [None] * len(specs)

    def one(number: int) -> None:
        said = bytearray()
        script = f"sleep 0.1; echo {number} >/n; cat /n"
        spec = replace(specs[number], args=("sh", "-c", script))
        status = room.runtime.run(spec, lambda _, data: said.extend(data), threading.Event())
        results[number] = (status.code, said.decode())

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(specs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(0, f"{number}\n") for number in range(len(specs))]


def helper_killed_between_steps(room: Room) -> None:
    room.sh("true")
    helper: Any = room.runtime._helper  # type: ignore[attr-defined]
    assert helper._process is not None
    os.kill(helper._process.pid, signal.SIGKILL)
    time.sleep(0.05)
    room.fresh()
    assert room.sh("echo again") == "again\n"


def insecure(room: Room) -> None:
    out = room.sh(
        "grep -E '^(CapBnd|CapEff|CapAmb|Seccomp):' /proc/self/status; "
        "echo x >/proc/sys/kernel/domainname && echo wrote; mount -t tmpfs none /tmp && echo mounted",
        insecure=True,
    )
    words = out.split()
    masks = {int(words[n], 16) for n in (1, 3, 5)}
    assert len(masks) == 1 and masks.pop() >> 21 & 1, out
    assert words[6:] == [
        "Seccomp:",
        "0" if room.ids.initial and room.emulator is None else "2",
        *(["wrote"] if room.ids.initial else []),
        "mounted",
    ], out


def nothing_is_left(room: Room) -> None:
    """After a step that succeeds, one that fails and one that is wrong."""
    before = children()  # another test's helper may be among them
    descriptors = len(os.listdir("/proc/self/fd"))
    room.run("true")
    steady = len(os.listdir("/proc/self/fd"))
    room.run("false")
    room.run("nope")
    with contextlib.suppress(SandboxError):
        room.run("true", mounts=(StepMount("bind", "/x", source="/no/such/source"),))
    assert len(os.listdir("/proc/self/fd")) == steady
    # What the first step of all opens: the helper's socket, and for emulated steps their namespaces and who holds them.
    assert steady <= descriptors + (1 if room.emulator is None else 4)
    assert mounts_of(room) == []
    assert not {*children()} - {*before, *helpers(room)}, children()


def wrong_requests(room: Room) -> None:
    for code, changes in {
        "network": {"network": "bridge"},
        "mount-kind": {"mounts": (StepMount("nfs", "/x"),)},
        "bad-command": {"env": ("A=\0",)},
        "sandbox": {"mounts": (StepMount("bind", "/x", source="/no/such/source"),)},
    }.items():
        with raises(SandboxError) as error:
            room.run("true", **changes)
        assert error[0].code == code, error
    assert room.runtime.name in ("native", "oci")
    if isinstance(room.runtime, NativeRuntime):
        with raises(SandboxError) as error:
            room.run("true", ulimits={"nope": (1, 1)})
        assert error[0].code == "ulimit"


def mounts_of(room: Room) -> list[str]:
    with open("/proc/self/mountinfo") as table:
        return [line for line in table if str(room.directory) in line]


def children() -> list[int]:
    mine = str(os.getpid())
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if fields[1] == mine:
                    found.append(int(entry))
    return found


def helpers(room: Room) -> list[int]:
    found = []
    for pid in children():
        with contextlib.suppress(OSError):
            if b"helper.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def alive(marker: str) -> list[int]:
    """Processes of this machine whose command line holds ``marker``."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if marker.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.append(int(entry))
    return found


@contextlib.contextmanager
def raises(kind: type[BaseException]) -> Iterator[list[Any]]:
    """pytest.raises, for where there is no pytest; yields a list that gets the error."""
    caught: list[Any] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
        return
    raise AssertionError(f"{kind.__name__} was not raised")


_HELP = {build_base, owned, asked, snapshot, resident, mounts_of, children, helpers, alive, raises, mask_of}
CASES: dict[str, Callable[[Room], None]] = {
    name: value
    for name, value in list(globals().items())
    if callable(value)
    and getattr(value, "__module__", "") == __name__
    and not isinstance(value, type)
    and value not in _HELP
}


def run_all(runtime: Runtime, directory: Path) -> dict[str, str]:
    """Every case over ``runtime``: name to what went wrong, empty if nothing did."""
    import traceback

    results = {}
    for name, case in CASES.items():
        try:
            case(Room(runtime, directory))
            results[name] = ""
        except Exception:  # noqa: BLE001 - the outcome is data here
            results[name] = traceback.format_exc()
        sys.stderr.write(f"{name}: {'failed' if results[name] else 'ok'}\n")
    return results
