"""Steps that try to leave: the vectors of advisories on RUN, its mounts, WORKDIR and USER, as whole builds.

After each, the machine is as it was: a tree beside the store, the mounts, the children and descriptors of this process.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import Shiplap, program

Tree = dict[str, tuple[object, ...]]


def recorded(directory: Path) -> Tree:
    """All that a write would change, access times apart."""
    found: Tree = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        info = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else ""
        names = os.listxattr(path, follow_symlinks=False)
        attributes = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
        owner = (info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_mtime_ns, info.st_size)
        found[str(path.relative_to(directory))] = (*owner, content, attributes)
    return found


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A directory of the machine that no build may see or touch."""
    path = tmp_path / "victim"
    (path / "sub").mkdir(parents=True)
    (path / "secret").write_text("canary-of-the-machine\n")
    for name in ("b", "ptmx", "null", "passwd"):
        (path / name).write_text("")
    before = recorded(path)
    yield path
    assert recorded(path) == before
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def build(
    shiplap: Shiplap, text: str, *flags: str, check: bool = True, **files: str
) -> subprocess.CompletedProcess[str]:
    context = shiplap.cwd / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(text)
    for name, content in files.items():
        (context / name).write_text(content)
    done = shiplap.run("build", "--no-cache", "--progress", "plain", *flags, context, check=check)
    assert "canary-of-the-machine" not in done.stdout + done.stderr
    assert os.listdir(shiplap.root / "tmp") == [], "what was under way is gone"
    return done


def test_bind_source_is_a_link_to_the_root(shiplap: Shiplap, victim: Path) -> None:
    """CVE-2024-1753: the source of a mount is resolved inside the stage it comes from."""
    text = f"""FROM busybox AS base
RUN ln -s / /rootdir && ln -s {victim} /victim
FROM busybox
RUN --mount=type=bind,from=base,source=/rootdir,target=/x,rw touch /x/BREAK && ls /x/bin/busybox
RUN --mount=type=bind,from=base,source=/rootdir,target=/x ls /x && ! ls /x{victim}
"""
    build(shiplap, text)
    assert not Path("/BREAK").exists()
    missing = f"FROM busybox AS base\nRUN ln -s {victim} /victim\nFROM busybox\n"
    done = build(shiplap, f"{missing}RUN --mount=type=bind,from=base,source=/victim,target=/x ls /x", check=False)
    assert done.returncode == 1 and "no such file" in done.stderr


def test_cache_source_becomes_a_link(shiplap: Shiplap, victim: Path) -> None:
    """CVE-2024-23651: as BuildKit's testCacheMountSourceEscape, the step that would use the link fails."""
    text = f"""FROM busybox
RUN --mount=type=cache,id=esc,target=/c mkdir /c/sel && touch /c/sel/mine
RUN --mount=type=cache,id=esc,target=/c,source=sel ls /c/mine
RUN --mount=type=cache,id=esc,target=/c rm -r /c/sel && ln -s {victim} /c/sel
RUN --mount=type=cache,id=esc,target=/c,source=sel ls /c
"""
    done = build(shiplap, text, check=False)
    assert done.returncode == 1
    assert (
        "#5" in done.stderr
        and "secret" not in done.stderr.partition("RUN --mount=type=cache,id=esc,target=/c,source=sel ls /c\n")[2]
    )


@pytest.mark.parametrize(
    "mount",
    [
        "type=cache,id=../../../../../../victim,target=/c",
        "type=cache,id=/etc,target=/c",
        "type=cache,target=/c,source=../../..",
        "type=cache,target=/c,source=/../../../..",
        "type=cache,target=/c,from=seed,source=../../../../../..",
        "type=bind,from=seed,source=../../../../../..,target=/c,rw",
        "type=bind,source=../../../../../..,target=/c,rw",
    ],
)
def test_mount_names_that_lead_upwards(shiplap: Shiplap, victim: Path, mount: str) -> None:
    """CVE-2024-9675: an id is hashed, never a path; a source stays inside what it is a source of."""
    text = f"FROM busybox AS seed\nFROM busybox\nRUN --mount={mount} ls -a /c; touch /c/BREAK; test ! -e /c/{victim.name}\n"
    done = build(shiplap, text, check=False)
    assert done.returncode in (0, 1)
    assert not any(
        Path(directory, "BREAK").exists() for directory in ("/", "/etc", shiplap.root, shiplap.root / "mounts")
    )


