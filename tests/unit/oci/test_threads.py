"""Reading manifests and configs from several threads at once, from the first one on."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import threading
from shiplap.oci.config import parse_config
from shiplap.oci.manifest import parse_manifest
from shiplap.registry.failure import RegistryError
raw = b'{"schemaVersion":2,"config":{"digest":"sha256:%s","size":1},"layers":[]}' % (b"a" * 64)
config = b'{"architecture":"amd64","os":"linux","config":{"Env":["A=b"]},"history":[{"created_by":"x"}]}'
barrier = threading.Barrier(8)
def read():
    barrier.wait()
    parse_manifest(raw)
    parse_config(config)
threads = [threading.Thread(target=read) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_eight_threads_at_once() -> None:
    """msgspec crashed here when it learnt a type in two threads; each round needs a fresh interpreter."""
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
