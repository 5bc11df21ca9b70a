"""Record what BuildKit answers to --call for each Dockerfile in ``calls/``: ``record_calls.py DOCKER-BUILDX``.

The builder is the one that BUILDX_BUILDER names; it must know ``busybox``. What it says is written beside each Dockerfile.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent / "calls"
CALLS = ("check", "outline", "targets")


def main(buildx: str) -> None:
    for file in sorted(HERE.glob("*.Dockerfile")):
        answers = {}
        for call in [f"{call}{form}" for call in CALLS for form in ("", ",format=json")]:
            command = [buildx, "build", "-f", file.name, f"--call={call}", "."]
            told = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
            if "Unavailable" in told.stderr or "connect" in told.stderr:
                sys.exit(f"{file.name} {call}: {told.stderr}")  # no answer is not an answer
            answers[call] = {"exit": told.returncode, "stdout": without_definitions(told.stdout)}
        file.with_suffix(".json").write_text(json.dumps(answers, indent=1) + "\n")


def without_definitions(text: str) -> str:
    """What names the session is left out."""
    try:
        answer = json.loads(text)
    except ValueError:
        return text
    for source in answer.get("sources") or ():
        if isinstance(source, dict):
            source.pop("definition", None)
    return json.dumps(answer, indent=2) + "\n"


if __name__ == "__main__":
    main(sys.argv[1])
