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

import pytest

from shiplap.sandbox import detect
from shiplap.sandbox.spec import Identity, Runtime

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
ROOT = os.geteuid() == 0
PROGRAMS = {name: shutil.which(name, path=detect.SEARCH) for name in ("runc", "crun")}
KINDS = ["native", *(name for name, path in PROGRAMS.items() if path)]
WAYS_IN = [(kind, ids) for kind in KINDS for ids in ("all", "single")]
pytestmark = pytest.mark.skipif(not shutil.which("busybox"), reason="busybox-static is not installed")


@lru_cache
def runtime_named(kind: str) -> Runtime:
    found, reason = detect._try("native" if kind == "native" else str(PROGRAMS[kind]), "")
    if found is None:
        pytest.skip(f"{kind} does not work on this machine: {reason}")
    return found


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


def _readable_python(user: pwd.struct_passwd) -> str | None:
    for python in (sys.executable, "/usr/bin/python3"):
        test = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
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
    python = _readable_python(user)
    if python is None:
        pytest.skip("no Python 3.11 that an ordinary user may run")
    base = Path(tempfile.mkdtemp(prefix="shiplap-rootless-"))
    base.chmod(0o755)
    shutil.copytree(SOURCE / "shiplap", base / "src/shiplap", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sandbox_cases.py", "sandbox_child.py"):
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
        ended = subprocess.run(call, capture_output=True, text=True, timeout=240, check=False, **_as(user))
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
DIFFERENT = {
    "native": {
        "stdin": "BuildKit gives a pipe that is at its end, we /dev/null: both read as empty",
        "mount./dev": "nodev, since there may be no device cgroup to deny what a step makes with mknod",
        "mount./dev/*": "device nodes are bound one by one from a hidden tmpfs, because /dev is nodev",
        "mount./proc/keys": "masked by the null device of a hidden tmpfs, which is noexec",
        "mount./proc/timer_list": "as /proc/keys",
        "mount./etc/*": "the generated files lie on a tmpfs, not on the builder's disk",
        "mount./sys/fs/cgroup": "an empty read-only directory unless the machine has cgroup v2",
        "try.open-null-node": "device nodes made by the step cannot be opened (nodev, see /dev)",
        "*otel*": "BuildKit's own tracing socket",
    },
    "runc": {
        "stdin": "as native",
        "mount./etc/*": "as native",
        "mount./sys/fs/cgroup": "as native, where the runtime cannot make a cgroup",
        "*otel*": "as native",
    },
}
DIFFERENT["crun"] = {
    **DIFFERENT["runc"],
    "status.Cap*": "without a device cgroup CAP_MKNOD goes",
    "try.mknod-*": "as status.Cap*",
    "try.open-null-node": "as status.Cap*",
    "fds": "crun opens what the shell opens one number later",
    "mount./*": "crun masks and mounts with options of its own",
    "dev./dev/mqueue": "crun makes it 0755 first",
    "dev./dev/*": "crun's own modes",
    "signals.*": "crun leaves the signals as the shell that ran it had them",
}
MACHINE = ("nofile", "oom_score_adj")
"""Whatever this machine has: the two were started by different parents."""


@pytest.mark.skipif(not ROOT, reason="the facts were recorded as root")
@pytest.mark.parametrize("kind", KINDS)
def test_equals_buildkit(kind: str, directory: Path) -> None:
    """Every answer of probe.sh is BuildKit's, or on the list above (docs/explanation/sandbox.md says more)."""
    from fnmatch import fnmatchcase

    room = cases.Room(runtime_named(kind), directory / kind)
    layer = room.layer("probe")
    shutil.copy(HERE / "probe.sh", layer / "probe.sh")
    (layer / "mnt").mkdir()
    room.fresh(layer)
    out = room.sh(". /probe.sh", identity=Identity(groups=(0,)))
    facts = dict(line.split("|", 1) for line in out.splitlines())
    wrong = {
        name: (FACTS.get(name), facts.get(name))
        for name in sorted({*FACTS, *facts})
        if (FACTS.get(name) or "").strip() != (facts.get(name) or "").strip()
        and name not in MACHINE
        and not (FACTS.get(name) == "absent" or facts.get(name) == "absent")  # depends on the kernel's configuration
        and not any(fnmatchcase(name, pattern) for pattern in DIFFERENT[kind])
    }
    assert wrong == {}
