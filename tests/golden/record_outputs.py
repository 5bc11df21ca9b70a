"""Record the images that buildx makes of each case in ``outputs/``: ``record_outputs.py DOCKER-BUILDX``.

The builder is the one that BUILDX_BUILDER names; it must know ``busybox``, for this machine's platform, and be able to
reach this machine's loopback. A case is a txtar of ``flags`` (one a line), ``Dockerfile`` and further files; ``@WEB@``
stands for the address of a server that has ``/x.txt``. What was made is written beside it: of a case called ``exact-…``
the very bytes' digests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CASES = HERE / "outputs"
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "examples"), str(HERE.parent)]

from tests.golden.txtar import read_txtar  # noqa: E402
from tests.golden.whole import plain, read_layout  # noqa: E402

from web import Page, Web  # noqa: E402

EXACT = ",rewrite-timestamp=true,compression=uncompressed"
"""With SOURCE_DATE_EPOCH as a build argument, this leaves nothing by which two builders could differ."""

Build = Callable[[Sequence[str], Path], "subprocess.CompletedProcess[str]"]


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """The address of a server with ``/x.txt``."""
    web = Web(directory)
    web.pages["/x.txt"] = Page(b"from the web\n")
    try:
        yield web.url
    finally:
        web.server.shutdown()


def made(case: Path, work: Path, web: str, build: Build) -> dict[str, Any]:
    """What ``build`` makes of ``case``: exit status, and the image and metadata as values."""
    files = read_txtar(case.read_text())
    context = work / "context"
    context.mkdir(parents=True)
    for name, text in files.items():
        if name not in ("", "flags"):
            (context / name).write_text(text.replace("@WEB@", web))
    out, metadata = work / "out", work / "metadata.json"
    exact = case.stem.startswith("exact-")
    flags = [*files["flags"].split("\n")[:-1], "--output", f"type=oci,dest={out},tar=false{EXACT if exact else ''}"]
    told = build([*flags, "--metadata-file", str(metadata), str(context)], work)
    if told.returncode:
        return {"exit": told.returncode}

    def there(text: str) -> str:
        return text.replace(web, "@WEB@")

    return {
        "exit": 0,
        "layout": read_layout(out, there, exact),
        "metadata": plain(json.loads(metadata.read_text()), there),
    }


def main(buildx: str, *names: str) -> None:
    def build(arguments: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        told = subprocess.run([buildx, "build", *arguments], capture_output=True, text=True, cwd=cwd)
        if "Unavailable" in told.stderr or "connect" in told.stderr:
            sys.exit(told.stderr)  # no answer is not an answer
        return told

    for case in sorted(CASES.glob("*.txtar")):
        if names and case.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as work, served(Path(work)) as web:
            answer = made(case, Path(work), web, build)
        case.with_suffix(".json").write_text(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
        print(case.stem, answer["exit"])


if __name__ == "__main__":
    main(*sys.argv[1:])
