"""Record the images that buildx makes of each case in ``outputs/``: ``record_outputs.py DOCKER-BUILDX``.

The builder is the one that BUILDX_BUILDER names; it must know ``busybox``, for this machine's platform, and be able to
reach this machine's loopback. A case is a txtar of ``flags`` (one a line), ``Dockerfile`` and further files; ``@WEB@``
stands for the address of a server that has ``/x.txt``, ``@HERE@`` for the directory of the files, which is the context
unless ``context`` says which is. ``script`` is done there by a shell first (``git`` needs no more), ``environment`` has
variables of the command, one a line. What was made is written beside it: of a case called ``exact-…``
the very bytes' digests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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

Build = Callable[[Sequence[str], Mapping[str, str]], "subprocess.CompletedProcess[str]"]
"""Does what the arguments and variables say."""
_SECTIONS = ("", "flags", "script", "environment", "context")
_GIT = {
    **{f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    **{f"GIT_{who}_DATE": "2026-01-02T03:04:05Z" for who in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


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
        if name not in _SECTIONS:
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            (context / name).write_text(text.replace("@WEB@", web))
    script = ["sh", "-ec", files.get("script", "")]
    subprocess.run(script, cwd=context, env={**os.environ, **_GIT}, check=True, capture_output=True)
    environment = dict(line.split("=", 1) for line in files.get("environment", "").splitlines())
    out, metadata = work / "out", work / "metadata.json"
    exact = case.stem.startswith("exact-")
    given = files["flags"].replace("@HERE@", str(context)).split("\n")[:-1]
    flags = [*given, "--output", f"type=oci,dest={out},tar=false{EXACT if exact else ''}"]
    directory = str(context / files.get("context", "").strip())
    told = build([*flags, "--metadata-file", str(metadata), directory], environment)
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
    def build(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **environment}
        told = subprocess.run([buildx, "build", *arguments], capture_output=True, text=True, env=env)
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
