"""Build contexts from a list, since git keeps neither modes, owners, links, FIFOs nor empty directories.

A line of ``context.txt`` is a kind, a path, and what the kind needs; texts are JSON strings:

    dir PATH [MODE]            file PATH [MODE] ["TEXT"]      link PATH TARGET       hard PATH EXISTING
    fifo PATH [MODE]           node PATH c|b MAJOR:MINOR      sock PATH              big PATH BYTES
    own PATH UID:GID           time PATH SECONDS              xattr PATH NAME "VALUE"
    tar PATH [gz|bz2|xz|zst]   followed by indented lines of the same form: its members, with their owners and times
    cut PATH BYTES             keep the first bytes only

Every time is 1000000000 unless set; parents appear as 0755.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import socket
import stat
import tarfile
from pathlib import Path

TIME = 1_000_000_000
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')


def _words(line: str) -> list[str]:
    return [json.loads(word) if word.startswith('"') else word for word in _WORD.findall(line)]


def make_context(text: str, root: Path) -> None:
    """Make in the directory ``root`` what ``text`` lists. Owners and devices need root."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    times: dict[Path, int] = {}
    while lines:
        words = _words(lines.pop(0))
        kind, path, rest = words[0], root / words[1], words[2:]
        if kind not in ("own", "xattr"):
            _make_parents(path.parent, root)
        if kind == "tar":
            members = []
            while lines and lines[0].startswith(" "):
                members.append(lines.pop(0))
            path.write_bytes(_archive(members, rest[0] if rest else ""))
            path.chmod(0o644)
        else:
            _make(kind, path, rest, root, times)
    for directory, _, _ in os.walk(root, topdown=False):
        for name in os.listdir(directory):
            here = Path(directory) / name
            os.utime(here, (TIME, times.get(here, TIME)), follow_symlinks=False)
    os.utime(root, (TIME, TIME))


def _make_parents(path: Path, root: Path) -> None:
    if path != root and not path.is_dir():
        _make_parents(path.parent, root)
        path.mkdir()
        path.chmod(0o755)


def _make(kind: str, path: Path, rest: list[str], root: Path, times: dict[Path, int]) -> None:
    mode = int(rest[0], 8) if rest and re.fullmatch(r"[0-7]{3,4}", rest[0]) else None
    match kind:
        case "dir":
            path.mkdir(exist_ok=True)
            path.chmod(0o755 if mode is None else mode)
        case "file":
            path.write_text(
                (rest[1:] if mode is not None else rest or [""])[0] if len(rest) > (mode is not None) else ""
            )
            path.chmod(0o644 if mode is None else mode)
        case "big":
            path.write_bytes(b"\0" * int(rest[0]))
            path.chmod(0o644)
        case "link":
            path.symlink_to(rest[0])
        case "hard":
            path.hardlink_to(root / rest[0])
        case "fifo":
            os.mkfifo(path)
            path.chmod(0o644 if mode is None else mode)
        case "node":
            major, _, minor = rest[1].partition(":")
            device = stat.S_IFCHR if rest[0] == "c" else stat.S_IFBLK
            os.mknod(path, device | 0o644, os.makedev(int(major), int(minor)))
            path.chmod(0o644)
        case "sock":
            here = os.open(path.parent, os.O_RDONLY)  # a socket's address is short: name it by its directory
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(f"/proc/self/fd/{here}/{path.name}")
            os.close(here)
            path.chmod(0o755)
        case "own":
            uid, _, gid = rest[0].partition(":")
            permissions = path.lstat().st_mode
            os.lchown(path, int(uid), int(gid))
            if not stat.S_ISLNK(permissions):
                path.chmod(stat.S_IMODE(permissions))  # chown takes setuid away
        case "time":
            times[path] = int(rest[0])
        case "xattr":
            os.setxattr(path, rest[0], rest[1].encode("latin-1"), follow_symlinks=False)
        case "cut":
            path.write_bytes(path.read_bytes()[: int(rest[0])])
        case _:
            raise ValueError(f"context.txt: unknown kind {kind}")


def _archive(lines: list[str], compression: str) -> bytes:
    members: dict[str, tarfile.TarInfo] = {}
    data: dict[str, bytes] = {}
    for line in lines:
        kind, path, *rest = _words(line)
        if kind in ("own", "time", "xattr"):
            member = members[path]
            if kind == "own":
                member.uid, member.gid = map(int, rest[0].split(":"))
            elif kind == "time":
                member.mtime = int(rest[0])
            else:
                member.pax_headers = {**member.pax_headers, f"SCHILY.xattr.{rest[0]}": rest[1]}
            continue
        member = members[path] = tarfile.TarInfo(path)
        member.mtime = TIME
        member.mode = 0o755 if kind == "dir" else 0o644
        if rest and re.fullmatch(r"[0-7]{3,4}", rest[0]):
            member.mode = int(rest.pop(0), 8)
        types = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}
        member.type = types.get(kind, tarfile.REGTYPE)
        if kind in ("link", "hard"):
            member.linkname = rest[0]
        elif kind == "file":
            data[path] = (rest[0] if rest else "").encode()
            member.size = len(data[path])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, member in members.items():
            archive.addfile(member, io.BytesIO(data.get(path, b"")))
    return _compress(out.getvalue(), compression)


def _compress(data: bytes, how: str) -> bytes:
    if how == "zst":
        try:
            from compression import zstd  # type: ignore[import-not-found]
        except ImportError:
            from backports import zstd
        return bytes(zstd.compress(data))
    if how == "gz":
        return gzip.compress(data, mtime=0)
    return bz2.compress(data) if how == "bz2" else lzma.compress(data) if how == "xz" else data
