"""Turns the profile into a BPF program, without libseccomp.

A program is a list of labels and instructions; ``assemble`` resolves the labels. Numbers are found by a binary search
over ranges with one answer, some seven comparisons deep (and Linux 5.11 remembers the answers that need no argument).
Two answers differ from a plain profile, both as runc gives them: a call newer than every name of the profile is ENOSYS,
so that libc falls back to what it knows, and so is clone3, whose flags lie in memory where a filter cannot read.
"""

from __future__ import annotations

from shiplap.sandbox import profile
from shiplap.sandbox.syscalls import table

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _JUMP, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06, 0x54
_OFFSET_NUMBER, _OFFSET_MACHINE = 0, 4
_OFFSET_ARGUMENT = 16
"""Low half of the first argument (little-endian). The kernel reads only that half of a family, a persona or clone's
namespace flags, so a filter that looked at all 64 bits could be fooled by the high ones."""

ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
REFUSE, MISSING = _ERRNO | 1, _ERRNO | 38
HEARD = 0x7FC00000
"""SECCOMP_RET_USER_NOTIF: whoever holds the listener answers (Linux 5.0)."""
DONE = _ERRNO
"""The call does nothing and succeeds."""

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


def listens(machine: str) -> bool:
    """Whether this kernel can have calls of ``machine`` heard and answered by another process (Linux 5.0)."""
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail") as table:
            return supported(machine) and "user_notif" in table.read().split()
    except OSError:
        return False


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


OWNER_CALLS = """
chown lchown fchown fchownat stat lstat fstat newfstatat statx mkdir mkdirat symlink symlinkat mknod mknodat
open openat openat2 creat execve execveat getuid geteuid getgid getegid getresuid getresgid getgroups
setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups getrlimit setrlimit prlimit64
"""
"""What is heard where only one user id exists: all that gives files away, shows or takes their owner, or changes who a
process is."""
_CREATING = {"open": 1, "openat": 2}
"""Heard only if the flags, in this argument, may make a file: O_CREAT, or __O_TMPFILE."""
_MAY_CREATE = 0o20000100
_LIMITING = {"getrlimit": 0, "setrlimit": 0, "prlimit64": 1}
"""Heard only if it is about this limit (RLIMIT_LOCKS), in which the supervisor keeps who a process is."""
_LOCKS = 10
_NODES = {"mknod": 1, "mknodat": 2}
_KIND, _CHARACTER, _BLOCK = 0o170000, 0o020000, 0o060000
_SILENT = """
chown lchown fchown fchownat chown32 lchown32 fchown32 setuid setgid setreuid setregid setresuid setresgid setgroups
setuid32 setgid32 setreuid32 setregid32 setresuid32 setresgid32 setgroups32
"""
"""In a 32-bit process these succeed and do nothing, as with Charliecloud: its structures are not worth knowing."""


def listening_filter(machine: str, owners: bool) -> bytes:
    """The program that has a keeper hear what a user namespace refuses: device nodes and, with ``owners``, whatever has
    to do with users other than root. It comes before the default filter, whose refusals win. KeyError if unsupported.
    """
    lines: list[Line] = [(_LOAD, _OFFSET_MACHINE, "", "")]
    lines += [(_EQUAL, number, f"{name}:", "") for number, name in MACHINES[machine]]
    lines.append((_RETURN, ALLOW, "", ""))
    (_, native), (_, small) = MACHINES[machine]
    numbers = table(native)
    heard = [name for name in (OWNER_CALLS.split() if owners else _NODES) if name in numbers]
    by_argument = {**_CREATING, **_LIMITING} if owners else _NODES
    answers = {numbers[name]: name if name in by_argument else "heard" for name in heard}
    lines += [f"{native}:", (_LOAD, _OFFSET_NUMBER, "", ""), *_search(_runs(answers, "allow"), native)]
    other = {table(small)[name]: "done" for name in _SILENT.split() if owners and name in table(small)}
    lines += [f"{small}:", (_LOAD, _OFFSET_NUMBER, "", ""), *_search(_runs(other, "allow"), small)]
    for name in heard:
        if name not in by_argument:
            continue
        lines += [name, (_LOAD, _OFFSET_ARGUMENT + 8 * by_argument[name], "", "")]
        if name in _CREATING:
            lines.append((_ANY_BIT, _MAY_CREATE, "heard", ""))
        elif name in _LIMITING:
            lines.append((_EQUAL, _LOCKS, "heard", ""))
        else:
            lines += [(_AND, _KIND, "", ""), (_EQUAL, _CHARACTER, "heard", ""), (_EQUAL, _BLOCK, "heard", "")]
        lines.append((_JUMP, 0, "allow", ""))
    for label, answer in (("allow", ALLOW), ("heard", HEARD), ("done", DONE)):
        lines += [label, (_RETURN, answer, "", "")]
    return assemble(lines)


def _runs(answers: dict[int, str], default: str) -> list[tuple[int, str]]:
    """As ``_ranges``: first number and label of each run of calls with one answer."""
    runs = [(0, answers.get(0, default))]
    for number in sorted({n + step for n in answers for step in (0, 1)}):
        label = answers.get(number, default)
        if label != runs[-1][1]:
            runs.append((number, label))
    return runs


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
