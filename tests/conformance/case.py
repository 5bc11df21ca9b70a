"""A case: its directory, its options, and what has to lie on disk before it is built.

``options.json`` may hold: ``target``, ``platform``, ``build_args``, ``labels``, ``network``, ``file`` (as ``--file``),
``secrets`` and ``secret_env`` (name to value), ``ssh`` (names that an agent is forwarded under), ``allow``, ``add_hosts``,
``ulimits``, ``shm_size`` (bytes), ``no_cache_filter``, ``contexts`` (name to ``directory``, listed in ``context.NAME.txt``, or
to an address), ``context`` (an address, instead of ``context.txt``) and ``stdin`` (the file of the context that is given on
standard input instead of it: ``Dockerfile``, or an archive).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    from conformance import context
    from conformance.site_of_cases import Site
except ImportError:
    import context  # type: ignore[no-redef]
    from site_of_cases import Site  # type: ignore[no-redef]

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images"
"""Images that cases begin with beside ``base``: Dockerfiles that add no layers."""


class Case:
    """One directory of ``cases``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        options = path / "options.json"
        self.options: dict[str, Any] = json.loads(options.read_text()) if options.exists() else {}

    def prepare(self, work: Path, site: Site) -> None:
        """Make in ``work`` the directories context, contexts/NAME, dockerfile and secrets."""
        for name in ("context", "contexts", "dockerfile", "secrets"):
            (work / name).mkdir()
        for listing in self.path.glob("context*.txt"):
            _, _, name = listing.stem.partition(".")
            directory = work / "contexts" / name if name else work / "context"
            directory.mkdir(exist_ok=True)
            context.make_context(listing.read_text(), directory)
        for file in self.path.glob("Dockerfile*"):
            text = file.read_bytes().replace(b"//web/", f"//{site.place}/".encode())
            (work / "dockerfile" / file.name).write_bytes(text)
        for name, value in self.options.get("secrets", {}).items():
            (work / "secrets" / self.secret(name, site)).write_text(value)

    @staticmethod
    def secret(name: str, site: Site) -> str:
        """The name of a secret, with the server's host for ``WEBHOST``."""
        return name.replace("WEBHOST", site.place.partition(":")[0])

    @contextmanager
    def agent(self, work: Path) -> Iterator[None]:
        """While a socket listens where an ssh agent would; nobody answers, for no step asks."""
        if "ssh" not in self.options:
            yield
            return
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(work / "agent"))
            server.listen()
            yield


CASES = [Case(path) for path in sorted((HERE / "cases").iterdir()) if path.is_dir()]
