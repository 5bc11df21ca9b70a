"""What the cases fetch from the web: files, archives and git repositories, the same for BuildKit and for shiplap.

Dockerfiles and options say ``http://web/…``; a server on loopback stands behind it, on a port that differs from run to
run, and is called ``web`` again in what is compared.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    from conformance import context
except ImportError:
    import context  # type: ignore[no-redef]
from web import Page, Repository, Web

DATE = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
FILES = """
tar plain
  dir d 0700
  file d/f 4755 "f"
  own d/f 3:4
  time d/f 1200000000
  link d/l f
tar gz gz
  file f "gz"
tar bz2 bz2
  file f "bz2"
tar xz xz
  file f "xz"
tar zst zst
  file f "zst"
tar context gz
  file Dockerfile "FROM base\\nCOPY . /t\\n"
  file other.Dockerfile "FROM base\\nCOPY sub /other\\n"
  file .dockerignore "f\\n"
  file f 0600 "not ignored"
  own f 3:4
  dir sub 0711
  file sub/Dockerfile "FROM base\\nCOPY f /sub\\n"
  link sub/l ../f
  time sub 1200000000
tar named xz
  file f "of the archive"
  own f 3:4
tar dated
  file f "f"
  file g "g"
  time g 1234567890
"""
"""Archives, by the listing of ``context.py``."""


class Site:
    """The server, with its pages."""

    def __init__(self, root: Path) -> None:
        (root / "repositories").mkdir()
        (root / "files").mkdir()
        self.web = Web(root / "repositories")
        self.place = f"127.0.0.1:{self.web.port}"
        context.make_context(FILES, root / "files")
        pages = self.web.pages
        for path in (root / "files").iterdir():
            pages[f"/{path.name}"] = Page(path.read_bytes(), DATE)
        pages["/dated"] = Page(pages["/dated"].data)
        pages["/f"] = Page(b"a file\n", {**DATE, "ETag": '"f1"'})
        pages["/undated"] = Page(b"no date\n")
        pages["/"] = pages["/dir/"] = Page(b"no name\n", DATE)
        pages["/called"] = Page(b"called otherwise\n", {**DATE, "Content-Disposition": 'attachment; filename="x"'})
        pages["/moved"] = Page(b"", {"Location": "/f"}, 302)
        pages["/moved/on"] = Page(b"", {"Location": "/moved"}, 301)
        pages["/a%20b"] = pages["/f?x=1&y=/z"] = Page(b"odd\n", DATE)
        pages["/locked"] = Page(b"locked\n", DATE, login="Bearer open-sesame")
        pages["/header"] = Page(b"locked\n", DATE, login="Basic eDp5")
        pages["/Dockerfile"] = Page(b"FROM base\nCOPY . /t\n", DATE)
        pages["/empty"] = Page(b"", DATE)
        self._repositories()

    def _repositories(self) -> None:
        sub = Repository(self.web, "sub.git", 1_200_000_000)
        sub.write("in-sub", "sub\n")
        sub.commit()
        repo = self.repository = Repository(self.web, "repo.git", 1_300_000_000)
        repo.write("Dockerfile", "FROM base\nCOPY . /t\n")
        repo.write(".dockerignore", "f\n")
        repo.write("f", "first\n")
        repo.write("run", "#!/bin/sh\n", 0o755)
        repo.write("private", "p\n", 0o600)
        repo.write("sub/Dockerfile", "FROM base\nCOPY . /of-sub\n")
        repo.write("sub/deep/g", "g\n")
        (repo.path / "link").symlink_to("sub/deep/g")
        repo.commit()
        repo.git("tag", "v1")
        repo.git("tag", "-a", "-m", "annotated", "v1-annotated")
        repo.git("branch", "slash/ed")
        repo.write("f", "second\n")
        repo.commit()
        repo.git("checkout", "-q", "-b", "modules")
        repo.write(".gitmodules", '[submodule "module"]\n\tpath = module\n\turl = ../sub.git\n')
        head = sub.git("rev-parse", "HEAD").strip()
        repo.git("update-index", "--add", "--cacheinfo", f"160000,{head},module")
        repo.git("add", ".gitmodules")
        repo.git("commit", "-q", "-m", "a module")
        repo.git("checkout", "-q", "-f", "main")

    def page(self, path: str, data: bytes) -> str:
        """Serve ``data``; its address."""
        self.web.pages[path] = Page(data)
        return f"{self.web.url}{path}"

    def there(self, text: str) -> str:
        """``text`` with the address of the server for ``web``."""
        return text.replace("//web/", f"//{self.place}/")

    def back(self, shape: dict[str, Any]) -> dict[str, Any]:
        """``shape`` with ``web`` for the address."""
        return dict(json.loads(json.dumps(shape).replace(self.place, "web")))


@contextmanager
def served() -> Iterator[Site]:
    """The site, while it is up."""
    with tempfile.TemporaryDirectory() as root:
        site = Site(Path(root))
        try:
            yield site
        finally:
            site.web.server.shutdown()
            site.web.server.server_close()
