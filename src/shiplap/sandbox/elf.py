"""The smallest program there is, for every processor: exits with a status. For trying a sandbox or an emulator out.

Each is a file header, one segment and three to five instructions, put together here by hand: no toolchain, no files.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import msgspec

_BASE = 0x400000
_ALIGN = 0x10000
"""The largest page of any of them (ppc64le, loong64)."""


class Processor(msgspec.Struct, frozen=True):
    """What an ELF file says of the processor it is for, and what qemu calls that."""

    number: int
    """e_machine of elf.h."""
    wide: bool
    big: bool
    qemu: str
    flags: int
    text: Callable[[int], bytes]
    """Instructions that exit with the number of arguments (argc, on top of the stack) plus an immediate of 0..255."""

    def identity(self) -> bytes:
        """The first 20 bytes of its executables: up to e_type (ET_EXEC) and e_machine."""
        kinds = struct.pack(">HH" if self.big else "<HH", 2, self.number)
        return b"\x7fELF" + bytes((1 + self.wide, 1 + self.big, 1)) + bytes(9) + kinds

    def mask(self) -> bytes:
        """Bits of ``identity`` that count: not the system (Linux or none), not its version, and ET_DYN is as good."""
        kinds = b"\xff\xfe" if self.big else b"\xfe\xff"
        return b"\xff" * 7 + b"\0\0" + b"\xff" * 7 + kinds + b"\xff\xff"


def _words(order: str, *words: int) -> bytes:
    return struct.pack(f"{order}{len(words)}I", *words)


PROCESSORS = {
    # mov edi, [rsp]; add edi, n; mov eax, 60 (exit); syscall
    "amd64": Processor(
        *(62, True, False, "x86_64", 0),
        lambda n: b"\x8b\x3c\x24\x81\xc7" + struct.pack("<I", n) + b"\xb8\x3c\0\0\0\x0f\x05",
    ),
    # mov ebx, [esp]; add ebx, n; mov eax, 1 (exit); int 0x80
    "386": Processor(
        *(3, False, False, "i386", 0),
        lambda n: b"\x8b\x1c\x24\x81\xc3" + struct.pack("<I", n) + b"\xb8\1\0\0\0\xcd\x80",
    ),
    # ldr x0, [sp]; add x0, x0, n; mov x8, 93 (exit); svc 0
    "arm64": Processor(
        *(183, True, False, "aarch64", 0),
        lambda n: _words("<", 0xF94003E0, 0x91000000 | n << 10, 0xD2800BA8, 0xD4000001),
    ),
    # ldr r0, [sp]; add r0, r0, n; mov r7, 1 (exit); svc 0
    "arm": Processor(
        *(40, False, False, "arm", 0x05000000),  # EABI version 5
        lambda n: _words("<", 0xE59D0000, 0xE2800000 | n, 0xE3A07001, 0xEF000000),
    ),
    # ld a0, 0(sp); addi a0, a0, n; li a7, 93 (exit); ecall
    "riscv64": Processor(
        *(243, True, False, "riscv64", 0),
        lambda n: _words("<", 0x00013503, 0x00050513 | n << 20, 0x05D00893, 0x00000073),
    ),
    # ld r3, 0(r1); addi r3, r3, n; li r0, 1 (exit); sc
    "ppc64le": Processor(
        *(21, True, False, "ppc64le", 2),  # ELFv2: the entry is code, not a descriptor
        lambda n: _words("<", 0xE8610000, 0x38630000 | n, 0x38000001, 0x44000002),
    ),
    # lg r2, 0(r15); aghi r2, n; svc 1 (exit)
    "s390x": Processor(
        *(22, True, True, "s390x", 0),
        lambda n: b"\xe3\x20\xf0\0\0\x04\xa7\x2b" + struct.pack(">H", n) + b"\x0a\x01",
    ),
    # ld a0, 0(sp); daddiu a0, a0, n; li v0, 5058 (exit); syscall
    "mips64le": Processor(
        *(8, True, False, "mips64el", 0x80000000),  # MIPS64 release 2
        lambda n: _words("<", 0xDFA40000, 0x64840000 | n, 0x340213C2, 0x0000000C),
    ),
    "mips64": Processor(
        *(8, True, True, "mips64", 0x80000000),
        lambda n: _words(">", 0xDFA40000, 0x64840000 | n, 0x340213C2, 0x0000000C),
    ),
    # ld.d a0, sp, 0; addi.d a0, a0, n; li a7, 93 (exit); syscall 0
    "loong64": Processor(
        *(258, True, False, "loongarch64", 0x43),  # double floats, objects version 1
        lambda n: _words("<", 0x28C00064, 0x02C00084 | n << 10, 0x0381740B, 0x002B0000),
    ),
}
"""By the architecture's name in image configurations (Go's)."""


def exiting(architecture: str, status: int) -> bytes:
    """A static executable that exits with ``status`` (0..255), and one more for each argument it is given.

    An emulator that takes argv[0] for an argument, or an argument for argv[0], so shows itself. KeyError if unknown.
    """
    processor = PROCESSORS[architecture]
    order = ">" if processor.big else "<"
    header, segment = (64, 56) if processor.wide else (52, 32)
    start = header + segment
    text = processor.text((status - 1) & 0xFF)
    size = start + len(text)
    tail = (processor.flags, header, segment, 1, 0, 0, 0)
    if processor.wide:
        head = struct.pack(f"{order}IQQQIHHHHHH", 1, _BASE + start, header, 0, *tail)
        load = struct.pack(f"{order}IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, _ALIGN)
    else:
        head = struct.pack(f"{order}IIIIIHHHHHH", 1, _BASE + start, header, 0, *tail)
        load = struct.pack(f"{order}IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, _ALIGN)
    return processor.identity() + head + load + text


def static(data: bytes) -> bool:
    """Whether an executable, of which ``data`` has the headers, is one that needs no interpreter of its own (PT_INTERP)."""
    if data[:4] != b"\x7fELF" or len(data) < 64:
        return False
    wide, order = data[4] == 2, ">" if data[5] == 2 else "<"
    (offset,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", data, 32 if wide else 28)
    size, count = struct.unpack_from(f"{order}HH", data, 54 if wide else 42)
    places = range(offset, min(offset + size * count, len(data) - 3), size or 1)
    return count > 0 and all(struct.unpack_from(f"{order}I", data, at)[0] != 3 for at in places)
