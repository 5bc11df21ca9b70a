"""Runs the sandbox's cases as an ordinary user: ``sandbox_child.py DIRECTORY RUNTIME IDS``, results as JSON on stdout.

RUNTIME is ``native`` or the path of an OCI runtime; IDS is ``all`` or ``single`` (do as if there were no newuidmap).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    directory, program, ids = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    sys.path[:0] = [str(Path(__file__).parent), sys.argv[4]]
    from shiplap.sandbox import userns

    if ids == "single":
        userns._ranges = lambda file, uid: ()  # type: ignore[assignment]
    got = userns.enter_user_namespace()
    import sandbox_cases

    from shiplap.sandbox import detect
    from shiplap.sandbox.native import NativeRuntime

    result: dict[str, object] = {"uids": got.uids, "gids": got.gids, "single": got.single, "cases": {}, "reason": ""}
    if program == "native":
        runtime: object = NativeRuntime()
        result["reason"] = detect.probe(runtime, str(directory)).reason  # type: ignore[arg-type]
    else:
        tried = detect.trial(program, str(directory))
        runtime, result["reason"] = tried.runtime, tried.reason
    if not result["reason"]:
        result["cases"] = sandbox_cases.run_all(runtime, directory / "room")  # type: ignore[arg-type]
        room = sandbox_cases.Room(runtime, directory / "facts")  # type: ignore[arg-type]
        result["facts"] = sandbox_cases.asked(room, Path(__file__).parent)
    print(json.dumps(result))


main()
