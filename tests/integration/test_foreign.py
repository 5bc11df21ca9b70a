"""RUN for a processor that this machine has not, without privilege: the same layers for everybody, and nobody else changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from difflib import unified_diff
from pathlib import Path

import pytest

from kit import WORK, Shiplap, once, program
from shiplap.sandbox.detect import SEARCH

NUMBER = 1_700_000_000
SAME = f"find / -xdev -newer /etc/group ! -path '/proc/*' -exec touch -h -d @{NUMBER} {{}} + 2>/dev/null; true"
"""Times are the only thing that two builds may not have in common."""

DOCKERFILE = f"""FROM armbox
RUN uname -m > /machine && mkdir -p /srv/app && chown -R 33:50 /srv && chmod 2775 /srv && touch /srv/in && {SAME}
RUN mknod -m 640 /null c 1 3 && chown 0:50 /null && mkfifo /pipe && ln -s machine /link && chown -h 5:6 /link \\
    && ln /machine /hard && rm /etc/passwd && echo joe:x:1000:1000::/home/joe:/bin/sh > /etc/passwd && {SAME}
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=secret,id=s,required=false \\
    ls -d /c /t > /mounts && sh -c 'echo $0 $@' a b > /arguments \\
    && mkdir -p /home/joe && chown 1000 /home/joe && {SAME}
USER joe
WORKDIR /home/joe
RUN id -u > id && uname -m >> id && grep -E '^(NoNewPrivs|Seccomp|CapBnd):' /proc/self/status >> id && {SAME}
"""
HELLO = """#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>
int main(int count, char **words) {
  struct utsname name;
  uname(&name);
  printf("%s %d %s\\n", name.machine, geteuid(), words[0]);
  return 0;
}
"""
CROSS = """FROM --platform=$BUILDPLATFORM toolchain AS build
ARG TARGETARCH
COPY hello.c .
RUN case $TARGETARCH in arm64) compiler=aarch64-linux-gnu-gcc ;; amd64) compiler=gcc ;; esac; \\
    $compiler -O1 -static -o /hello hello.c
FROM scratch
COPY --from=build /hello /hello
ENTRYPOINT ["/hello"]
"""
MACHINE = """import os, shutil, sys
from shiplap.sandbox import binfmt, elf
def narrow(kind, pid):  # by which shiplap knows that it is in a user namespace
    with open(f"/proc/{pid}/{kind}_map", "w") as file:
        file.write("0 0 100000")
