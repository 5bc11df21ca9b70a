"""Whatever was built before, a build gives what an empty store would have given.

Random Dockerfiles of several stages that copy from the context, from each other and from their own base; between two
builds the context or the text changes a little. The referee is the same build in a store without a past.
"""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from pathlib import Path

import pytest

import shiplap

FILES = ("a", "b", "c", "d/e", "d/f")


class Project:
    """A context and a Dockerfile that change at random."""

    def __init__(self, seed: int, path: Path) -> None:
        self._random = random.Random(seed)
        self.path = path
        for file in FILES:
            (path / file).parent.mkdir(exist_ok=True)
            self._write(file)
        self._stages = [self._stage(number) for number in range(3)]
        self._save()

    def change(self) -> str:
        """Change something; what."""
        if self._random.random() < 0.5:
            file = self._random.choice(FILES)
            self._write(file)
            return f"{file} written"
        number = self._random.randrange(3)
        self._stages[number] = self._stage(number)
        self._save()
        return f"stage {number} is another"

    def _write(self, file: str) -> None:
        # Few contents, so that things become what they were before, and different paths have equal contents.
        (self.path / file).write_text(self._random.choice(("1", "22", "333")))

    def _stage(self, number: int) -> list[str]:
        base = "scratch" if number == 0 or self._random.random() < 0.4 else f"s{self._random.randrange(number)}"
        lines = [f"FROM {base} AS s{number}", "COPY a /keep"]
        for _ in range(self._random.randrange(1, 4)):
            dest = self._random.choice(("/x/", "/y/", "/z/"))
            if number and self._random.random() < 0.6:
                other = self._random.randrange(number)
                lines.append(f"COPY --from=s{other} {self._random.choice(('/keep', '/kee*', '/'))} {dest}")
            else:
                lines.append(f"COPY {self._random.choice(('a', 'b', 'd', '[abc]', 'd/*', '.'))} {dest}")
        return lines

    def _save(self) -> None:
        (self.path / "Dockerfile").write_text("\n".join(line for stage in self._stages for line in stage) + "\n")


def tree(context: Path, root: Path, out: Path) -> dict[str, str]:
    """What the result consists of: kind, mode and content of every path."""
    shiplap.build(context, output=f"type=tar,dest={out}", root=root, environ={"HOME": "/nonexistent"})
    found = {}
    with tarfile.open(fileobj=io.BytesIO(out.read_bytes())) as tar:
        for member in tar:
            data = tar.extractfile(member)
            content = hashlib.sha256(data.read()).hexdigest() if data is not None else ""
            found[member.name] = f"{member.type!r} {member.mode:o} {content}"
    return found


@pytest.mark.parametrize("seed", range(8))
def test_a_store_with_a_past_gives_what_an_empty_one_gives(seed: int, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    project = Project(seed, context)
    tree(context, tmp_path / "warm", tmp_path / "out.tar")
    for number in range(6):
        told = project.change()
        warm = tree(context, tmp_path / "warm", tmp_path / "out.tar")
        cold = tree(context, tmp_path / f"cold{number}", tmp_path / "out.tar")
        assert warm == cold, f"after {told}:\n{(context / 'Dockerfile').read_text()}"
