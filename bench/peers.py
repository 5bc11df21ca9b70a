"""The builders: how each is asked to build a context into an OCI archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


class Builder:
    """One way to build. ``build`` raises CalledProcessError with what the builder said."""

    name = ""

    def available(self) -> str:
        """What stands in the way, empty if nothing does."""
        raise NotImplementedError

    def command(self, context: Path, output: Path | None, cache: bool) -> list[str]:
        """The command line; ``output`` None: the result stays where the builder keeps it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def build(self, context: Path, output: Path | None, cache: bool) -> None:
        command = self.command(context, output, cache)
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment())
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {' '.join(command)}\n{done.stdout}{done.stderr}")


class Shiplap(Builder):
    """This one, as an installed command with a store of its own."""

    name = "shiplap"

    def __init__(self, work: Path) -> None:
        self._root = work / "shiplap"

    def available(self) -> str:
        return ""

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SHIPLAP_ROOT": str(self._root)}

    def command(self, context: Path, output: Path | None, cache: bool) -> list[str]:
        flags = [] if cache else ["--no-cache"]
        kind = f"type=oci,dest={output}" if output is not None else "type=cacheonly"
        program = Path(sys.executable).with_name("shiplap")
        return [str(program), "build", "-q", *flags, "-o", kind, str(context)]


class BuildKit(Builder):
    """buildctl against the daemon that BUILDKIT_HOST names; the daemon is warm, and not counted."""

    name = "BuildKit"

    def available(self) -> str:
        if shutil.which("buildctl") is None:
            return "no buildctl on PATH"
        if subprocess.run(["buildctl", "debug", "workers"], capture_output=True).returncode != 0:
            return "no buildkitd answers at BUILDKIT_HOST"
        return ""

    def command(self, context: Path, output: Path | None, cache: bool) -> list[str]:
        flags = [] if cache else ["--no-cache"]
        if output is not None:
            flags += ["--output", f"type=oci,dest={output}"]
        local = ["--local", f"context={context}", "--local", f"dockerfile={context}"]
        return ["buildctl", "build", "--progress=plain", "--frontend=dockerfile.v0", *local, *flags]


class Buildx(BuildKit):
    """docker buildx with the builder that BUILDX_BUILDER names: what most people type."""

    name = "buildx"

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

    def __init__(self, work: Path) -> None:
        self._work = work

    def available(self) -> str:
        return "" if shutil.which("buildah") is not None else "no buildah on PATH"

    def command(self, context: Path, output: Path | None, cache: bool) -> list[str]:
        storage = ["--root", str(self._work / "buildah"), "--runroot", str(self._work / "buildah-run")]
        flags = ["--layers", "--tls-verify=false", "--runtime", "runc"] + ([] if cache else ["--no-cache"])
        tag = f"oci-archive:{output}" if output is not None else "localhost/bench"
        if output is not None:
            output.unlink(missing_ok=True)
        return ["buildah", *storage, "bud", "-q", *flags, "-t", tag, str(context)]


def builders(work: Path) -> list[Builder]:
    """shiplap first, then every peer."""
    return [Shiplap(work), BuildKit(), Buildx(), Buildah(work)]
