"""One Dockerfile, three ways to isolate it: root, subordinate ids, a single id. One image digest."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from difflib import unified_diff
from pathlib import Path

import bases
import pytest

from kit import WORK, Shiplap, once, program, wait_for

PROGRAMS = ("dpkg", "dpkg-deb", "dpkg-split", "dpkg-query", "tar", "useradd", "groupadd", "usermod", "ldconfig")
NUMBER = 1_700_000_000
# The shell is busybox, which takes its own dpkg and tar unless told where the real ones are.
SAME = f"find / -xdev -newer /etc/hostname -exec touch -h -d @{NUMBER} {{}} + 2>/dev/null; true"
"""Times are the only thing that two builds may not have in common."""

DOCKERFILE = f"""FROM debianish
RUN /usr/bin/dpkg -i /pkg.deb && rm /pkg.deb && {SAME}
RUN useradd -m -u 1000 joe && groupadd -g 555 club && usermod -aG club joe && chmod 2775 /srv && chown joe:club /srv \\
    && touch /srv/in && /usr/bin/tar -C /srv -cf /t.tar in \\
    && mkdir /x && /usr/bin/tar -C /x -xf /t.tar && rm /t.tar && {SAME}
RUN mkdir /home/joe/work && chown joe /home/joe/work \\
    && mknod -m 640 /null c 1 3 && chown root:club /null && ln -s null /link && chown -h 5:6 /link && {SAME}
USER joe
WORKDIR /home/joe/work
RUN id -u > id && id -G >> id && stat -c %u:%g /srv /x/in /opt/paper >> id && mkdir d && {SAME.replace("/ ", "/home/joe ")}
"""


@pytest.fixture(scope="session")
def debianish() -> Path:
    """A base image with the machine's own dpkg, tar and useradd, and a package that makes a user for its files."""
    made = WORK / "debianish.tar"
    with once(made) as ours:
        if ours:
            root = WORK / "debianish"
            shutil.rmtree(root, ignore_errors=True)
            _make(root)
            tar = ["tar", "--sort=name", f"--mtime=@{NUMBER - 1000}", "--numeric-owner", "-C", root, "-cf"]
            subprocess.run([*tar, f"{root}.root.tar", "."], check=True)
            shiplap = Shiplap(root / "store")
            shiplap.run("import", f"{root}.root.tar", "debianish")
            shiplap.run("save", "-o", f"{made}.making", "debianish")
            shutil.rmtree(root)
            os.rename(f"{made}.making", made)
            made.chmod(0o644)
    return made


def _make(root: Path) -> None:
    bases.busybox_rootfs(root)
    for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log", "srv", "opt", "etc/default", "var/mail"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("status", "available"):
        (root / "var/lib/dpkg" / name).touch()
    for name in ("shadow", "gshadow", "subuid", "subgid", "hostname", "login.defs"):
        (root / "etc" / name).touch(0o640)
    for name in ("shadow", "gshadow"):
        os.chown(root / "etc" / name, 0, 42)
    for name in PROGRAMS:
        path = Path(program(name))
        target = root / "usr/bin" / name
        shutil.copy(path.resolve(), target)
        needed = subprocess.run(["ldd", target], capture_output=True, text=True, check=False).stdout
        for library in {word for word in needed.split() if word.startswith("/")}:
            copy = root / library.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not copy.exists():
                shutil.copy(os.path.realpath(library), copy)
    package = root.with_name("package")
    shutil.rmtree(package, ignore_errors=True)
    (package / "DEBIAN").mkdir(parents=True)
    (package / "opt").mkdir()
    (package / "opt/paper").write_text("paper\n")
    (package / "opt/set").write_text("#!/bin/sh\n")
    (package / "opt/set").chmod(0o4755)
    os.chown(package / "opt/set", 0, 33)
    (package / "DEBIAN/control").write_text(
        "Package: paper\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    (package / "DEBIAN/postinst").write_text(
        "#!/bin/sh\nset -e\nuseradd -r -u 77 paper\nchown paper:www-data /opt/paper\n"
    )
    (package / "DEBIAN/postinst").chmod(0o755)
    subprocess.run(["dpkg-deb", "-b", package, root / "pkg.deb"], check=True, capture_output=True)
    shutil.rmtree(package)


def build(shiplap: Shiplap, base: Path, *flags: str, **env: str) -> list[str]:
    """The image built: its digest, manifest and config."""
    shiplap.run("load", "-i", base)
    context = shiplap.cwd / "context"
    if not context.exists():
        context.mkdir()
        (context / "Dockerfile").write_text(DOCKERFILE)
        context.chmod(0o755)
    arguments = ["build", "-q", "--build-arg", f"SOURCE_DATE_EPOCH={NUMBER}", "--no-cache", "-t", "owners", *flags]
    shiplap.run(*arguments, context, **env)
    (image,) = json.loads(shiplap.run("inspect", "owners").stdout)
    del image["Name"]
    return json.dumps(image, indent=1).splitlines()


def same(expected: list[str], got: list[str]) -> None:
    if expected != got:
        pytest.fail("\n".join(unified_diff(expected, got, "root", "this", lineterm="")), pytrace=False)


def test_same_layers_every_way(shiplap: Shiplap, rootless: Shiplap, single: Shiplap, debianish: Path) -> None:
    expected = build(shiplap, debianish)
    same(expected, build(rootless, debianish))
    same(expected, build(single, debianish))


def test_same_layers_with_a_runtime(shiplap: Shiplap, single: Shiplap, debianish: Path) -> None:
    expected = build(shiplap, debianish)
    same(expected, build(single, debianish, "--isolation", "oci"))


