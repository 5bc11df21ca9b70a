"""The builders: how each is asked to build a context into an OCI archive."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.runner import Ran, Runner


class Builder:
    """One way to build. The verbs raise RuntimeError with what the builder said."""

    name = ""
    builds = True
    moves = False
    """Whether it takes part where an image is only moved: then it has the three verbs below."""

    def __init__(self, runner: Runner, work: Path) -> None:
        self._runner = runner
        self._work = work

    def available(self) -> str:
        """What stands in the way, empty if nothing does."""
        raise NotImplementedError

    def command(self, context: Path, output: Path | None, cache: bool) -> list[str]:
        """The command line; ``output`` None: the result stays where the builder keeps it."""
        raise NotImplementedError

    def forget(self) -> None:
        """Empty the store."""
        raise NotImplementedError

    def disk(self) -> int:
        """Bytes that the store takes."""
        raise NotImplementedError

    def pull(self, image: str) -> Ran:
        """Bring the image from its registry."""
        raise NotImplementedError

    def get_ready(self, image: str, target: str) -> None:
        """Have what is needed to push ``image``, which is known by now, to ``target``."""
        raise NotImplementedError

    def push(self, image: str, target: str) -> Ran:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def build(self, contexts: Sequence[Path], output: Path | None, cache: bool) -> tuple[float, int]:
        """Build each context in turn; the seconds it took, and the largest resident memory of a command in bytes."""
        done = [self.say(self.command(context, output, cache)) for context in contexts]
        return sum(ran.seconds for ran in done), max(ran.memory for ran in done)

    def say(self, command: list[str]) -> Ran:
        ran = self._runner.run(command, self.environment())
        if ran.status != 0:
            raise RuntimeError(f"{self.name}: {' '.join(command)}\n{ran.said}")
        return ran


class Shiplap(Builder):
    """This one, as an installed command with a store of its own."""

    name = "shiplap"
    moves = True

    def __init__(self, runner: Runner, work: Path) -> None:
        super().__init__(runner, work)
        self._root = work / "shiplap"
        self._program = str(Path(sys.executable).with_name("shiplap"))

    def available(self) -> str:
        return ""

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SHIPLAP_ROOT": str(self._root)}

    def forget(self) -> None:
        self.say([self._program, "rmi", "--all"])  # prune keeps what has a name
        self.say([self._program, "prune", "--all", "--force"])

    def disk(self) -> int:
        return _bytes_in(self._root)

    def pull(self, image: str) -> Ran:
        return self.say([self._program, "pull", "-q", image])

    def get_ready(self, image: str, target: str) -> None:
        self.pull(image)
        self.say([self._program, "tag", image, target])

    def push(self, image: str, target: str) -> Ran:
        return self.say([self._program, "push", "-q", target])

    def command(self, context: Path, output: Path | None, cache: bool) -> list[str]:
        flags = [] if cache else ["--no-cache"]
        kind = f"type=oci,dest={output}" if output is not None else "type=cacheonly"
        return [self._program, "build", "-q", *flags, "-o", kind, str(context)]


class Library(Shiplap):
    """shiplap called from one Python program: all contexts of a round in one process."""

    name = "library"
    moves = False

    def build(self, contexts: Sequence[Path], output: Path | None, cache: bool) -> tuple[float, int]:
        script = (
            "import shiplap, sys\n"
            "cache, output, *contexts = sys.argv[1:]\n"
            "for context in contexts:\n"
            "    shiplap.build(shiplap.Request(context=context, no_cache=not cache, outputs=(output,)))\n"
        )
        kind = f"type=oci,dest={output}" if output is not None else "type=cacheonly"
        ran = self.say([sys.executable, "-c", script, "1" if cache else "", kind, *map(str, contexts)])
        return ran.seconds, ran.memory


class BuildKit(Builder):
    """buildctl against the daemon that BUILDKIT_HOST names; the daemon is warm, and not counted."""

    name = "BuildKit"
    moves = True

    def available(self) -> str:
        if shutil.which("buildctl") is None:
            return "no buildctl on PATH"
        if subprocess.run(["buildctl", "debug", "workers"], capture_output=True).returncode != 0:
            return "no buildkitd answers at BUILDKIT_HOST"
        return ""

    def forget(self) -> None:
        self.say(["buildctl", "prune", "--all"])
        shutil.rmtree(self._work / "moved-layout", ignore_errors=True)  # a blob that lies there is not asked for again

    def disk(self) -> int:
        """What the daemon counts: plain sizes of snapshots, and blobs."""
        told = subprocess.run(["buildctl", "du", "--format", "{{json .}}"], capture_output=True, text=True, check=True)
        return sum(record["size"] for record in json.loads(told.stdout) or ())

    def _moved(self, image: str, output: str) -> Ran:
        context = self._work / "moved"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(f"FROM {image}\n")
        return self.say([*self.command(context, None, cache=True), "--output", output])

    def pull(self, image: str) -> Ran:
        # It fetches blobs only for somebody who reads them: a directory that the client writes, as skopeo does.
        return self._moved(image, f"type=oci,tar=false,dest={self._work / 'moved-layout'}")

    def get_ready(self, image: str, target: str) -> None:
        self.pull(image)

    def push(self, image: str, target: str) -> Ran:
        return self._moved(image, f"type=image,name={target},push=true")

    def command(self, context: Path, output: Path | None, cache: bool) -> list[str]:
        flags = [] if cache else ["--no-cache"]
        if output is not None:
            flags += ["--output", f"type=oci,dest={output}"]
        local = ["--local", f"context={context}", "--local", f"dockerfile={context}"]
        return ["buildctl", "build", "--progress=plain", "--frontend=dockerfile.v0", *local, *flags]


class Buildx(BuildKit):
    """docker buildx with the builder that BUILDX_BUILDER names: what most people type."""

    name = "buildx"
    moves = False

    def available(self) -> str:
        if shutil.which("docker-buildx") is None:
            return "no docker-buildx on PATH"
        if subprocess.run(["docker-buildx", "inspect"], capture_output=True).returncode != 0:
            return "buildx has no builder"
        return ""

    def command(self, context: Path, output: Path | None, cache: bool) -> list[str]:
        flags = [] if cache else ["--no-cache"]
        kind = f"type=oci,dest={output}" if output is not None else "type=cacheonly"
        return ["docker-buildx", "build", "-q", "--provenance=false", *flags, "-o", kind, str(context)]


class Buildah(Builder):
    """buildah with a layer for each step."""

    name = "buildah"

    def __init__(self, runner: Runner, work: Path) -> None:
        super().__init__(runner, work)
        self._storage = ["--root", str(work / "buildah"), "--runroot", str(work / "buildah-run")]

    def available(self) -> str:
        return "" if shutil.which("buildah") is not None else "no buildah on PATH"

    def forget(self) -> None:
        self.say(["buildah", *self._storage, "rmi", "--all", "--force"])

    def disk(self) -> int:
        return _bytes_in(self._work / "buildah")

    def command(self, context: Path, output: Path | None, cache: bool) -> list[str]:
        flags = ["--layers", "--tls-verify=false", "--runtime", "runc"] + ([] if cache else ["--no-cache"])
        tag = f"oci-archive:{output}" if output is not None else "localhost/bench"
        if output is not None:
            output.unlink(missing_ok=True)
        return ["buildah", *self._storage, "bud", "-q", *flags, "-t", tag, str(context)]


class Skopeo(Builder):
    """skopeo, which builds nothing: between a registry and a directory in the OCI layout."""

    name = "skopeo"
    builds = False
    moves = True

    def available(self) -> str:
        return "" if shutil.which("skopeo") is not None else "no skopeo on PATH"

    def forget(self) -> None:
        shutil.rmtree(self._work / "skopeo", ignore_errors=True)

    def disk(self) -> int:
        return _bytes_in(self._work / "skopeo")

    def pull(self, image: str) -> Ran:
        return self._copy(f"docker://{image}", f"oci:{self._work / 'skopeo'}:1")

    def get_ready(self, image: str, target: str) -> None:
        self.pull(image)

    def push(self, image: str, target: str) -> Ran:
        return self._copy(f"oci:{self._work / 'skopeo'}:1", f"docker://{target}")

    def _copy(self, source: str, target: str) -> Ran:
        tls = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        return self.say(["skopeo", "copy", "-q", "--insecure-policy", *tls, source, target])


def builders(runner: Runner, work: Path) -> list[Builder]:
    """shiplap first, then every peer."""
    return [kind(runner, work) for kind in (Shiplap, Library, BuildKit, Buildx, Buildah, Skopeo)]


def _bytes_in(root: Path) -> int:
    told = subprocess.run(["du", "-s", "-B1", str(root)], capture_output=True, text=True)
    return int(told.stdout.split()[0]) if told.stdout else 0