binfmt._map_to_itself = narrow
arm = elf.PROCESSORS["arm64"]
namespace, instance = binfmt.emulate(shutil.which("qemu-aarch64-static"), arm.identity(), arm.mask(), "POCF")
os.set_inheritable(instance, True)
binfmt.enter(namespace, mounts=True)
os.execv(sys.argv[1], sys.argv[1:])
"""
PACKAGES = {
    *("gcc-aarch64-linux-gnu", "gcc-12-aarch64-linux-gnu", "cpp-12-aarch64-linux-gnu", "binutils-aarch64-linux-gnu"),
    *("libc6-dev-arm64-cross", "libgcc-12-dev-arm64-cross", "linux-libc-dev-arm64-cross"),
    *(
        "gcc",
        "gcc-12",
        "cpp-12",
        "binutils",
        "binutils-x86-64-linux-gnu",
        "libc6-dev",
        "libgcc-12-dev",
        "linux-libc-dev",
    ),
}
NEITHER = ("lto1", "lto-wrapper", "cc1plus", ".gz", "libasan", "libtsan", "liblsan", "libubsan", "-ld.gold", "-dwp")


def build(shiplap: Shiplap, base: Path, *flags: str, dockerfile: str = DOCKERFILE, **env: str) -> list[str]:
    """The image built for linux/arm64: its digest, manifest and config."""
    shiplap.run("load", "-i", base)
    arguments = ["build", "-q", "--platform", "linux/arm64", "--build-arg", f"SOURCE_DATE_EPOCH={NUMBER}", *flags]
    shiplap.run(*arguments, "-t", "foreign", "-", stdin=dockerfile.encode(), **env)
    (image,) = json.loads(shiplap.run("inspect", "foreign").stdout)
    del image["Name"]
    return json.dumps(image, indent=1).splitlines()


def same(expected: list[str], got: list[str]) -> None:
    if expected != got:
        pytest.fail("\n".join(unified_diff(expected, got, "root", "this", lineterm="")), pytrace=False)


def runs_here(file: Path) -> bool:
    try:
        return subprocess.run([file], check=False, capture_output=True).returncode == 42
    except OSError:
        return False


def without_emulator(shiplap: Shiplap) -> Shiplap:
    """shiplap where qemu for arm64 is not installed."""
    if os.geteuid() != 0:
        pytest.skip("only root can hide a program")
    hide = 'mount --bind /dev/null "$(command -v qemu-aarch64-static)" && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", hide, "sh", *shiplap.command)
    return Shiplap(shiplap.root, shiplap.env, shiplap.cwd, command)


def test_same_layers_every_way(shiplap: Shiplap, rootless: Shiplap, single: Shiplap, armbox: Path) -> None:
    expected = build(shiplap, armbox)
    assert '"architecture": "arm64"' in "\n".join(expected)
    same(expected, build(rootless, armbox))
    same(expected, build(single, armbox))
    for way in (shiplap, rootless, single):
        said = way.run("run", "foreign", "sh", "-c", "uname -m; id -u; cat /machine /arguments /home/joe/id").stdout
        assert said.splitlines()[:5] == ["aarch64", "1000", "aarch64", "a b", "1000"]
        assert "CapBnd:\t00000000a80425fb" in said  # BuildKit's fourteen, in there as everywhere


def test_same_layers_from_copies(shiplap: Shiplap, single: Shiplap, armbox: Path) -> None:
    expected = build(shiplap, armbox)
    same(expected, build(single, armbox, "--no-cache", SHIPLAP_SNAPSHOTS="copy"))


def test_run_takes_this_machines_image_of_several(shiplap: Shiplap, armbox: Path) -> None:
    shiplap.run("load", "-i", armbox)
    text = b"FROM busybox AS for-amd64\nFROM armbox AS for-arm64\nFROM for-$TARGETARCH\nARG TARGETARCH\nENV made=$TARGETARCH\n"
    shiplap.run("build", "--platform=linux/arm64,linux/amd64", "-t", "both", "-", stdin=text)
    asked = ("both", "sh", "-c", "echo $made")
    for flags, made in (((), "amd64"), (("--platform=arm64",), "arm64"), (("--platform=linux/amd64",), "amd64")):
        assert shiplap.run("run", *flags, *asked).stdout.strip() == made
    for image, platform in (("both", "linux/s390x"), ("armbox", "linux/amd64")):
        failed = shiplap.run("run", "--platform", platform, image, "true", check=False)
        assert "no-such-platform" in failed.stderr


def test_nothing_else_is_changed(shiplap: Shiplap, armbox: Path, tmp_path: Path) -> None:
    """Neither the machine nor the step's neighbours get an emulator, nor can the step see its own or register another."""
    from shiplap.sandbox import elf

    foreign = tmp_path / "foreign"
    foreign.write_bytes(elf.exiting("arm64", 42))
    foreign.chmod(0o755)
    before = runs_here(foreign)
    shiplap.run("load", "-i", armbox)
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(foreign, context)
    (context / "Dockerfile").write_text(
        "FROM armbox AS arm\nRUN sleep 1; grep -c binfmt /proc/self/mountinfo > /n; ls /proc/sys/fs/binfmt_misc >> /n; \\\n"
        "  ! mount -t binfmt_misc none /tmp 2>/dev/null && ! unshare -U true 2>/dev/null && sleep 1\n"
        "FROM --platform=$BUILDPLATFORM busybox AS own\nCOPY foreign /\n"
        "RUN sleep 1; /foreign; echo $? > /status\n"
        "FROM scratch\nCOPY --from=arm /n /\nCOPY --from=own /status /\n"
    )
    shiplap.run("build", "-q", "--platform", "linux/arm64", "-o", f"type=local,dest={tmp_path}/out", context)
    assert (tmp_path / "out/n").read_text() == "0\n"
    assert (tmp_path / "out/status").read_text() == ("42\n" if before else "127\n")  # a shell takes it for a script
    assert runs_here(foreign) == before


def test_insecure_steps_may_mount(shiplap: Shiplap, armbox: Path) -> None:
    step = "FROM armbox\nRUN --security=insecure mkdir /m && mount -t tmpfs x /m && grep -c ' /m ' /proc/self/mountinfo > /n\n"
    build(shiplap, armbox, "--allow", "security.insecure", dockerfile=step)
    assert shiplap.run("run", "foreign", "cat", "/n").stdout == "1\n"