def test_same_layers_from_copies(shiplap: Shiplap, single: Shiplap, debianish: Path) -> None:
    """Where no overlay can be mounted, each step works on a copy; the layers are the same."""
    expected = build(shiplap, debianish)
    same(expected, build(shiplap, debianish, SHIPLAP_SNAPSHOTS="copy"))
    same(expected, build(single, debianish, SHIPLAP_SNAPSHOTS="copy"))


MOUNTS = """FROM busybox AS other
RUN mkdir /d && echo one > /d/file && echo low > /low
RUN echo two > /d/second
FROM busybox
RUN --mount=type=bind,from=other,target=/o,rw echo mine > /o/d/file && cat /o/d/file /o/d/second /o/low
RUN --mount=type=bind,from=other,source=/d,target=/o cat /o/file /o/second && ! touch /o/x 2>/dev/null
RUN --mount=type=bind,from=other,source=/d/file,target=/f,rw echo lost > /f && cat /f
RUN --mount=type=bind,from=other,target=/o cat /o/d/file && ls -A / | sort > /list
"""


def test_disk_that_refuses_overlays(shiplap: Shiplap, tmp_path: Path) -> None:
    """A store on an overlay: nobody asked for copies, they are made of themselves, and the build says so once."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk for the test")
    for name in ("l", "u", "w", "m"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/l,upperdir={tmp_path}/u,workdir={tmp_path}/w"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "m"], check=True)
    try:
        stacked = Shiplap(tmp_path / "m/store", shiplap.env, tmp_path)
        done = stacked.run("build", "--progress", "plain", "-", stdin=MOUNTS.encode())
        usual = shiplap.run("build", "--progress", "plain", "-", stdin=MOUNTS.encode())
        said = [
            [line.split(" ", 2)[-1] for line in text.splitlines() if "mine" in line or "two" in line or "low" in line]
            for text in (done.stderr, usual.stderr)
        ]
        assert said[0] == said[1]
        assert done.stderr.count("copy of its root") == 1 and "copies of its root" not in usual.stderr
        assert stacked.run("run", "busybox", "cat", "/etc/passwd").stdout.startswith("root:")
        assert os.listdir(stacked.root / "tmp") == []
        with pytest.raises(pytest.fail.Exception, match="no-sandbox"):
            stacked.run("build", "--no-cache", "-", stdin=MOUNTS.encode(), SHIPLAP_SNAPSHOTS="overlay")
    finally:
        subprocess.run(["umount", tmp_path / "m"], check=True)


def test_doctor_knows_the_ways(shiplap: Shiplap, rootless: Shiplap, single: Shiplap) -> None:
    """What it says is what builds do."""
    for kind, way in ((shiplap, "root"), (rootless, "A"), (single, "B")):
        found = json.loads(kind.run("doctor", "--format", "json").stdout)
        assert (found["run"], found["way"], found["isolation"], found["snapshots"]) == (True, way, "native", "overlay")
        assert not [each for each in found["findings"] if each["level"] == "error"]
        copies = json.loads(kind.run("doctor", "--format", "json", SHIPLAP_SNAPSHOTS="copy").stdout)
        assert copies["snapshots"] == "copy"
    text = single.run("doctor").stdout
    assert text.startswith("RUN works here for an ordinary user with one id (way B)")
    assert "try: sudo usermod --add-subuids" in text


def test_doctor_where_user_namespaces_are_forbidden(single: Shiplap) -> None:
    """user.max_user_namespaces holds for the user namespace it is set in: here one around the whole test."""
    script = """read go && echo 0 > /proc/sys/user/max_user_namespaces && gid=$1 && shift && \\
        exec setpriv --reuid=$0 --regid=$gid --clear-groups "$@\""""
    user = pwd.getpwuid(single.user or 0)
    setting = {**single.setting(), "user": None, "group": None, "extra_groups": None}
    call = [
        "unshare",
        "--user",
        "--keep-caps",
        "sh",
        "-c",
        script,
        str(user.pw_uid),
        str(user.pw_gid),
        *single.command,
        "doctor",
    ]
    doctor = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **setting)
    outside = os.stat("/proc/self/ns/user").st_ino
    wait_for(lambda: os.stat(f"/proc/{doctor.pid}/ns/user").st_ino != outside, "the user namespace")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{doctor.pid}/{name}").write_text("0 0 4294967295")
    said, _ = doctor.communicate("go\n", 60)
    assert doctor.returncode == 1, said
    assert "RUN does not work here" in said
    assert "try: sudo sysctl -w user.max_user_namespaces=15000" in said


def test_owners_of_a_layer_that_was_packed_first(single: Shiplap) -> None:
    """A COPY that is only packed has no files; when a later build makes them, they have their owners."""
    context = single.cwd / "later"
    context.mkdir()
    context.chmod(0o755)
    (context / "file").write_text("x\n")
    recipe = "FROM busybox\nCOPY --chown=7:8 file /file\nCOPY --chown=9 --chmod=750 . /d/\n"
    (context / "Dockerfile").write_text(recipe)
    single.run("build", "-q", context)
    (context / "Dockerfile").write_text(recipe + "RUN stat -c '%u:%g %a' /file /d /d/file && touch /d/file\n")
    told = single.run("build", "--progress", "plain", "--build-arg", "X=1", context).stderr
    assert [line.split(" ", 2)[2] for line in told.splitlines() if " 7:8 " in line or " 9:9 " in line] == [
        "7:8 644",
        "9:9 750",
        "9:9 750",
    ]
