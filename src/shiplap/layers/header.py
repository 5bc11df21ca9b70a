"""Tar headers: POSIX ustar with PAX extended headers where ustar has no room (POSIX.1-2001, pax).

Written as Go's ``archive/tar`` writes them with ``FormatPAX``, since diff ids are digests of these bytes: numeric owners
only, whole seconds, a PAX record for each name that is longer than 100 bytes or not ASCII. Read from untrusted input:
every size is bounded.
"""

from __future__ import annotations

import posixpath
from zlib import adler32

import msgspec

from shiplap.errors import ImageError

BLOCK = 512
END = bytes(2 * BLOCK)

REGULAR, HARDLINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
PAX, PAX_GLOBAL, GNU_LONGNAME, GNU_LONGLINK, GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
XATTR = "SCHILY.xattr."

_OCTAL7 = 0o7777777
_OCTAL11 = 0o77777777777
_NO_LINK, _NO_NAMES, _NO_PREFIX = bytes(100), bytes(64), bytes(167)


class Header(msgspec.Struct, gc=False):
    """One member. ``kind`` is the type flag; ``size`` in bytes; ``mtime`` in whole seconds; ``pax`` holds further records."""

    name: str
    kind: bytes = REGULAR
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: str = ""
    major: int = 0
    minor: int = 0
    pax: dict[str, bytes] = {}


def encode_header(header: Header) -> bytes:
    """The blocks of ``header``: a PAX header first, if one is needed, then the ustar block."""
    name, link = _raw(header.name), _raw(header.link)
    records: dict[bytes, bytes] = {}
    if header.pax:
        records = {key.encode(): value for key, value in header.pax.items()}
    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if link and (len(link) > 100 or not link.isascii()):
        records[b"linkpath"] = link
    if not 0 <= header.uid <= _OCTAL7:
        records[b"uid"] = str(header.uid).encode()
    if not 0 <= header.gid <= _OCTAL7:
        records[b"gid"] = str(header.gid).encode()
    if not 0 <= header.size <= _OCTAL11:
        records[b"size"] = str(header.size).encode()
    if not 0 <= header.mtime <= _OCTAL11:
        records[b"mtime"] = str(header.mtime).encode()
    block = _block(name, link, header)
    if not records:
        return block
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    directory, base = posixpath.split(header.name.rstrip("/") if header.kind != DIRECTORY else header.name)
    pax_name = _raw(posixpath.join(directory, "PaxHeaders.0", base))
    pax_name = bytes(byte for byte in pax_name if byte < 0x80)[:100].rstrip(b"/")
    return _block(pax_name, b"", Header("", PAX, size=len(body))) + body + padding(len(body)) + block


def padding(size: int) -> bytes:
    """Zero bytes that fill ``size`` up to whole blocks."""
    return bytes(-size % BLOCK)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _ascii(text: bytes, size: int) -> bytes:
    if not text.isascii():
        text = text.decode("utf-8", "surrogateescape").encode("ascii", "ignore")
    if len(text) > size:
        cut = text[:size]
        # Go: a name cut just behind a slash loses it, lest old readers take a file for a directory.
        text = cut.rstrip(b"/") if cut.endswith(b"/") else cut
    return text.ljust(size, b"\0")


def _block(name: bytes, link: bytes, header: Header) -> bytes:
    # A number that does not fit is written as zero here: its PAX record holds the truth (Go does the same).
    block = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\x0000%b%07o\0%07o\0%b" % (
        _ascii(name, 100),
        header.mode if 0 <= header.mode <= _OCTAL7 else 0,
        header.uid if 0 <= header.uid <= _OCTAL7 else 0,
        header.gid if 0 <= header.gid <= _OCTAL7 else 0,
        header.size if 0 <= header.size <= _OCTAL11 else 0,
        header.mtime if 0 <= header.mtime <= _OCTAL11 else 0,
        header.kind,
        _ascii(link, 100) if link else _NO_LINK,
        _NO_NAMES,
        header.major if 0 <= header.major <= _OCTAL7 else 0,
        header.minor if 0 <= header.minor <= _OCTAL7 else 0,
        _NO_PREFIX,
    )
    return b"%b%06o\0 %b" % (block[:148], checksum(block), block[156:])


