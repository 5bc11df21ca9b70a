"""The filter as the kernel would run it: a small BPF interpreter over every call of every machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shiplap.sandbox import profile, seccomp
from shiplap.sandbox.seccomp import ALLOW, MISSING, REFUSE, assemble
from shiplap.sandbox.syscalls import table

ARCHES = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
PAIRS = [("x86_64", "x86_64"), ("x86_64", "i386"), ("aarch64", "aarch64"), ("aarch64", "arm")]
BY_ARGUMENT = {"socket", "personality", "clone", "clone3"}


def execute(program: bytes, arch: int, number: int, argument: int = 0) -> int:
    """What a classic BPF ``program`` returns for a call (seccomp(2), struct seccomp_data)."""
    data = number.to_bytes(4, "little") + arch.to_bytes(4, "little") + bytes(8) + argument.to_bytes(8, "little")
    code = [program[at : at + 8] for at in range(0, len(program), 8)]
    at = accumulator = 0
    for _ in range(4096):
        operation, yes, no = int.from_bytes(code[at][:2], "little"), code[at][2], code[at][3]
        operand = int.from_bytes(code[at][4:], "little")
        at += 1
        if operation == 0x20:
            accumulator = int.from_bytes(data[operand : operand + 4], "little")
        elif operation == 0x06:
            return operand
        elif operation == 0x05:
            at += operand
        else:
            test = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
            at += yes if test[operation] else no
    raise AssertionError("the program does not end")


@pytest.fixture(scope="module")
def programs() -> dict[str, bytes]:
    return {machine: seccomp.default_filter(machine) for machine in seccomp.MACHINES}


@pytest.mark.parametrize(("machine", "abi"), PAIRS)
def test_every_number_has_the_answer_of_the_profile(programs: dict[str, bytes], machine: str, abi: str) -> None:
    numbers = table(abi)
    names = {number: name for name, number in numbers.items()}
    allowed = set(profile.names(machine))
    newest = max(number for number in names if number < 0xF0000)
    for number in [*range(newest + 40), *names]:
        name = names.get(number, "")
        if name in BY_ARGUMENT:
            continue
        expected = ALLOW if name in allowed else REFUSE if number <= newest else MISSING
        assert execute(programs[machine], ARCHES[abi], number) == expected, (number, name)


@pytest.mark.parametrize(("machine", "abi"), PAIRS)
def test_arguments(programs: dict[str, bytes], machine: str, abi: str) -> None:
    def answer(name: str, argument: int = 0) -> int:
        return execute(programs[machine], ARCHES[abi], table(abi)[name], argument)

    assert [answer("socket", family) for family in (1, 2, 10, 16, 17, 37, 39, 41, 44)] == [ALLOW] * 9
    assert [answer("socket", family) for family in (38, 40)] == [REFUSE] * 2
    assert answer("socket", 38 | 1 << 32) == REFUSE, "the kernel drops the high half, so it must not decide"
    assert [answer("personality", value) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)] == [ALLOW] * 5
    assert [answer("personality", value) for value in (1, 0x0040000, 0x400000)] == [REFUSE] * 3
    assert answer("clone", 0x01200011) == ALLOW
    assert answer("clone", 0x3D0F00) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer("clone", 0x11 | flag) == REFUSE
    assert answer("clone3") == MISSING


def test_what_breaks_out_is_refused(programs: dict[str, bytes]) -> None:
    for machine, abi in PAIRS:
        numbers = table(abi)
        for name in ("mount", "umount2", "unshare", "setns", "bpf", "open_by_handle_at", "init_module", "syslog"):
            if name in numbers:
                assert execute(programs[machine], ARCHES[abi], numbers[name]) == REFUSE, name
        for number in (165, 272, 321) if abi == "x86_64" else ():  # mount, unshare, bpf by their own numbers
            assert execute(programs[machine], ARCHES[abi], number) == REFUSE


def test_other_ways_to_call_the_kernel_are_closed(programs: dict[str, bytes]) -> None:
    assert execute(programs["x86_64"], ARCHES["x86_64"], 0x40000000) == REFUSE, "x32"
    assert execute(programs["x86_64"], ARCHES["x86_64"], 0x40000000 | 165) == REFUSE
    assert execute(programs["x86_64"], ARCHES["aarch64"], 63) == REFUSE
    assert execute(programs["aarch64"], ARCHES["x86_64"], 0) == REFUSE


@pytest.mark.parametrize(("abi", "header"), [("x86_64", "unistd_64.h"), ("i386", "unistd_32.h")])
def test_numbers_are_the_headers(abi: str, header: str) -> None:
    path = Path("/usr/include/x86_64-linux-gnu/asm", header)
    if not path.exists():
        pytest.skip("no kernel headers for x86 here")
    known = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", path.read_text())}
    ours = table(abi)
    assert len(ours) > 300
    assert {name: number for name, number in ours.items() if name in known and known[name] != number} == {}
    assert {name for name in known if name in profile.ALLOWED.split()} <= set(ours)


def test_a_far_label_is_reached_over_a_plain_jump() -> None:
    filler: list[seccomp.Line] = [(0x20, 0, "", "")] * 300
    lines: list[seccomp.Line] = [
        (0x20, 0, "", ""),
        (0x15, 7, "far", ""),
        (0x06, 1, "", ""),
        *filler,
        "far",
        (0x06, 2, "", ""),
    ]
    program = assemble(lines)
    assert len(program) == 8 * (300 + 4 + 2)
    assert execute(program, 0, 7) == 2
    assert execute(program, 0, 8) == 1


def test_a_jump_backwards_and_an_unknown_label_are_refused() -> None:
    with pytest.raises(ValueError, match="backward"):
        assemble(["start", (0x05, 0, "start", "")])
    with pytest.raises(KeyError):
        assemble([(0x05, 0, "nowhere", "")])


def test_profile_for_a_runtime_says_the_same() -> None:
    document = profile.oci_profile("x86_64")
    assert document["defaultAction"] == "SCMP_ACT_ERRNO"
    assert document["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    rules = document["syscalls"]
    assert isinstance(rules, list)
    assert "openat" in rules[0]["names"] and "mount" not in rules[0]["names"]
    families = [(r["args"][0]["op"], r["args"][0]["value"]) for r in rules if r["names"] == ["socket"]]
    assert families == [("SCMP_CMP_LT", 38), ("SCMP_CMP_EQ", 39), ("SCMP_CMP_GT", 40)]


def test_capability_mask_is_the_list() -> None:
    assert sum(1 << number for number, _ in profile.CAPABILITIES) == profile.CAPABILITY_MASK == 0xA80425FB


def test_only_machines_with_a_table_are_supported() -> None:
    assert seccomp.supported("x86_64") and seccomp.supported("aarch64")
    assert not seccomp.supported("riscv64")
    with pytest.raises(KeyError):
        seccomp.default_filter("riscv64")
