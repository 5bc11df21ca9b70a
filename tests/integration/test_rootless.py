"""The same builds by an ordinary user: no root, no daemon, and the same file systems as root's."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

from kit import REPOSITORY, Shiplap

DOCKERFILE = """FROM busybox AS base
RUN mkdir /data && echo one > /data/one && chown 33:33 /data/one && chmod 4750 /data/one
RUN echo someone:x:1000:50::/home/someone:/bin/sh >> /etc/passwd && mkdir /home/someone && chown 1000:50 /home/someone
USER someone
RUN id -un > /tmp/who && touch ~/mine
FROM base
USER root
RUN rm -r /home && mkdir /home && ln -s /data/one /home/link
COPY --chown=www-data:staff --chmod=640 file /srv/x/file
WORKDIR /srv/y
"""


def put(home: Path, name: str, dockerfile: str, user: int | None) -> Path:
    context = home / name
    context.mkdir()
    (context / "Dockerfile").write_text(dockerfile)
    (context / "file").write_text("file\n")
    for path in (context / "Dockerfile", context / "file"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    if user is not None:
        subprocess.run(["chown", "-R", str(user), context], check=True)
    return context


def members(archive: Path) -> list[tuple[object, ...]]:
    with tarfile.open(archive) as opened:
        return [(m.name, m.type, oct(m.mode), m.uid, m.gid, m.linkname, m.size) for m in opened]


def test_hello_builds_and_runs(rootless: Shiplap) -> None:
    context = put(rootless.cwd, "hello", (REPOSITORY / "examples/hello/Dockerfile").read_text(), rootless.user)
    rootless.run("build", "-t", "hello", context)
    assert rootless.run("run", "hello").stdout == "hello, world\n"
    assert os.listdir(rootless.root / "tmp") == []


def test_the_file_system_is_roots(rootless: Shiplap, shiplap: Shiplap) -> None:
    """Owners, modes, links, deletions: as if root had built it, down to ids that only a subordinate range can hold."""
    theirs = put(rootless.cwd, "context", DOCKERFILE, rootless.user)
    ours = put(shiplap.cwd, "context", DOCKERFILE, None)
    rootless.run("build", "-q", "-o", f"type=tar,dest={rootless.cwd}/out.tar", theirs)
    shiplap.run("build", "-q", "-o", f"type=tar,dest={shiplap.cwd}/out.tar", ours)
    expected = members(shiplap.cwd / "out.tar")
    assert members(rootless.cwd / "out.tar") == expected
    found = {str(row[0]): row for row in expected}
    assert found["data/one"][2:5] == ("0o4750", 33, 33)
    assert found["srv/x/file"][2:5] == ("0o640", 33, 50)


def test_a_store_of_ones_own_can_be_removed_by_its_owner(rootless: Shiplap) -> None:
    rootless.run("build", "-q", "-t", "x", put(rootless.cwd, "context", DOCKERFILE, rootless.user))
    rootless.run("rmi", "x")
    rootless.run("prune", "--all")
    assert os.listdir(rootless.root / "snapshots") == []