def test_no_emulator_is_told_before_anything_runs(shiplap: Shiplap, armbox: Path) -> None:
    shiplap.run("load", "-i", armbox)
    dockerfile = (
        b"FROM --platform=$BUILDPLATFORM busybox AS first\nRUN echo started > /x\n"
        b"FROM armbox\nCOPY --from=first /x /\nRUN uname -m\n"
    )
    bare = without_emulator(shiplap)
    failed = bare.run("build", "--progress=plain", "--platform=linux/arm64", "-", stdin=dockerfile, check=False)
    assert failed.returncode == 1
    assert (
        "[no-emulator]" in failed.stderr and "RUN cannot run programs for linux/arm64 on this machine" in failed.stderr
    )
    assert "--> Dockerfile:5\n  5 | RUN uname -m" in failed.stderr
    assert "try: sudo apt-get install qemu-user-static" in failed.stderr
    assert "RUN echo started" not in failed.stderr
    # What is known needs no emulator, and neither does what does not run.
    shiplap.run("build", "-q", "--platform=linux/arm64", "-t", "made", "-", stdin=dockerfile)
    again = bare.run("build", "--progress=plain", "--platform=linux/arm64", "-", stdin=dockerfile + b"LABEL a=b\n")
    assert "0 steps run" in again.stderr
    unreached = b"FROM armbox AS arm\nRUN false\nFROM armbox\nCOPY --from=busybox /bin/busybox /b\n"
    bare.run("build", "-q", "--platform=linux/arm64", "-", stdin=unreached)
    ran = bare.run("run", "made", "true", check=False)
    assert ran.returncode == 1 and "[no-emulator]" in ran.stderr


def test_a_program_for_another_processor_than_the_platforms(shiplap: Shiplap, armbox: Path) -> None:
    """An image that is not what it was asked for as."""
    shiplap.run("load", "-i", armbox)
    failed = shiplap.run("build", "-", stdin=b"FROM armbox\nRUN uname -m\n", check=False)
    if failed.returncode:  # else the machine has registered an emulator
        assert "InvalidBaseImagePlatform" in failed.stderr or "was pulled with platform" in failed.stderr
        assert "exec /bin/sh: exec format error" in failed.stderr
        assert "try: a program for linux/amd64 (see --platform and FROM --platform=)" in failed.stderr


HEAR = "ping -c 1 -W 5 127.0.0.1 | grep received >> /heard && busybox httpd -p 80 && echo bound >> /heard"
NETWORKED = f"""FROM armbox
RUN {HEAR} && {SAME}
RUN --network=none {HEAR} && {SAME}
"""


def test_power_over_the_builds_own_networks(shiplap: Shiplap, rootless: Shiplap, single: Shiplap, armbox: Path) -> None:
    """Raw sockets and low ports, as BuildKit's steps have them; the same layers with a runtime."""
    if not any(shutil.which(name, path=SEARCH) for name in ("pasta", "slirp4netns")):
        pytest.skip("neither pasta nor slirp4netns is installed")
    expected = build(shiplap, armbox, dockerfile=NETWORKED)
    heard = ["1 packets transmitted, 1 packets received, 0% packet loss", "bound"] * 2
    assert shiplap.run("run", "foreign", "cat", "/heard").stdout.splitlines() == heard
    if os.stat("/dev/net/tun").st_mode & 0o006:  # udev has opened it to everybody
        for way in (rootless, single):
            same(expected, build(way, armbox, dockerfile=NETWORKED))
    same(expected, build(shiplap, armbox, "--isolation=oci", "--no-cache", dockerfile=NETWORKED))


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_same_layers_with_a_runtime(
    runtime: str, shiplap: Shiplap, rootless: Shiplap, single: Shiplap, armbox: Path
) -> None:
    """runc and crun are called inside the user namespace that knows the emulator."""
    program(runtime)
    expected = build(shiplap, armbox)
    same(expected, build(only(shiplap, runtime), armbox, "--isolation=oci", "--no-cache"))
    if runtime == "runc":  # which is what an ordinary user gets, too
        for way in (rootless, single):
            same(expected, build(way, armbox, "--isolation=oci"))


def only(shiplap: Shiplap, runtime: str) -> Shiplap:
    """shiplap where no other runtime is installed."""
    others = [path for name in ("runc", "crun") if name != runtime and (path := shutil.which(name, path=SEARCH))]
    if not others or os.geteuid() != 0:
        return shiplap
    hide = "".join(f"mount --bind /dev/null {path} && " for path in others) + 'exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", hide, "sh", *shiplap.command)
    return Shiplap(shiplap.root, shiplap.env, shiplap.cwd, command)


def test_inspect_lists_what_runs(shiplap: Shiplap, rootless: Shiplap) -> None:
    for way in (shiplap, rootless):
        listed = json.loads(way.run("builder", "inspect", "--format", "json").stdout)["platforms"]
        found = {each["platform"]: each for each in listed}
        assert found["linux/arm64"]["how"] in ("emulator", "host", "native")
        assert {"linux/amd64", "linux/386", "linux/riscv64", "linux/s390x", "linux/arm/v7"} <= set(found)
    if os.geteuid() == 0:
        bare = without_emulator(shiplap)
        text = bare.run("builder", "inspect").stdout
        assert "linux/arm64      no" in text and "try: sudo apt-get install qemu-user-static" in text
        assert "linux/arm64" not in bare.run("buildx", "inspect").stdout


