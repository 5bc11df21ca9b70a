"""Turns the profile into a BPF program, without libseccomp.

A program is a list of labels and instructions; ``assemble`` resolves the labels. Numbers are found by a binary search
over ranges with one answer, some seven comparisons deep (and Linux 5.11 remembers the answers that need no argument).
Two answers differ from a plain profile, both as runc gives them: a call newer than every name of the profile is ENOSYS,
so that libc falls back to what it knows, and so is clone3, whose flags lie in memory where a filter cannot read.
"""

from __future__ import annotations

from shiplap.sandbox import profile
from shiplap.sandbox.syscalls import table

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
_OFFSET_NUMBER, _OFFSET_MACHINE = 0, 4
_OFFSET_ARGUMENT = 16
"""Low half of the first argument (little-endian). The kernel reads only that half of a family, a persona or clone's
namespace flags, so a filter that looked at all 64 bits could be fooled by the high ones."""

ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
REFUSE, MISSING = _ERRNO | 1, _ERRNO | 38

MACHINES = {
    "x86_64": ((0xC000003E, "x86_64"), (0x40000003, "i386")),
    "aarch64": ((0xC00000B7, "aarch64"), (0x40000028, "arm")),
}
"""Native machine to the AUDIT_ARCH numbers (linux/audit.h) its processes may call with, and their tables."""

_X32 = 0x40000000

Instruction = tuple[int, int, str, str]
"""Code, operand, label if true (also the target of a jump), label if false. An empty label is the next instruction."""
Line = str | Instruction


def supported(machine: str) -> bool:
    """Whether there is a table for ``machine`` (as uname -m gives it)."""
    return machine in MACHINES


def default_filter(machine: str) -> bytes:
    """The program of the default profile on ``machine``, 8 bytes an instruction. Raises KeyError if unsupported."""
    lines: list[Line] = [(_LOAD, _OFFSET_MACHINE, "", "")]
    lines += [(_EQUAL, number, f"{name}:", "") for number, name in MACHINES[machine]]
    lines.append((_RETURN, REFUSE, "", ""))
    allowed = profile.names(machine)
    for _, name in MACHINES[machine]:
        lines += [f"{name}:", (_LOAD, _OFFSET_NUMBER, "", "")]
        lines += _search(_ranges(table(name), allowed, x32=name == "x86_64"), name)
    lines += _by_argument()
    for label, answer in (("allow", ALLOW), ("refuse", REFUSE), ("missing", MISSING)):
        lines += [label, (_RETURN, answer, "", "")]
    return assemble(lines)


def _ranges(numbers: dict[str, int], allowed: list[str], *, x32: bool) -> list[tuple[int, str]]:
    """First number and label of each run of calls with one answer, ascending from 0."""
    answers = {numbers[name]: "allow" for name in allowed if name in numbers}
    for name in ("socket", "personality", "clone"):
        answers[numbers[name]] = name
    answers[numbers["clone3"]] = "missing"
    newest = max(number for number in numbers.values() if number < 0xF0000)  # arm's private calls stand apart
    ranges = [(0, answers.get(0, "refuse"))]
    for number in sorted({n + step for n in answers for step in (0, 1)} | {newest + 1}):
        label = answers.get(number, "refuse" if number <= newest else "missing")
        if label != ranges[-1][1]:
            ranges.append((number, label))
    if x32:
        ranges.append((_X32, "refuse"))
    return ranges


def _search(ranges: list[tuple[int, str]], prefix: str) -> list[Line]:
    if len(ranges) == 1:
        return [(_JUMP, 0, ranges[0][1], "")]
    middle = len(ranges) // 2
    start = ranges[middle][0]
    upper = f"{prefix}>={start}"
    return [
        (_AT_LEAST, start, upper, ""),
        *_search(ranges[:middle], prefix),
        upper,
        *_search(ranges[middle:], prefix),
    ]


def _by_argument() -> list[Line]:
    load: Instruction = (_LOAD, _OFFSET_ARGUMENT, "", "")
    end: Instruction = (_JUMP, 0, "allow", "")
    refuse: Instruction = (_JUMP, 0, "refuse", "")
    return [
        "socket",
        load,
        *((_EQUAL, family, "refuse", "") for family in profile.FAMILIES_REFUSED),
        end,
        "personality",
        load,
        *((_EQUAL, value, "allow", "") for value in profile.PERSONALITIES),
        refuse,
        "clone",
        load,
        (_ANY_BIT, profile.NAMESPACE_FLAGS, "refuse", ""),
        end,
    ]


def assemble(lines: list[Line]) -> bytes:
    """Instructions with their labels resolved. A conditional jump reaches 255 instructions: one to a label further off
    jumps over a plain jump instead. Raises KeyError for an unknown label, ValueError for a backward jump."""
    far: set[int] = set()
    while True:
        places, sizes = _layout(lines, far)
        grown = {
            index
            for index, line in enumerate(lines)
            if isinstance(line, tuple)
            and line[0] in (_EQUAL, _AT_LEAST, _ANY_BIT)
            and index not in far
            and any(label and places[label] - sizes[index] - 1 > 255 for label in line[2:])
        }
        if not grown:
            break
        far |= grown
    out = bytearray()
    for index, line in enumerate(lines):
        if isinstance(line, tuple):
            out += _encode(line, sizes[index], places, index in far)
    return bytes(out)


def _layout(lines: list[Line], far: set[int]) -> tuple[dict[str, int], list[int]]:
    places: dict[str, int] = {}
    sizes: list[int] = []
    at = 0
    for index, line in enumerate(lines):
        sizes.append(at)
        if isinstance(line, str):
            places[line] = at
        else:
            at += 3 if index in far else 1
    return places, sizes


def _encode(line: Instruction, at: int, places: dict[str, int], far: bool) -> bytes:
    code, operand, yes, no = line

    def distance(label: str, origin: int) -> int:
        gap = places[label] - origin - 1 if label else 0
        if gap < 0:
            raise ValueError(f"backward jump to {label}")
        return gap

    if code == _JUMP:
        return _pack(code, 0, 0, distance(yes, at))
    if code not in (_EQUAL, _AT_LEAST, _ANY_BIT):
        return _pack(code, 0, 0, operand)
    if not far:
        return _pack(code, distance(yes, at), distance(no, at), operand)
    jumps = [_pack(_JUMP, 0, 0, distance(label, at + 1 + n) if label else 1 - n) for n, label in enumerate((yes, no))]
    return _pack(code, 0, 1, operand) + jumps[0] + jumps[1]


def _pack(code: int, yes: int, no: int, operand: int) -> bytes:
    return code.to_bytes(2, "little") + bytes((yes, no)) + operand.to_bytes(4, "little")
