"""Asks BuildKit the questions of probe.sh and writes buildkit-facts.json: ``record_facts.py BUILDCTL ADDRESS VERSION``.

Needs root, a buildkitd on this machine, and an image ``busybox`` that it can find.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
DOCKERFILE = """FROM busybox
ENV PATH=/bin
COPY --chmod=755 probe.sh calls /
RUN mkdir -p /mnt
RUN . /probe.sh
"""


def main() -> None:
    sys.path.insert(0, str(HERE))
    import calls
    import probe

    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory)
        (context / "Dockerfile").write_text(DOCKERFILE)
        (context / "probe.sh").write_bytes((HERE / "probe.sh").read_bytes())
        (context / "calls").write_bytes(calls.program())
        build = [sys.argv[1], "--addr", sys.argv[2], "build", "--frontend", "dockerfile.v0", "--no-cache"]
        build += ["--local", f"context={context}", "--local", f"dockerfile={context}", "--progress", "rawjson"]
        done = subprocess.run(build, stderr=subprocess.PIPE, check=True)
    said = b""
    for line in done.stderr.splitlines():
        for log in json.loads(line).get("logs") or ():
            said += base64.b64decode(log["data"]) if log["stream"] == 1 else b""
    facts = probe.parsed(said.decode())
    comment = (
        f"What probe.sh prints in a RUN step of BuildKit {sys.argv[3]}, OCI worker of a daemon with host network, "
        f"as root, on Linux {os.uname().release.split('-')[0]}, {os.uname().machine}. Recorded by record_facts.py."
    )
    text = json.dumps({"_comment": comment, "facts": dict(sorted(facts.items()))}, indent=1)
    (HERE / "buildkit-facts.json").write_text(text + "\n")


main()