def test_without_user_namespaces(shiplap: Shiplap) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root goes without a user namespace")
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ("unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh", *shiplap.command)
    text = Shiplap(shiplap.root, shiplap.env, shiplap.cwd, command).run("builder", "inspect").stdout
    assert "linux/s390x      no\n" in text
    assert "an emulator needs a user namespace of its own, which is refused: no space left on device" in text
    assert "try: sudo sysctl -w user.max_user_namespaces=15000" in text


def test_what_the_machine_has_registered_is_used(shiplap: Shiplap, armbox: Path, tmp_path: Path) -> None:
    """The machine here is a user namespace in which an emulator is registered, and shiplap is none the wiser."""
    if os.geteuid() != 0:
        pytest.skip("only root can be the root of such a machine")
    script = tmp_path / "machine.py"
    script.write_text(MACHINE)
    machine = Shiplap(shiplap.root, shiplap.env, shiplap.cwd, (sys.executable, str(script), *shiplap.command))
    found = json.loads(machine.run("builder", "inspect", "--format", "json").stdout)["platforms"]
    assert {each["platform"]: each["how"] for each in found}["linux/arm64"] == "host"
    build(machine, armbox)
    assert machine.run("run", "foreign", "uname", "-m").stdout == "aarch64\n"


@pytest.fixture(scope="session")
def toolchain() -> Path:
    """An image of this machine's C compilers, for its own processor and for arm64."""
    made = WORK / "toolchain.tar"
    with once(made) as ours:
        if ours:
            program("aarch64-linux-gnu-gcc")
            root = WORK / "toolchain"
            shutil.rmtree(root, ignore_errors=True)
            (root / "tmp").mkdir(parents=True)
            _copy_packages(root)
            tar = ["tar", "--owner=0", "--group=0", "--numeric-owner", "-C", root, "-cf", f"{root}.root.tar", "."]
            subprocess.run(tar, check=True)
            shiplap = Shiplap(root / "store")
            shiplap.run("import", "-c", "ENV PATH=/usr/bin:/bin", f"{root}.root.tar", "toolchain")
            shiplap.run("save", "-o", f"{made}.making", "toolchain")
            shutil.rmtree(root)
            os.unlink(f"{root}.root.tar")
            os.rename(f"{made}.making", made)
    return made


def _copy_packages(root: Path) -> None:
    import bases

    bases.busybox_rootfs(root)
    listed = subprocess.run(["dpkg", "-L", *PACKAGES], capture_output=True, text=True, check=True).stdout
    files = [Path(line) for line in sorted(set(listed.splitlines()))]
    chosen = [
        path
        for path in files
        if path.parts[:2] == ("/", "usr")
        and path.parts[2:3] != ("share",)
        and not any(word in path.name for word in NEITHER)
        and (path.is_symlink() or path.is_file())
    ]
    libraries = set()
    for path in [path for path in chosen if path.is_file() and os.access(path, os.X_OK)]:
        needed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        libraries |= {Path(word) for word in needed.split() if word.startswith("/") and os.path.exists(word)}
    for path in [*chosen, *libraries]:
        copy = root / str(path).lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(copy):
            shutil.copy(path, copy, follow_symlinks=path in libraries)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the compilers are chosen for an x86-64 machine")
def test_cross_built_c(
    shiplap: Shiplap, rootless: Shiplap, single: Shiplap, toolchain: Path, armbox: Path, tmp_path: Path
) -> None:
    """Compiled here for two processors, run here for both; and setuid, which an emulator could lose."""
    shiplap.run("load", "-i", toolchain)
    context = tmp_path / "context"
    context.mkdir()
    (context / "hello.c").write_text(HELLO)
    (context / "Dockerfile").write_text(CROSS)
    for platform, machine in (("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")):
        shiplap.run("build", "-q", "--platform", platform, "-t", f"hello-{machine}", context)
        assert shiplap.run("run", f"hello-{machine}").stdout == f"{machine} 0 /hello\n"
    archive = tmp_path / "hello.tar"
    shiplap.run("save", "-o", archive, "hello-aarch64")
    archive.chmod(0o644)
    setuid = (
        b"FROM armbox\nCOPY --from=hello-aarch64 /hello /suid\nRUN chmod 4755 /suid\nUSER nobody\n"
        b"RUN id -u > /tmp/who && /suid >> /tmp/who && cp /suid /tmp/plain && /tmp/plain >> /tmp/who\n"
    )
    for way in (shiplap, rootless, single):
        for image in (archive, armbox):
            copy = way.cwd / f"a-{image.name}"  # where an ordinary user may read it
            shutil.copy(image, copy)
            copy.chmod(0o644)
            way.run("load", "-i", copy)
        way.run("build", "-q", "--platform=linux/arm64", "-t", "setuid", "-", stdin=setuid)
        said = way.run("run", "setuid", "cat", "/tmp/who").stdout
        assert said == "65534\naarch64 0 /suid\naarch64 65534 /tmp/plain\n"
