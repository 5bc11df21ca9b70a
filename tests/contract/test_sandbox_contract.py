"""One contract for all runtimes (sandbox_cases.py): as root in this process, as an ordinary user in a child."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from shiplap.sandbox import detect, survey
from shiplap.sandbox.spec import Runtime

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cases = _load("sandbox_cases")
calls, probe, differences = (_load(name) for name in ("calls", "probe", "differences"))
ROOT = os.geteuid() == 0
PROGRAMS = {name: shutil.which(name, path=detect.SEARCH) for name in ("runc", "crun")}
KINDS = ["native", *(name for name, path in PROGRAMS.items() if path)]
WAYS_IN = [(kind, ids) for kind in KINDS for ids in ("all", "single")]
pytestmark = pytest.mark.skipif(not shutil.which("busybox"), reason="busybox-static is not installed")


@lru_cache
def runtime_named(kind: str) -> Runtime:
    tried = detect.trial("native" if kind == "native" else str(PROGRAMS[kind]), "")
    if tried.runtime is None:
        pytest.skip(f"{kind} does not work on this machine: {tried.reason}")
    return tried.runtime


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="shiplap-sandbox-"))
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(not ROOT, reason="not root")
@pytest.mark.parametrize("case", cases.CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_as_root(kind: str, case: str, directory: Path) -> None:
    room = directory / kind
    room.mkdir(exist_ok=True)
    cases.CASES[case](cases.Room(runtime_named(kind), room))


@pytest.mark.skipif(not ROOT, reason="not root")
@pytest.mark.parametrize("case", cases.CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_emulated_as_root(kind: str, case: str, directory: Path) -> None:
    """Steps that are emulated are in a user namespace, and keep the same contract."""
    room = directory / f"{kind}-emulated"
    room.mkdir(exist_ok=True)
    cases.CASES[case](cases.Room(runtime_named(kind), room, emulated=True))


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[str]:
    """A user with subordinate ids: one made for the session, or whoever runs the tests."""
    if not ROOT:
        yield pwd.getpwuid(os.getuid()).pw_name
        return
    name = f"shiplap{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    span = "1000000-1065535"
    subprocess.run(["usermod", "--add-subuids", span, "--add-subgids", span, name], check=True)
    yield name
    subprocess.run(["userdel", name], check=True)


def _readable_python(user: pwd.struct_passwd, source: Path) -> str | None:
    for python in (sys.executable, "/usr/bin/python3"):
        test = [python, "-c", f"import sys; sys.path.insert(0, {str(source)!r}); import msgspec"]
        try:
            if subprocess.run(test, capture_output=True, check=False, **_as(user)).returncode == 0:
                return python
        except OSError:
            continue
    return None


def _as(user: pwd.struct_passwd) -> dict[str, Any]:
    who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()} if ROOT else {}
    return {**who, "cwd": "/", "env": {"PATH": "/usr/bin:/bin"}}


@pytest.fixture(scope="session")
def as_user(ordinary_user: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Results of the child by (runtime, ids), each run once."""
    user = pwd.getpwnam(ordinary_user)
    base = Path(tempfile.mkdtemp(prefix="shiplap-rootless-"))
    base.chmod(0o755)
    for package in (SOURCE / "shiplap", Path(msgspec.__path__[0])):
        shutil.copytree(package, base / "src" / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    python = _readable_python(user, base / "src")
    if python is None:
        pytest.skip("no Python that an ordinary user may run, of the version the tests run with")
    for name in ("sandbox_cases.py", "sandbox_child.py", "probe.sh", "calls.py"):
        shutil.copy(HERE / name, base / name)

    @lru_cache
    def results(kind: str, ids: str) -> dict[str, Any]:
        home = base / f"{kind}-{ids}"
        (home / "room").mkdir(parents=True)
        if ROOT:
            for path in (home, home / "room"):
                os.chown(path, user.pw_uid, user.pw_gid)
        program = "native" if kind == "native" else str(PROGRAMS[kind])
        call = [str(python), "-B", str(base / "sandbox_child.py"), str(home), program, ids, str(base / "src")]
        who = _as(user)
        if ROOT and not os.stat("/dev/net/tun").st_mode & 0o006:  # udev would have opened it to everybody
            own = "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && "
            own += """exec setpriv --reuid=$0 --regid=$1 --clear-groups -- sh -c 'exec "$@"' "$@\""""
            call = ["unshare", "-m", "sh", "-c", own, str(user.pw_uid), str(user.pw_gid), *call]
            who = {"cwd": "/", "env": who["env"]}
        ended = subprocess.run(call, capture_output=True, text=True, timeout=240, check=False, **who)
        assert ended.returncode == 0, ended.stderr[-3000:]
        answer: dict[str, Any] = json.loads(ended.stdout)
        return answer

    yield results
    if ROOT:
        shutil.rmtree(base)
    else:  # files of subordinate ids can be removed only from inside
        code = "import shutil,sys;from shiplap.sandbox.userns import enter_user_namespace as e;e();shutil.rmtree(sys.argv[1])"
        subprocess.run([str(python), "-c", code, str(base)], check=True, env={"PYTHONPATH": str(SOURCE)})


@pytest.mark.parametrize("case", cases.CASES)
@pytest.mark.parametrize(("kind", "ids"), WAYS_IN, ids=[f"{kind}-{ids}" for kind, ids in WAYS_IN])
def test_as_user(kind: str, ids: str, case: str, as_user: Any) -> None:
    result = as_user(kind, ids)
    if result["reason"]:
        assert kind != "native", result["reason"]
        pytest.skip(f"{kind} does not work for an ordinary user here: {result['reason']}")
    assert result["cases"][case] == ""


def test_ids_of_the_ordinary_user(as_user: Any, ordinary_user: str) -> None:
    uid = pwd.getpwnam(ordinary_user).pw_uid
    wide, single = as_user("native", "all"), as_user("native", "single")
    assert not wide["single"] and wide["uids"][0] == [0, uid, 1]
    assert sum(span[2] for span in wide["uids"]) > 65_536
    assert single["single"] and single["uids"] == [[0, uid, 1]]


FACTS = json.loads((HERE / "buildkit-facts.json").read_text())["facts"]


def unlike_buildkit(facts: dict[str, str], kind: str, ids: str) -> dict[str, tuple[str | None, str | None]]:
    """Answers that differ from BuildKit's without a reason on the list: the question to both."""
    return {
        name: (FACTS.get(name), facts.get(name))
        for name in sorted({*FACTS, *facts})
        if FACTS.get(name, "") != facts.get(name, "")
        and not (FACTS.get(name) == "absent" or facts.get(name) == "absent")  # depends on the kernel's configuration
        and (facts.get(name) == "let in" or not differences.reason(name, kind, ids))  # no reason lets a call in
    }


@pytest.mark.skipif(not ROOT, reason="the facts were recorded as root")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the facts were recorded on x86-64")
@pytest.mark.parametrize("kind", KINDS)
def test_equals_buildkit(kind: str, directory: Path) -> None:
    """Every answer of probe.sh is BuildKit's, or on the list (docs/explanation/sandbox.md says more)."""
    room = cases.Room(runtime_named(kind), directory / kind)
    facts = probe.parsed(cases.asked(room, HERE))
    assert len(facts) > 180
    assert unlike_buildkit(facts, kind, "root") == {}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the facts were recorded on x86-64")
@pytest.mark.parametrize(("kind", "ids"), WAYS_IN, ids=[f"{kind}-{ids}" for kind, ids in WAYS_IN])
def test_ordinary_user_equals_buildkit(kind: str, ids: str, as_user: Any) -> None:
    """The same for an ordinary user, with the further list of what no user namespace has."""
    result = as_user(kind, ids)
    if result["reason"]:
        pytest.skip(f"{kind} does not work for an ordinary user here: {result['reason']}")
    facts = probe.parsed(result["facts"])
    assert len(facts) > 180
    wrong = unlike_buildkit(facts, kind, ids)
    assert wrong == {}, "\n".join(map(str, wrong.items()))


def test_every_call_that_breaks_out_is_kept_out() -> None:
    """Not BuildKit's word alone: what section 4.6 of the security notes names must be refused."""
    out = "bpf mount umount2 unshare_user unshare_mount setns open_by_handle_at kexec_load init_module finit_module"
    out += " keyctl add_key userfaultfd perf_event_open io_uring_setup socket_alg socket_vsock reboot"
    for name in out.split():
        assert FACTS[f"call.{name}"] == "EPERM", name


BUILDER = """
import sys, threading
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import sandbox_cases, test_runtime
room = sandbox_cases.Room(test_runtime.make(), Path(sys.argv[3]))
room.run("sh", "-c", "trap '' HUP TERM; setsid sleep " + sys.argv[4] + " & echo; sleep " + sys.argv[4])
"""


@pytest.mark.skipif(not ROOT, reason="not root")
@pytest.mark.parametrize("kind", KINDS)
def test_killed_builder_leaves_nothing(kind: str, directory: Path) -> None:
    """SIGKILL to the builder alone: its helper, keepers and steps go by themselves, with every mount."""
    import signal
    import time

    runtime: Any = runtime_named(kind)
    make = "from shiplap.sandbox.native import NativeRuntime as make"
    if kind != "native":
        make = (
            f"from shiplap.sandbox.oci_runtime import OciRuntime, Way\n"
            f"make = lambda: OciRuntime({runtime.program!r}, {runtime.way!r}, {str(directory)!r})"
        )
    (directory / "test_runtime.py").write_text(make)
    home = directory / f"killed-{kind}"
    home.mkdir()
    marker = f"41{os.getpid()}.{time.monotonic_ns()}"
    call = [sys.executable, "-c", BUILDER, str(HERE), str(directory), str(home), marker]
    builder = subprocess.Popen(call, env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"})
    deadline = time.monotonic() + 10
    while len(steps := cases.alive(f"sleep\0{marker}")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    text = Path(f"/proc/{steps[0]}/cgroup").read_text() if steps else ""
    groups = {part for part in text.replace("\n", "/").split("/") if part.startswith("shiplap-")}
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert len(steps) == 2
    assert bool(groups) == (kind != "native" and runtime.way.cgroups)
    deadline = time.monotonic() + 2

    def left() -> list[object]:
        bundles = [*directory.glob("shiplap-oci-*")]
        cgroups = [path for name in groups for path in Path("/sys/fs/cgroup").glob(f"*/{name}")]
        return [*cases.alive(marker), *cases.alive(str(home)), *bundles, *cgroups]

    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left() == []


@pytest.mark.skipif(not ROOT, reason="not root")
@pytest.mark.parametrize(
    "case", ["bind_shared_and_readonly", "devices", "kernel_is_out_of_reach", "subpath_stays_inside"]
)
def test_without_the_new_calls(case: str, directory: Path) -> None:
    """Before Linux 5.6 and 5.12 there is no openat2 and no mount_setattr: bind, remount and walk by hand instead."""
    from shiplap.sandbox.native import NativeRuntime

    runtime = NativeRuntime(old_kernel=True)
    home = directory / f"old-{case}"
    home.mkdir()
    try:
        cases.CASES[case](cases.Room(runtime, home))
        room = cases.Room(runtime, home)
        nested = room.layer("nested")
        (nested / "deep").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(nested / "deep")], check=True)
        try:
            mount = cases.StepMount("bind", "/n", source=str(nested))
            assert room.run("touch", "/n/deep/x", mounts=(mount,))[0].code != 0, (
                "read-only goes for what is mounted below"
            )
        finally:
            subprocess.run(["umount", str(nested / "deep")], check=True)
    finally:
        runtime.close()


@pytest.mark.skipif(not ROOT, reason="not root")
def test_disk_that_cannot_hold_an_overlay(directory: Path) -> None:
    """An overlay cannot be another one's upper directory: the error says where to go."""
    base = directory / "stacked"
    for name in ("l", "u", "w", "m"):
        (base / name).mkdir(parents=True)
    options = f"lowerdir={base}/l,upperdir={base}/u,workdir={base}/w"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(base / "m")], check=True)
    try:
        with pytest.raises(cases.SandboxError) as caught:
            cases.Room(runtime_named("native"), base / "m").run("true")
    finally:
        subprocess.run(["umount", str(base / "m")], check=True)
    assert caught.value.code == "no-overlay"
    assert "ext4" in (caught.value.hint or "")


def test_survey_agrees_with_choice() -> None:
    machine, found = survey.look(), survey.attempt("")
    working = [entry.name for entry in found.runtimes if entry.works]
    assert machine.root is ROOT and machine.cgroup in ("v1", "v2", "hybrid", "none")
    if working:
        assert detect.choose("auto").name == ("native" if "native" in working else "oci")
    if {"runc", "crun"} & {*working}:
        assert detect.choose("oci").name == "oci"
