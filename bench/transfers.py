"""Images between a registry and a builder's store: the same blobs for all, over loopback, with real registry processes."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.scenarios import words

LAYERS = 8
SIZE = 900 << 20
"""What a pull brings at least, in bytes: the text compresses."""


class Registries:
    """Two docker-registry processes: ``source`` holds an image of 1 GiB, ``target`` is emptied before every push.

    A context manager; it starts when it is first asked for the image.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._running: list[subprocess.Popen[bytes]] = []
        self.image = ""
        self.target = ""

    def __enter__(self) -> Registries:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.terminate()
            process.wait(10)

    def obstacle(self) -> str:
        """What stands in the way, empty if nothing does."""
        return "" if shutil.which("docker-registry") else "no docker-registry on PATH"

    def start(self) -> None:
        """Start both and make the image: layers of what does not compress and of text, 1 GiB as they are moved."""
        if self.image:
            return
        source, self.target = self._serve("source"), self._serve("target")
        context = self._work / "gibibyte-image"
        lines = ["FROM scratch"]
        vocabulary = words(2000, 11)
        text = " ".join(random.choices(vocabulary, k=5_000_000)).encode()
        for layer in range(LAYERS):
            folder = context / str(layer)
            folder.mkdir(parents=True)
            for number in range(7):
                (folder / f"r{number}").write_bytes(random.randbytes(16 << 20))
            (folder / "text").write_bytes(text[layer * 1000 :])
            lines.append(f"COPY {layer} /{layer}")
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        self.image = f"{source}/bench/gibibyte:1"
        shiplap = [str(Path(sys.executable).with_name("shiplap")), "--root", str(self._work / "gibibyte-store")]
        subprocess.run([*shiplap, "build", "-q", "-t", self.image, "--push", str(context)], check=True)
        shutil.rmtree(context)
        shutil.rmtree(self._work / "gibibyte-store")

    def empty(self) -> str:
        """Empty the target; the name to push to."""
        shutil.rmtree(self._work / "target/data/docker", ignore_errors=True)
        return f"{self.target}/bench/pushed:1"

    def _serve(self, name: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{probe.getsockname()[1]}"
        folder = self._work / name
        folder.mkdir()
        storage = {"filesystem": {"rootdirectory": str(folder / "data")}}
        config = {"version": "0.1", "log": {"level": "error"}, "storage": storage, "http": {"addr": host}}
        (folder / "config.yml").write_text(json.dumps(config))
        with open(folder / "log", "wb") as log:
            command = ["docker-registry", "serve", str(folder / "config.yml")]
            self._running.append(subprocess.Popen(command, stdout=log, stderr=log))
        address = ("127.0.0.1", int(host.rpartition(":")[2]))
        for _ in range(200):
            try:
                socket.create_connection(address, 1).close()
                return host
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("docker-registry did not start: " + (folder / "log").read_text()[-1000:])
