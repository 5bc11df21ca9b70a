"""Bytes to instructions' lines: byte order mark, comments, continuation, heredoc bodies (reference 1.1 to 1.4, 1.8)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

from shiplap.dockerfile.directives import Directives
from shiplap.dockerfile.fault import Fault, Source
from shiplap.dockerfile.gotext import SPACE
from shiplap.dockerfile.heredoc import Heredoc, heredocs_of
from shiplap.errors import DockerfileError

DOCKERFILE_LIMIT = 16 << 20
"""Largest Dockerfile, in bytes."""
LINE_COUNT_LIMIT = 500_000
"""Most physical lines."""
INSTRUCTION_LIMIT = 20_000
"""Most instructions in one Dockerfile; BuildKit has no such bound and needs gigabytes at a million."""
LINE_LIMIT = 65535
"""Longest physical line in bytes, as in BuildKit."""


class Logical(msgspec.Struct, frozen=True):
    """One instruction's text, its continuation lines joined, with where it stands and what belongs to it."""

    text: str
    line: int
    end_line: int
    comments: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    empty_continuation: bool = False
    joined_at: int = 0
    """The last line before heredoc bodies: where an empty continuation is reported."""


class Lines:
    """A Dockerfile's text, cut into logical lines once. Raises DockerfileError."""

    def __init__(self, data: bytes, name: str) -> None:
        if len(data) > DOCKERFILE_LIMIT:
            raise DockerfileError(
                f"the Dockerfile has {len(data)} bytes, more than {DOCKERFILE_LIMIT}",
                code="dockerfile-too-large",
                hint="keep data in files, and COPY them",
                where=Source(name, []).place(1),
            )
        self._name = name
        self._too_long = ""
        self.source = Source(name, self._physical(data))
        self.directives = Directives()

    def _physical(self, data: bytes) -> list[str]:
        raw = data.removeprefix(b"\xef\xbb\xbf").split(b"\n", LINE_COUNT_LIMIT)
        if len(raw) > LINE_COUNT_LIMIT:
            fault = Fault(
                f"the Dockerfile has more than {LINE_COUNT_LIMIT} lines",
                code="dockerfile-too-large",
                hint="keep data in files, and COPY them",
            )
            raise Source(self._name, []).error(fault, LINE_COUNT_LIMIT)
        last = raw.pop()
        lines: list[str] = []
        for line in raw:
            if len(line) > LINE_LIMIT:
                self._too_long = line[:200].decode("utf-8", "replace")
                return lines
            lines.append(line.decode("utf-8", "surrogateescape") + "\n")
        if len(last) > LINE_LIMIT:
            self._too_long = last[:200].decode("utf-8", "replace")
        elif last:
            lines.append(last.decode("utf-8", "surrogateescape"))
        return lines

    def __len__(self) -> int:
        return len(self.source.lines)

    def end(self) -> DockerfileError | None:
        """What is to be said when all lines were read: a line that was too long ends a Dockerfile for the reader."""
        if not self._too_long:
            return None
        lines = self.source.lines
        number = len(lines) + 1
        fault = Fault(
            f"dockerfile line greater than max allowed size of {LINE_LIMIT}",
            code="line-too-long",
            hint="put the text into a file of the context, or into a heredoc",
        )
        return Source(self._name, [*lines, self._too_long]).error(fault, number)

    def read(self, takes_heredocs: Callable[[str], bool]) -> Iterator[Logical]:
        """The logical lines in order. ``takes_heredocs`` is asked of a line that holds ``<<``."""
        lines = self.source.lines
        continues: re.Pattern[str] | None = None
        comments: list[str] = []
        index = count = 0
        while index < len(lines):
            line = lines[index]
            index += 1
            stripped = line.rstrip("\r\n").lstrip(SPACE)
            if stripped.startswith("#"):
                self._comment(line, stripped, index, comments)
                continue
            if not stripped:
                self.directives.read("", index)
                continue
            self.directives.read(stripped, index)
            if continues is None:
                mark = re.escape(self.directives.escape)
                continues = re.compile(rf"(?<!{mark}){mark}[ \t]*\Z")
            count += 1
            if count > INSTRUCTION_LIMIT:
                fault = Fault(
                    f"more than {INSTRUCTION_LIMIT} instructions",
                    code="dockerfile-too-large",
                    hint="put commands together in one RUN",
                )
                raise self.source.error(fault, index)
            start, empty = index, False
            pieces: list[str] = []
            piece = stripped
            while True:
                found = continues.search(piece)
                if found is None:
                    pieces.append(piece)
                    break
                pieces.append(piece[: found.start()])
                while index < len(lines):
                    piece = lines[index].rstrip("\r\n")
                    index += 1
                    bare = piece.lstrip(SPACE)
                    if bare and not bare.startswith("#"):
                        break
                    empty = empty or not bare
                else:
                    break
            text = "".join(pieces)
            joined_at = index
            heredocs: tuple[Heredoc, ...] = ()
            if "<<" in text:
                try:
                    if takes_heredocs(text):
                        heredocs, index = self._bodies(heredocs_of(text), index)
                except Fault as fault:
                    end = len(lines) if fault.code == "unterminated-heredoc" else index
                    raise self.source.error(fault, start, end) from None
            yield Logical(text, start, index, tuple(comments), heredocs, empty, joined_at)
            comments.clear()

    def _comment(self, line: str, stripped: str, number: int, comments: list[str]) -> None:
        try:
            directive = self.directives.read(stripped, number)
        except Fault as fault:
            raise self.source.error(fault, number) from None
        if directive:
            return
        text = line[1:].strip(SPACE)
        if text:
            comments.append(text)
        else:
            comments.clear()

    def _bodies(self, heredocs: list[Heredoc], index: int) -> tuple[tuple[Heredoc, ...], int]:
        done = []
        lines = self.source.lines
        for heredoc in heredocs:
            start = index
            while True:
                if index >= len(lines):
                    raise Fault(
                        "unterminated heredoc",
                        code="unterminated-heredoc",
                        hint=f"a line that holds {heredoc.name[:60]} alone ends it",
                        at=heredoc.name,
                    )
                ending = lines[index].rstrip("\r\n")
                index += 1
                if (ending.lstrip("\t") if heredoc.chomp else ending) == heredoc.name:
                    break
            done.append(msgspec.structs.replace(heredoc, content="".join(lines[start : index - 1])))
        return tuple(done), index
