"""What the tests share: base images, a real registry on loopback, an ordinary user."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bases
import pytest

from kit import GO, REPOSITORY, SHELL, WORK, Shiplap, free_port, listens, once, program, wait_for
from registries import Served, served

WARM = b"""FROM golang:1.25
RUN for arch in amd64 arm64 riscv64; do GOARCH=$arch CGO_ENABLED=0 go build fmt os strings runtime || exit 1; done
RUN go build fmt os strings
"""


@pytest.fixture(scope="session")
def archives() -> dict[str, Path]:
    """Docker archives of the base images, made once: busybox, ubuntu (the same, renamed), nginx, golang:1.25."""
    made = WORK / "bases"
    wanted = {"busybox:latest": SHELL, "ubuntu:latest": SHELL, "nginx:latest": SHELL, "golang:1.25": GO}
    with once(made) as ours:
        if ours:
            making = WORK / "bases.making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            shiplap = Shiplap(making / "store")
            for name, settings in wanted.items():
                root = making / "root"
                (bases.golang_rootfs if name.startswith("golang") else bases.busybox_rootfs)(root)
                if name.startswith("nginx"):
                    (root / "etc/nginx").mkdir()
                    (root / "etc/nginx/nginx.conf").write_text("user nginx;\nworker_processes auto;\n")
                changes = [word for setting in settings for word in ("-c", setting)]
                shiplap.run("import", *changes, root, name)
                if name.startswith("golang"):
                    # Compile the standard library once and for all, or each test that uses Go would do it again.
                    shiplap.run("build", "-t", name, "-", stdin=WARM)
                shiplap.run("save", "-o", making / f"{name.replace(':', '-')}.tar", name)
                shutil.rmtree(root)
            shutil.rmtree(making / "store")
            making.rename(made)
    return {name: made / f"{name.replace(':', '-')}.tar" for name in wanted}


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real docker-registry on loopback: its host:port."""
    directory = tmp_path_factory.mktemp("registry")
    port = free_port()
    (directory / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    with open(directory / "log", "w") as log:
        server = subprocess.Popen(
            [program("docker-registry"), "serve", str(directory / "config.yml")], stdout=log, stderr=log
        )
        try:
            wait_for(lambda: listens(port), "docker-registry")
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


MAKES = [
    "docker-registry",
    # One process for all its tests: it takes its time to start.
    pytest.param("zuul-registry", marks=pytest.mark.xdist_group("zuul-registry")),
]
"""Registries of different makes."""


@pytest.fixture(scope="session")
def zuul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """zuul-registry, over TLS and behind tokens."""
    with served("zuul-registry", tmp_path_factory.mktemp("zuul")) as running:
        yield running


@contextlib.contextmanager
def _of_make(request: pytest.FixtureRequest, factory: pytest.TempPathFactory, password: bool) -> Iterator[Served]:
    if request.param == "zuul-registry":
        yield request.getfixturevalue("zuul")
        return
    with served(request.param, factory.mktemp("real"), password=password) as running:
        yield running


@pytest.fixture(scope="session", params=MAKES)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry of each make in turn, to push to and to pull from."""
    with _of_make(request, tmp_path_factory, password=False) as running:
        yield running


@pytest.fixture(scope="session", params=MAKES)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry of each make, that serves nobody without a password."""
    with _of_make(request, tmp_path_factory, password=True) as running:
        yield running


@pytest.fixture(scope="session")
def mirror(registry: str, archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registries.conf in which docker.io is mirrored by ``registry``, which holds the base images."""
    directory = tmp_path_factory.mktemp("mirror")
    shiplap = Shiplap(directory / "store")
    for name, archive in archives.items():
        shiplap.run("load", "-i", archive)
        shiplap.run("tag", name, f"{registry}/library/{name}")
        shiplap.run("push", "-q", f"{registry}/library/{name}")
    shutil.rmtree(directory / "store")
    file = directory / "registries.conf"
    file.write_text(
        f'[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\nblocked = false\n'
        f'[[registry.mirror]]\nlocation = "{registry}"\ninsecure = true\n'
    )
    return file


@pytest.fixture
def shiplap(tmp_path: Path, mirror: Path) -> Shiplap:
    """shiplap with an empty store, and base images a pull away."""
    return Shiplap(tmp_path / "store", {"CONTAINERS_REGISTRIES_CONF": str(mirror)}, tmp_path)


@pytest.fixture(scope="session")
def ordinary_user() -> int:
    """The uid of a user without rights, made for the tests."""
    if os.geteuid() != 0:
        return os.geteuid()
    name = "shiplap-test"
    with once(WORK / "user"), contextlib.suppress(KeyError):
        return pwd.getpwnam(name).pw_uid
    with once(WORK / "user"):
        subprocess.run([program("useradd"), "--create-home", name], check=False, capture_output=True)
    return pwd.getpwnam(name).pw_uid


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """shiplap installed where an ordinary user can read it (root's own Python may lie where nobody else may look)."""
    if os.geteuid() != 0:
        return Shiplap(Path()).command
    directory = Path("/var/tmp") / f"shiplap-tests-{WORK.stat().st_ino}"
    stamp = directory.with_name(f"{directory.name}.ready")  # beside it, with its lock, for the directory is made anew
    with once(stamp) as ours:
        if ours or any(p.stat().st_mtime > stamp.stat().st_mtime for p in (REPOSITORY / "src").rglob("*.py")):
            stamp.unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)
            python = next((p for p in ("/usr/bin/python3", "/usr/local/bin/python3") if _usable(p)), None)
            if python is None:
                pytest.skip("no system Python 3.11+ with venv that an ordinary user could run")
            subprocess.run([python, "-m", "venv", directory], check=True, capture_output=True)
            pip = [directory / "bin/pip", "install", "-q", "--disable-pip-version-check", REPOSITORY]
            subprocess.run(pip, check=True, capture_output=True)
            stamp.touch()
    return (str(directory / "bin/shiplap"),)


def _usable(python: str) -> bool:
    probe = "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"
    return Path(python).exists() and subprocess.run([python, "-c", probe], capture_output=True).returncode == 0


@pytest.fixture
def rootless(installed: tuple[str, ...], ordinary_user: int, mirror: Path, tmp_path: Path) -> Iterator[Shiplap]:
    """shiplap as an ordinary user, with a home of its own."""
    home = Path("/var/tmp") / f"shiplap-home-{os.getpid()}-{os.urandom(4).hex()}"
    home.mkdir(mode=0o755)
    shutil.copy(mirror, home / "registries.conf")
    (home / "registries.conf").chmod(0o644)
    if os.geteuid() == 0:
        os.chown(home, ordinary_user, pwd.getpwuid(ordinary_user).pw_gid)
    user = ordinary_user if os.geteuid() == 0 else None
    env = {"CONTAINERS_REGISTRIES_CONF": str(home / "registries.conf")}
    yield Shiplap(home / "store", env, home, installed, user)
    subprocess.run(["rm", "-rf", home], check=False)


@pytest.fixture(scope="session")
def single_user() -> int:
    """A user without a range of subordinate ids."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a user without subordinate ids")
    name = "shiplap-single"
    with once(WORK / "single"):
        none = ["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"]
        subprocess.run([program("useradd"), *none, "--create-home", name], check=False, capture_output=True)
    assert name not in Path("/etc/subuid").read_text()
    return pwd.getpwnam(name).pw_uid


@pytest.fixture
def single(installed: tuple[str, ...], single_user: int, mirror: Path) -> Iterator[Shiplap]:
    """shiplap as a user who has one id, their own."""
    home = Path("/var/tmp") / f"shiplap-home-{os.getpid()}-{os.urandom(4).hex()}"
    home.mkdir(mode=0o755)
    shutil.copy(mirror, home / "registries.conf")
    (home / "registries.conf").chmod(0o644)
    os.chown(home, single_user, pwd.getpwuid(single_user).pw_gid)
    yield Shiplap(
        home / "store", {"CONTAINERS_REGISTRIES_CONF": str(home / "registries.conf")}, home, installed, single_user
    )
    subprocess.run(["rm", "-rf", home], check=False)


@pytest.fixture(scope="session")
def armbox() -> Path:
    """A Docker archive of the image ``armbox``: busybox for linux/arm64, from Debian."""
    made = WORK / "armbox.tar"
    with once(made) as ours:
        if ours:
            making = WORK / "armbox"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            setup = REPOSITORY / "tests/setup/foreign.sh"
            subprocess.run(["sh", setup, "arm64", "busybox-static", making / "package"], check=True)
            busybox = next((making / "package").glob("**/bin/busybox"))
            bases.busybox_rootfs(making / "root", busybox, [program("qemu-aarch64-static")])
            tar = ["tar", "--sort=name", "--mtime=@1600000000", "--owner=0", "--group=0", "--numeric-owner"]
            subprocess.run([*tar, "-C", making / "root", "-cf", making / "root.tar", "."], check=True)
            shiplap = Shiplap(making / "store")
            changes = [word for setting in SHELL for word in ("-c", setting)]
            shiplap.run("import", "--platform", "linux/arm64", *changes, making / "root.tar", "armbox")
            shiplap.run("save", "-o", f"{made}.making", "armbox")
            shutil.rmtree(making)
            os.rename(f"{made}.making", made)
            made.chmod(0o644)
    return made


@contextlib.contextmanager
def _serving(command: list[str | Path], log: Path, ready: list[str]) -> Iterator[None]:
    """Run ``command`` until the block ends; it is up once ``ready`` succeeds."""
    with open(log, "w") as out:
        server = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out)
        try:
            wait_for(lambda: subprocess.run(ready, capture_output=True).returncode == 0, str(command[0]), 60)
            yield
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="session")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real dockerd with directories of its own; its socket."""
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    path = tmp_path_factory.mktemp("dockerd")
    socket = f"unix://{path}/socket"
    command = [program("dockerd"), "--data-root", path / "data", "--exec-root", path / "exec", "-H", socket]
    command += ["--pidfile", path / "pid", "--bridge=none", "--iptables=false", "--ip6tables=false"]
    with _serving([*command, "--ip-forward=false"], path / "log", [program("docker"), "-H", socket, "version"]):
        yield socket


@pytest.fixture(scope="session")
def podman() -> Iterator[tuple[str, list[str]]]:
    """Podman's service with a storage of its own: its socket, and the command that looks into that storage."""
    if os.geteuid() != 0:
        pytest.skip("these tests give podman a storage of root's")
    with tempfile.TemporaryDirectory(prefix="podman") as directory:  # short: it takes no runroot over 50 characters
        yield from _podman(Path(directory))


def _podman(path: Path) -> Iterator[tuple[str, list[str]]]:
    socket = f"unix://{path}/socket"
    command = [program("podman"), "--root", str(path / "data"), "--runroot", str(path / "run"), "--storage-driver=vfs"]
    command += ["--tmpdir", str(path / "tmp"), "--cgroup-manager=cgroupfs", "--events-backend=file"]
    ready = [command[0], "--remote", "--url", socket, "version"]
    with _serving([*command, "system", "service", "--time=0", socket], path / "log", ready):
        yield socket, command


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A real containerd with directories of its own: the ``ctr`` command that speaks to it."""
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    path = tmp_path_factory.mktemp("containerd")
    (path / "config.toml").write_text(
        f'version = 2\nroot = "{path}/root"\nstate = "{path}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{path}/socket"\n'
    )
    ctr = [program("ctr"), "--address", str(path / "socket")]
    with _serving([program("containerd"), "--config", path / "config.toml"], path / "log", [*ctr, "version"]):
        yield ctr


@pytest.fixture(params=["root", "user"])
def each(request: pytest.FixtureRequest) -> Shiplap:
    """shiplap, as who runs the tests and as an ordinary user."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root can try it as root")
    found: Shiplap = request.getfixturevalue("shiplap" if request.param == "root" else "rootless")
    return found
