"""Credentials by our rules and by the kernel's, side by side."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random

import pytest

from shiplap.sandbox import identity
from shiplap.sandbox.identity import Denied, changed, executed, may_give, root, with_groups

CALLS = {
    "setuid": 1,
    "setreuid": 2,
    "setresuid": 3,
    "setfsuid": 1,
    "setgid": 1,
    "setregid": 2,
    "setresgid": 3,
    "setfsgid": 1,
}
IDS = (0, 1, 2, 1000, 0xFFFFFFFF)


def walk(seed: int) -> list[tuple[str, tuple[int, ...]]]:
    chosen = random.Random(seed)
    return [
        (name, tuple(chosen.choice(IDS) for _ in range(CALLS[name])))
        for name in (chosen.choice(tuple(CALLS)) for _ in range(12))
    ]


def by_kernel(calls: list[tuple[str, tuple[int, ...]]]) -> list[object]:
    """After each call: errno (or what setfsuid returned), users, groups. In a process of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        seen: list[object] = []
        try:
            os.setgroups([])
            for name, arguments in calls:
                result = getattr(libc, name)(*(ctypes.c_uint32(number) for number in arguments))
                number = ctypes.get_errno() if result == -1 and "fs" not in name else 0
                with open("/proc/thread-self/status") as status:
                    rows = {
                        line.split()[0]: [int(word) for word in line.split()[1:]]
                        for line in status
                        if line[1:3] == "id"
                    }
                seen.append([number, result if "fs" in name else 0, rows["Uid:"], rows["Gid:"]])
        finally:
            os.write(write, json.dumps(seen).encode())
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    found: list[object] = json.loads(text)
    return found


def by_rule(calls: list[tuple[str, tuple[int, ...]]]) -> list[object]:
    who = root(())
    seen: list[object] = []
    for name, arguments in calls:
        number, before = 0, who
        try:
            who = changed(who, name, arguments)
        except Denied as error:
            number = error.number
        files = before["gid" in name][identity.FILES] if "fs" in name else 0
        seen.append([number, files, list(who[0]), list(who[1])])
    return seen


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
@pytest.mark.parametrize("seed", range(40))
def test_same_as_the_kernel(seed: int) -> None:
    calls = walk(seed)
    assert by_rule(calls) == by_kernel(calls), calls


def test_who_gave_up_root_stays_so() -> None:
    """What apt checks after it became _apt."""
    who = changed(changed(root((0,)), "setresgid", (65534,) * 3), "setresuid", (42,) * 3)
    for call in ("setuid", "setgid"):
        with pytest.raises(Denied) as caught:
            changed(who, call, (0,))
        assert caught.value.number == errno.EPERM
    with pytest.raises(Denied):
        with_groups(who, (0,))


def test_a_setuid_program_makes_root() -> None:
    who = changed(root((1000,)), "setresuid", (1000,) * 3)
    assert executed(who, None, None) == who
    assert executed(who, 0, None)[0] == (1000, 0, 0, 0)
    assert changed(executed(who, 0, None), "setuid", (0,))[0] == (0, 0, 0, 0)


def test_who_may_give_files_away() -> None:
    who = changed(changed(root((1000, 50)), "setresgid", (1000,) * 3), "setresuid", (1000,) * 3)
    assert may_give(root(()), (7, 7), 8, 8)
    assert may_give(who, (1000, 1000), 1000, 50) and may_give(who, (1000, 1000), None, 1000)
    assert not may_give(who, (1000, 1000), 0, None)
    assert not may_give(who, (1000, 1000), None, 51)
    assert not may_give(who, (0, 1000), None, 1000)