@pytest.mark.parametrize(
    "option",
    [
        "bind-propagation=suid",
        "propagation=shared",
        "suid",
        "exec",
        "bind-propagation=rshared,rw",
        "z",
        "Z",
        "relabel=shared",
        "U",
    ],
)
def test_options_that_reach_mount_are_a_closed_list(shiplap: Shiplap, victim: Path, option: str) -> None:
    """CVE-2024-9407."""
    done = build(shiplap, f"FROM busybox\nRUN --mount=type=bind,target=/x,{option} true\n", check=False)
    assert done.returncode == 1
    assert "RUN" in done.stderr and "Traceback" not in done.stderr


def test_stub_of_a_mount_is_removed_by_inode(shiplap: Shiplap, victim: Path) -> None:
    """CVE-2024-23652: the step moves the place of a mount and leaves a link to the machine in its stead."""
    for kind in ("tmpfs", "cache", "bind"):
        text = f"""FROM busybox
RUN --mount=type={kind},target=/a/b umount /a/b; mv /a /c; ln -s {victim} /a; ls -l / | grep victim; true
RUN ls -la /c /a/ ; true
"""
        build(shiplap, text)


def test_writes_to_the_context_are_dropped(shiplap: Shiplap, victim: Path) -> None:
    """CVE-2025-4953: a writable bind of the context writes into a copy."""
    text = """FROM busybox
RUN --mount=type=bind,target=/c,rw cp /bin/busybox /c/suid && chmod 4755 /c/suid && echo changed > /c/data && rm /c/Dockerfile
RUN --mount=type=bind,target=/c ls /c > /list && cat /c/data
"""
    done = build(shiplap, text, data="as it was\n")
    assert "as it was" in done.stderr and "changed" not in done.stderr.replace("echo changed", "")
    assert sorted(os.listdir(shiplap.cwd / "context")) == ["Dockerfile", "data"]
    assert list(shiplap.root.rglob("suid")) == []


def test_working_directory_through_links(shiplap: Shiplap, victim: Path) -> None:
    """CVE-2026-55686, CVE-2024-21626: what WORKDIR makes is made inside the image."""
    text = f"FROM busybox\nRUN ln -s {victim} /w && ln -s /proc/self/fd /fds\nWORKDIR /w/made\nRUN pwd && touch here\n"
    done = build(shiplap, text)
    assert f"{victim}/made" in done.stderr
    for number in (3, 4, 5, 6, 7, 8, 9, 10, 16, 32):
        done = build(
            shiplap, f"FROM busybox\nWORKDIR /proc/self/fd/{number}\nRUN cat ../../secret; ls -a ..\n", check=False
        )
        assert "secret" not in done.stderr.replace("cat ../../secret", "").replace("can't open '../../secret'", "")


def test_user_names_that_look_like_numbers(shiplap: Shiplap, victim: Path) -> None:
    """CVE-2016-3697: all digits are a number. CVE-2024-40635: a number that wraps is an error."""
    make = "FROM busybox\nRUN echo '1000:x:0:0::/:/bin/sh' >> /etc/passwd\n"
    assert "uid=1000" in build(shiplap, f"{make}USER 1000\nRUN id\n").stderr
    for user in ("4294967296", "4294967295", "-1", "4294967296:0", "0:4294967296", "18446744073709551616", "+0", "0x0"):
        done = build(shiplap, f"{make}USER {user}\nRUN id\n", check=False)
        assert done.returncode == 1 and "uid=0" not in done.stderr, user
    assert "uid=2147483648" in build(shiplap, f"{make}USER 2147483648:0\nRUN id\n").stderr


def test_every_group_of_a_user(shiplap: Shiplap, victim: Path) -> None:
    """CVE-2022-2989 and kin: the primary group is among the supplementary ones."""
    make = "RUN echo u:x:1000:1001::/:/bin/sh >> /etc/passwd && printf 'u:x:1001:\\na:x:1002:u\\nb:x:1003:x,u\\n' >> /etc/group"
    done = build(shiplap, f"FROM busybox\n{make}\nUSER u\nRUN grep ^Groups /proc/self/status\n")
    assert "1001 1002 1003" in done.stderr


