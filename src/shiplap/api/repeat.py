"""A build that was made before, with nothing changed since: answered from its record.

Four fifths of a build that finds everything in its cache is Python importing what plans and packs (measured: 150 of 190 ms).
So such a build leaves a record: what it looked at, what it used, what it gave. If all of that is as it was, the next one
is answered here, with the standard library alone. In doubt it is not, and the build takes the long way.

What must be as it was: the request; the bytes of the Dockerfile and of the ignore files; inode, size, mode, mtime and ctime
of every path of the context that was looked at (a directory that was listed is one of them); the digests of the base
images; the keys of all steps and the snapshots they lead to; the blobs of the image. A record is not kept while a file is
so young that it could change unseen (two seconds, as in ``store.results.FileMemory``).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from shiplap.errors import ShiplapError
from shiplap.store.sealed import sealed, unsealed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shiplap.events.facts import Fact, Sink
    from shiplap.trees.entry import Entry

KEPT = 256
"""Records that a store keeps; the oldest go."""
_YOUNG = 2_000_000_000
_FILE_LIMIT = 1 << 20
"""Bytes of a Dockerfile or ignore file up to which it is worth remembering."""


class Question(NamedTuple):
    """What is asked. ``asked``: all of the request that may change the result, as text; ``root``: the store;
    ``context``: absolute path; ``files``: absolute paths whose bytes count, whether they are there or not.
    """

    asked: str
    root: str
    context: str
    files: tuple[str, ...]

    @property
    def record(self) -> Path:
        """Where its answer is kept."""
        text = "\0".join((self.asked, self.context, *self.files))
        return Path(self.root, "repeats", hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40])


class Answer(NamedTuple):
    """``result`` has the fields of :class:`shiplap.Result` that a command shows; ``shown``: text by progress mode."""

    result: SimpleNamespace
    shown: Mapping[str, str]


def answer(question: Question) -> Answer | None:
    """Do what was asked again, if that is possible without building; None if it is not. Writes the archives asked for."""
    began = time.time()
    try:
        known = json.loads(unsealed(question.record.name, question.record.read_bytes()) or b"")
        if known["files"] != _contents(question.files) or known["stamp"] != _stamp(question.context, known["paths"]):
            return None
        if not _in_index(question.root, known) or not _blobs_there(question.root, known["blobs"]):
            return None
        for archive in known["archives"]:
            _write_archive(question.root, archive)
        result = SimpleNamespace(**{**known["result"], "seconds": time.time() - began})
        result.stages = tuple(SimpleNamespace(**stage) for stage in result.stages)
        return Answer(result, known["shown"])
    except (OSError, ValueError, KeyError, TypeError, ShiplapError):
        return None  # the long way makes it anew, or says what is wrong


class Witnessed:
    """Collects what a build looks at in its context, and what it tells."""

    def __init__(self, question: Question, sink: Sink) -> None:
        self._question = question
        self._sink = sink
        self._began = time.time_ns()
        self._seen: dict[str, str] = {}
        self._youngest = 0
        self._steady = True
        self._contents = _contents(question.files)
        self._facts: list[Fact] = []
        self._lock = threading.Lock()

    def saw(self, path: str, entry: Entry | None) -> None:
        """A ``shiplap.trees.tree.Witness``."""
        if entry is None:
            line = _line(path, None)
        else:
            line = _line(path, (entry.mode, entry.inode, entry.size, entry.mtime, entry.ctime))
            self._youngest = max(self._youngest, entry.mtime, entry.ctime)
        if self._seen.setdefault(path, line) != line:
            self._steady = False

    def heard(self, fact: Fact) -> None:
        """A ``shiplap.events.facts.Sink`` that passes facts on."""
        self._sink(fact)
        from shiplap.events.facts import StepFinished, StepStarted, Warned

        if isinstance(fact, StepStarted | StepFinished | Warned):
            with self._lock:
                self._facts.append(fact)

    def spoil(self) -> None:
        """Keep nothing: the build did not go as it would go again."""
        self._steady = False

    def keep(
        self,
        result: Mapping[str, Any],
        steps: Iterable[str],
        images: Mapping[str, str],
        used: Mapping[str, str],
        archives: Sequence[tuple[str, Sequence[str | tuple[str, int]]]],
        blobs: Mapping[str, int],
        aside: Path,
    ) -> None:
        """Write the record. ``result``: of the build; ``steps``: digests of its nodes; ``images``: digests by name;
        ``used``: snapshots by key; ``archives``: path and pieces, each the bytes (as Latin-1) or a blob's digest and size;
        ``blobs``: sizes of the image's blobs; ``aside``: where to write it first.
        """
        if not self._steady or self._youngest > self._began - _YOUNG:
            return
        if None in self._contents or self._contents != _contents(self._question.files):
            return
        paths = sorted(self._seen)
        record = {
            "files": self._contents,
            "paths": paths,
            "stamp": _digest(self._seen[path] for path in paths),
            "images": dict(images),
            "used": dict(used),
            "blobs": dict(blobs),
            "archives": [[dest, list(pieces)] for dest, pieces in archives],
            "shown": _shown(self._facts, set(steps)),
            "result": dict(result),
        }
        file = self._question.record
        try:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
                out.write(sealed(file.name, json.dumps(record).encode()))
            aside.rename(file)
            _forget_oldest(file.parent)
        except OSError:
            aside.unlink(missing_ok=True)  # costs the next build its short way, nothing else


def _contents(files: Iterable[str]) -> list[str | None]:
    """The digest of each file, ``""`` where there is none, None where it is too large or no file."""
    found: list[str | None] = []
    for path in files:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            found.append("")
            continue
        except OSError:
            found.append(None)
            continue
        try:
            status = os.fstat(fd)
            good = stat.S_ISREG(status.st_mode) and status.st_size <= _FILE_LIMIT
            found.append(hashlib.sha256(os.read(fd, _FILE_LIMIT)).hexdigest() if good else None)
        finally:
            os.close(fd)
    return found


def _stamp(context: str, paths: Iterable[str]) -> str:
    return _digest(_line(path, _lstat(f"{context}/{path}")) for path in paths)


def _lstat(path: str) -> tuple[int, int, int, int, int] | None:
    try:
        st = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return st.st_mode, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


def _line(path: str, status: tuple[int, int, int, int, int] | None) -> str:
    return f"{path}\0{status}\n"


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _in_index(root: str, known: Mapping[str, Any]) -> bool:
    """Whether the store still has all that was used; if so it is marked as used now."""
    from shiplap.store.index import Index
    from shiplap.store.names import named_digest

    if any(named_digest(root, name) != digest for name, digest in known["images"].items()):
        return False
    index = Index(Path(root, "index.sqlite"), Path(root, "locks", "index"))
    try:
        return index.use(known["used"])
    finally:
        index.close()


def _blobs_there(root: str, blobs: Mapping[str, int]) -> bool:
    """Whether all are there with their sizes. What is in them is looked at when it leaves the store."""
    return all(os.stat(f"{root}/blobs/{digest.replace(':', '/')}").st_size == size for digest, size in blobs.items())


def _write_archive(root: str, archive: tuple[str, list[str | tuple[str, int]]]) -> None:
    from shiplap.export.aside import writing

    dest, pieces = archive
    with ExitStack() as held:
        # All are open before anything is written: what is removed from now on stays readable.
        blobs = [_open_blob(held, root, piece) for piece in pieces]
        with writing(Path(dest)) as out:
            for piece, blob in zip(pieces, blobs, strict=True):
                if blob is None:
                    out.write(str(piece).encode("latin-1"))
                else:
                    _copy(blob, piece[0], out)


def _open_blob(held: ExitStack, root: str, piece: str | tuple[str, int]) -> BinaryIO | None:
    if isinstance(piece, str):
        return None
    algorithm, _, hexadecimal = piece[0].partition(":")
    file = held.enter_context(Path(root, "blobs", algorithm, hexadecimal).open("rb"))  # noqa: SIM115
    if os.fstat(file.fileno()).st_size != piece[1]:
        raise ValueError(piece[0])
    return file


def _copy(blob: BinaryIO, digest: str, out: BinaryIO) -> None:
    algorithm, _, hexadecimal = digest.partition(":")
    hasher = hashlib.new(algorithm)
    while chunk := blob.read(1 << 20):
        hasher.update(chunk)
        out.write(chunk)
    if hasher.hexdigest() != hexadecimal:
        raise ValueError(digest)


def _shown(facts: Sequence[Fact], steps: set[str]) -> dict[str, str]:
    """What a build that finds everything shows, by progress mode."""
    from shiplap.events.facts import StepFinished, StepStarted, Warned
    from shiplap.events.plain import PlainView, warning_text

    lines: list[str] = []
    view = PlainView(lines.append)
    for fact in facts:
        if isinstance(fact, StepStarted) and fact.step.startswith("resolve "):
            continue  # nobody is asked again
        if isinstance(fact, StepFinished):
            if fact.step.startswith("resolve "):
                continue
            fact = StepFinished(fact.step, fact.at, 0.0, cached=fact.step in steps)
        view(fact)
    warnings = [fact for fact in facts if isinstance(fact, Warned)]
    return {
        "plain": "".join(lines),
        "tty": "".join(warning_text(fact) for fact in warnings),
        "quiet": "".join(warning_text(fact) for fact in warnings if not fact.rule),
    }


def _forget_oldest(directory: Path) -> None:
    files = [(file.stat().st_mtime, file) for file in directory.iterdir()]
    for _, file in sorted(files)[:-KEPT]:
        file.unlink(missing_ok=True)
