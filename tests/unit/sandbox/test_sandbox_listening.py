"""Which calls a keeper hears, by running the filter over every call."""

from __future__ import annotations

import pytest

from shiplap.sandbox import seccomp
from shiplap.sandbox.seccomp import ALLOW, DONE, HEARD
from shiplap.sandbox.syscalls import table

ARCHES = {"x86_64": (0xC000003E, "i386", 0x40000003), "aarch64": (0xC00000B7, "arm", 0x40000028)}


def execute(program: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What a classic BPF ``program`` returns for a call (seccomp(2), struct seccomp_data)."""
    data = number.to_bytes(4, "little") + arch.to_bytes(4, "little") + bytes(8)
    data += b"".join(word.to_bytes(8, "little") for word in (*arguments, *(0,) * (6 - len(arguments))))
    code = [program[at : at + 8] for at in range(0, len(program), 8)]
    at = value = 0
    for _ in range(4096):
        operation, yes, no = int.from_bytes(code[at][:2], "little"), code[at][2], code[at][3]
        operand = int.from_bytes(code[at][4:], "little")
        at += 1
        if operation == 0x20:
            value = int.from_bytes(data[operand : operand + 4], "little")
        elif operation == 0x54:
            value &= operand
        elif operation == 0x06:
            return operand
        elif operation == 0x05:
            at += operand
        else:
            at += yes if {0x15: value == operand, 0x35: value >= operand, 0x45: value & operand != 0}[operation] else no
    raise AssertionError("the program does not end")


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("owners", [True, False])
def test_every_other_call_is_none_of_its_business(machine: str, owners: bool) -> None:
    program = seccomp.listening_filter(machine, owners)
    arch, small, small_arch = ARCHES[machine]
    heard = seccomp.OWNER_CALLS.split() if owners else []
    for name, number in table(machine).items():
        if name in ("open", "openat", "mknod", "mknodat", "getrlimit", "setrlimit", "prlimit64"):
            continue
        assert execute(program, arch, number) == (HEARD if name in heard else ALLOW), name
    for name, number in table(small).items():
        assert execute(program, small_arch, number) in ((ALLOW, DONE) if owners else (ALLOW,)), name
    assert execute(program, arch, 9999) == ALLOW
    assert execute(program, 0x12345, 0) == ALLOW, "the default filter refuses a machine it does not know"


@pytest.mark.parametrize("machine", ARCHES)
def test_arguments(machine: str) -> None:
    arch, small, small_arch = ARCHES[machine]
    numbers = table(machine)
    owners, nodes = seccomp.listening_filter(machine, True), seccomp.listening_filter(machine, False)
    for flags, expected in ((0, ALLOW), (0o2, ALLOW), (0o101, HEARD), (0o20200002, HEARD), (0o2000000, ALLOW)):
        assert execute(owners, arch, numbers["openat"], (0, 0, flags)) == expected, oct(flags)
        assert execute(nodes, arch, numbers["openat"], (0, 0, flags)) == ALLOW
    for mode, expected in ((0o20666, HEARD), (0o60666, HEARD), (0o10666, ALLOW), (0o666, ALLOW), (0o140666, ALLOW)):
        assert execute(nodes, arch, numbers["mknodat"], (0, 0, mode)) == expected, oct(mode)
        assert execute(owners, arch, numbers["mknodat"], (0, 0, mode)) == HEARD
    for limit, expected in ((10, HEARD), (7, ALLOW)):
        assert execute(owners, arch, numbers["prlimit64"], (0, limit)) == expected
        assert execute(owners, arch, numbers["setrlimit"], (limit,)) == expected
    assert execute(owners, small_arch, table(small)["chown32"]) == DONE
