"""Which ids exist in a user namespace, and what is said when one does not."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from shiplap.errors import SandboxError
from shiplap.sandbox import userns
from shiplap.sandbox.userns import IdMap, plan, refusal, subordinate

RANGES = """
# a comment
alice:100000:65536
bob:165536:65536
1000:300000:10
alice:not:a number
alice:5:0
alice:
"""


def test_subordinate_ranges_by_name_and_number() -> None:
    assert subordinate(RANGES, "alice", 1000) == ((100000, 65536), (300000, 10))
    assert subordinate(RANGES, "carol", 7) == ()
    assert subordinate(RANGES, "", 1000) == ((300000, 10),)


def test_plan_is_root_then_the_ranges_without_a_gap() -> None:
    assert plan(1000, ()) == ((0, 1000, 1),)
    assert plan(1000, ((100000, 65536), (300000, 10))) == ((0, 1000, 1), (1, 100000, 65536), (65537, 300000, 10))


def test_plan_never_maps_an_id_twice() -> None:
    spans = plan(1000, ((999, 3),))
    assert spans == ((0, 1000, 1), (1, 999, 1), (2, 1001, 1))
    assert plan(1000, ((1000, 2),)) == ((0, 1000, 1), (1, 1001, 1))


def test_ids_inside_and_outside() -> None:
    ids = IdMap(plan(1000, ((100000, 65536),)), plan(1000, ((100000, 65536),)))
    assert (ids.outside(0), ids.outside(1), ids.outside(65536)) == (1000, 100000, 165535)
    assert ids.has_uid(65536) and not ids.has_uid(65537) and not ids.initial
    ids.require(65536, 1, 2, 3)
    with pytest.raises(SandboxError, match="user 65537") as caught:
        ids.require(65537, 0)
    assert caught.value.code == "unmapped-id" and "/etc/subuid" in (caught.value.hint or "")
    with pytest.raises(SandboxError, match="group 70000"):
        ids.require(0, 0, 70000)
    with pytest.raises(SandboxError):
        ids.outside(65537)


def test_a_single_id_says_how_to_get_more() -> None:
    ids = IdMap(plan(1000, ()), plan(1000, ()), single=True)
    with pytest.raises(SandboxError) as caught:
        ids.require(1, 0)
    assert "--add-subuids" in (caught.value.hint or "")


def test_the_machines_own_ids() -> None:
    ids = IdMap(((0, 0, 0xFFFFFFFF),), ((0, 0, 0xFFFFFFFF),))
    assert ids.initial
    ids.require(4_000_000_000, 4_000_000_000)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    values: dict[str, str] = {}
    monkeypatch.setattr(userns, "sysctl", lambda name: values.get(name, ""))
    yield values


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("user.max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("kernel.unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ],
)
def test_refusal_names_the_setting_and_the_line(settings: dict[str, str], name: str, value: str, fix: str) -> None:
    settings[name] = value
    error = refusal(PermissionError(errno.EPERM, "Operation not permitted"))
    assert error.code == "no-userns" and name in error.message
    assert error.hint == f"sudo sysctl -w {fix}"


def test_refusal_without_a_setting(settings: dict[str, str]) -> None:
    assert "threads" in refusal(OSError(errno.EINVAL, "Invalid argument")).message
    assert "max_user_namespaces" in (refusal(OSError(errno.ENOSPC, "No space")).hint or "")
    assert "seccomp=unconfined" in (refusal(PermissionError(errno.EPERM, "Operation not permitted")).hint or "")


def test_current_is_read_from_the_kernel() -> None:
    ids = userns.current()
    assert ids.uids[0][0] == 0 and ids is userns.current()