@pytest.mark.parametrize("kind", ["fifo", "huge", "link to a fifo", "link out", "device", "directory", "loop"])
def test_passwd_that_is_not_a_file(shiplap: Shiplap, victim: Path, kind: str) -> None:
    """CVE-2026-47262, CVE-2024-9676: of a passwd file only what is a file, inside the image and of a sane size, is read."""
    make = {
        "fifo": "rm /etc/passwd; mkfifo /etc/passwd",
        "huge": "dd if=/dev/zero of=/etc/passwd bs=1M seek=20000 count=0 2>/dev/null",
        "link to a fifo": "mkfifo /f; ln -sf /f /etc/passwd",
        "link out": f"ln -sf ../../../../../../..{victim}/secret /etc/passwd",
        "device": "rm /etc/passwd; mknod /etc/passwd c 1 5",
        "directory": "rm /etc/passwd; mkdir /etc/passwd",
        "loop": "ln -sf passwd /etc/passwd",
    }[kind]
    done = build(shiplap, f"FROM busybox\nRUN {make}\nUSER someone\nRUN id\n", check=False)
    assert done.returncode == 1
    assert "unknown-user" in done.stderr or "too-large" in done.stderr or "too-many-links" in done.stderr, done.stderr


def test_clearing_up_after_what_a_step_leaves(shiplap: Shiplap, victim: Path) -> None:
    """Modes, depths and names that make a tree hard to remove; a prune leaves nothing."""
    text = r"""FROM busybox
RUN mkdir -p /m/a/b && touch /m/a/b/c && chmod 000 /m/a/b /m/a /m
RUN d=/deep; i=0; while [ $i -lt 300 ]; do d=$d/0123456789; i=$((i+1)); done; mkdir -p $d && touch $d/x
RUN n=$(printf '/n\nl') && mkdir "$n" '/-rf' '/t b' && touch "$n/*" "/$(printf '\377\376')"
RUN rm -rf /bin /etc 2>/dev/null; true
"""
    build(shiplap, text)
    shiplap.run("prune", "--all")
    assert os.listdir(shiplap.root / "snapshots") == []


def test_mounts_of_many_builds(shiplap: Shiplap, victim: Path) -> None:
    """Of builds that succeed, fail, and are wrong, nothing stays mounted, open or running."""
    text = (
        "FROM busybox\nRUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t/u --mount=type=bind,target=/b {}\n"
    )
    for command in ("true", "false", "nope", "kill -9 $$", "sh -c 'sleep 60 &'"):
        build(shiplap, text.format(command), check=False)


def test_builder_is_not_to_be_seen(shiplap: Shiplap, victim: Path) -> None:
    """No process, environment or descriptor of the builder's is in a step's reach."""
    text = """FROM busybox
RUN ls -d /proc/[0-9]* | wc -l; cat /proc/[0-9]*/environ | tr '\\0' '\\n'; ls -l /proc/1/fd /proc/1/root /proc/1/cwd
RUN cat /proc/1/cmdline /proc/self/mountinfo; find / -xdev -name '*.sqlite*' 2>/dev/null; true
"""
    context = shiplap.cwd / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(text)
    done = shiplap.run("build", "--no-cache", "--progress", "plain", context, SHIPLAP_CANARY="canary-of-the-builder")
    assert "canary-of-the-builder" not in done.stderr
    assert "python" not in done.stderr and ".sqlite" not in done.stderr.replace("*.sqlite*", "")


def test_control_groups_cannot_be_written(shiplap: Shiplap, victim: Path) -> None:
    text = """FROM busybox
RUN for f in $(find /sys/fs/cgroup -name cgroup.procs -o -name release_agent 2>/dev/null); do echo 1 > $f && echo WROTE; done; \
    mkdir /sys/fs/cgroup/x 2>/dev/null && echo MADE; echo done
"""
    done = build(shiplap, text)
    assert "done" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.endswith(("WROTE", "MADE"))]


@pytest.mark.parametrize("isolation", ["native", "oci"])
def test_strings_of_any_length(shiplap: Shiplap, victim: Path, isolation: str) -> None:
    """CVE-2021-43784: what comes from the Dockerfile fits, or is refused in words."""
    if isolation == "oci":
        program("runc")
    start = f"FROM busybox\nARG A={'x' * 25_000}\nENV V=$A$A$A\n"
    for line in (
        "WORKDIR /$V\nRUN true",
        "RUN --mount=type=tmpfs,target=/$V true",
        "RUN --mount=type=cache,id=$V,target=/c true",
    ):
        done = build(shiplap, f"{start}{line}\n", "--isolation", isolation, check=False)
        assert "Traceback" not in done.stderr and "[internal]" not in done.stderr.split("ERROR")[-1]
        assert done.returncode == (0 if "id=$V" in line else 1)
    assert "75000" in build(shiplap, f"{start}RUN echo ${{#V}}\n", "--isolation", isolation).stderr