def checksum(block: bytes) -> int:
    """The sum of a block's 512 bytes: a tenth of the time of ``sum``. Adler-32's low half is 1 plus the sum of all bytes modulo
    65521 (RFC 1950), and 256 bytes are 65280 at most."""
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2


def _record(key: bytes, value: bytes) -> bytes:
    # "<length> <key>=<value>\n", where the length counts its own digits too.
    length = len(key) + len(value) + 3
    size = length + len(str(length))
    if len(str(size)) != len(str(length)):
        size = length + len(str(size))
    return b"%d %b=%b\n" % (size, key, value)


def decode_block(block: bytes) -> Header:
    """Read one header block. Raises ImageError for a bad checksum or field."""
    if number(block[148:156]) != checksum(b"%b        %b" % (block[:148], block[156:])):
        raise ImageError("tar header has a wrong checksum", code="invalid-tar")
    name = _text(block[0:100])
    if block[257:263] == b"ustar\0" and block[345] and block[156:157] not in (PAX, PAX_GLOBAL):
        name = f"{_text(block[345:500])}/{name}"
    return Header(
        name,
        block[156:157],
        number(block[100:108]) & 0o7777,
        number(block[108:116]),
        number(block[116:124]),
        number(block[124:136]),
        number(block[136:148], signed=True),
        _text(block[157:257]),
        number(block[329:337]) if block[257:262] == b"ustar" else 0,
        number(block[337:345]) if block[257:262] == b"ustar" else 0,
        {},
    )


def decode_records(body: bytes) -> dict[str, bytes]:
    """The records of a PAX extended header."""
    records: dict[str, bytes] = {}
    parts: list[bytes] = []
    position = 0
    while position < len(body):
        space = body.find(b" ", position, position + 12)
        try:
            length = int(body[position:space]) if space > 0 else 0
        except ValueError:
            length = 0
        end = position + length
        equals = body.find(b"=", space, end)
        if length <= 0 or end > len(body) or equals < 0 or body[end - 1 : end] != b"\n":
            raise ImageError("tar has a malformed PAX record", code="invalid-tar")
        key, value = body[space + 1 : equals].decode("utf-8", "surrogateescape"), body[equals + 1 : end - 1]
        if key in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            # The one record that may be repeated (sparse files, form 0.0): joined, it is the map of form 0.1.
            parts.append(value)
        else:
            records[key] = value
        position = end
    if parts:
        records["GNU.sparse.map"] = b",".join(parts)
    return records


def apply_records(header: Header, records: dict[str, bytes]) -> None:
    """Let PAX records overrule the fields of ``header``."""
    for key, value in records.items():
        if key == "path":
            header.name = value.decode("utf-8", "surrogateescape")
        elif key == "linkpath":
            header.link = value.decode("utf-8", "surrogateescape")
        elif key in ("uid", "gid", "size", "mtime"):
            setattr(header, key, decimal(key, value))
    if any(key.startswith(XATTR) for key in records):
        header.pax = {key: value for key, value in records.items() if key.startswith(XATTR)}


def decimal(key: str, value: bytes) -> int:
    """The value of a PAX record; of times, the whole seconds."""
    text = value.decode("ascii", "replace")
    whole, _, fraction = text.partition(".")
    digits = whole.removeprefix("-")
    if len(text) > 40 or not digits.isdigit() or (fraction and not (key == "mtime" and fraction.isdigit())):
        raise ImageError(f"tar has a malformed PAX {key}: {text[:40]!r}", code="invalid-tar")
    number = int(whole)
    if number < 0 and key != "mtime":
        raise ImageError(f"tar has a negative {key}", code="invalid-tar")
    if whole.startswith("-") and fraction.strip("0"):
        number -= 1  # times round down
    return number


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def number(field: bytes, signed: bool = False) -> int:
    """A numeric field: octal digits, or base 256 as GNU tar writes what is larger."""
    if field[0] & 0x80:  # GNU base-256
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if (value < 0 and not signed) or abs(value) >= 1 << 63:
            raise ImageError("tar header has a number out of range", code="invalid-tar")
        return value
    text = field.strip(b" \0")
    if not text:
        return 0
    try:
        return int(text.partition(b"\0")[0].strip(), 8)
    except ValueError:
        raise ImageError(f"tar header has a malformed number: {text[:16]!r}", code="invalid-tar") from None
