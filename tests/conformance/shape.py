"""What is compared of an image: config, history and layers above the base, as lines that read well in a difference.

Times are told only where they carry meaning, which is where they lie in the past (a context's files, an archive's).
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from typing import Any

RECENT = 1_500_000_000
"""Seconds since 1970: what is later was made by the build itself."""
KINDS = {
    tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link",
    tarfile.LNKTYPE: "hard", tarfile.FIFOTYPE: "fifo", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block",
}  # fmt: skip
Read = Callable[[str], bytes]
"""Gives the blob of a digest."""


def image(read: Read, manifest_digest: str, base: dict[str, Any]) -> dict[str, Any]:
    """The shape of an image; ``base`` is the config of the base image, whose layers and history are left out."""
    manifest = json.loads(read(manifest_digest))
    config = json.loads(read(manifest["config"]["digest"]))
    beneath = base["rootfs"]["diff_ids"]
    diff_ids = config["rootfs"].get("diff_ids") or []
    below = len(beneath) if diff_ids[: len(beneath)] == beneath else 0
    passed = len(base.get("history") or []) if below else 0
    return {
        "config": {key: value for key, value in config.items() if key not in ("created", "history", "rootfs")},
        "history": [
            (" " if entry.get("empty_layer") else "+") + entry.get("created_by", "")
            for entry in (config.get("history") or [])[passed:]
        ],
        "layers": [layer(_plain(read(entry["digest"]))) for entry in (manifest.get("layers") or [])[below:]],
    }


def _plain(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    return bz2.decompress(data) if data[:3] == b"BZh" else data


def layer(data: bytes) -> list[str]:
    """One line a member, in the order of the archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [_member(archive, member) for member in archive]


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    kind = KINDS.get(member.type, repr(member.type))
    words = [
        kind,
        json.dumps(member.name, ensure_ascii=False)[1:-1],
        f"{member.mode:04o}",
        f"{member.uid}:{member.gid}",
    ]
    if member.uname or member.gname:
        words.append(f"called {member.uname}:{member.gname}")
    if member.mtime < RECENT:
        words.append(f"@{member.mtime}")
    if kind in ("link", "hard"):
        words.append(f"-> {member.linkname}")
    elif kind in ("char", "block"):
        words.append(f"{member.devmajor}:{member.devminor}")
    elif kind == "file":
        file = archive.extractfile(member)
        assert file is not None
        words.append(_content(file.read()))
    for name, value in sorted(member.pax_headers.items()):
        if name.startswith("SCHILY.xattr."):
            words.append(f"{name[13:]}={value.encode('utf-8', 'surrogateescape').hex()}")
    return " ".join(words)


def _content(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if len(data) <= 100 and (text or not data):
        return json.dumps(text, ensure_ascii=False)
    return f"{len(data)} sha256:{hashlib.sha256(data).hexdigest()}"


def tree(layers: list[list[str]]) -> dict[str, str]:
    """What the layers make of the base together: path to its last line; a deletion is an empty line."""
    found: dict[str, str] = {}
    for members in layers:
        for line in members:
            kind, name, _ = line.split(" ", 2)
            head, slash, leaf = name.rpartition("/")
            if leaf.startswith(".wh."):
                name = head + slash + leaf[4:]
                line = ""
            if kind != "dir":
                found = {path: old for path, old in found.items() if not path.startswith(name + "/")}
            found[name] = line
    return found


_WRAPPING = re.compile(
    r"^(failed to (compute|load) cache key|failed to calculate checksum of ref \w+::\w+|failed to (load LLB|marshal LLB "
    r"definition|read downloaded context)|rpc error: code = Unknown desc =|invalid (in|ex)cludepatterns: \[.*\]):? "
)
"""Which of BuildKit's parts came upon the error."""


def error(text: str) -> str:
    """An error without what differs from build to build."""
    text = text.strip()
    while (shorter := _WRAPPING.sub("", text)) != text:
        text = shorter
    text = re.sub(r"/\S*/cachemounts/buildkit\d+", "", text)  # where BuildKit's machine had mounted it
    return re.sub(r"@sha256:[0-9a-f]{64}", "", text)
