"""``shiplap run IMAGE [COMMAND...]``."""

from __future__ import annotations

import argparse
import os
import sys
import threading

from shiplap.cli.ending import cancelling
from shiplap.cli.parsing import Parser, settings_of


def run(name: str, argv: list[str]) -> int:
    """Run a command over an image; its exit status is ours."""
    p = Parser("run", "Run a command in a new container from an image of the store. Nothing it writes is kept.")
    p.add_argument("-e", "--env", action="append", default=[], metavar="K=V", help="set a variable")
    p.add_argument("-w", "--workdir", default="", help="working directory")
    p.add_argument("-u", "--user", default="", help="user[:group]")
    p.add_argument(
        "-v", "--volume", action="append", default=[], metavar="HOST:TARGET[:ro]", help="bind a directory or file"
    )
    p.add_argument("--entrypoint", help="instead of the image's ENTRYPOINT")
    p.add_argument("--network", default="host", choices=("host", "none", "default"), help="network of the process")
    p.add_argument(
        "--platform",
        default="",
        metavar="PLATFORM",
        help="of an index: os/architecture[/variant] (default: this machine's, else the first)",
    )
    p.add_argument("--isolation", default="auto", choices=("auto", "oci", "native"), help="how it is isolated")
    p.add_argument("--rm", action="store_true", help="always so: accepted for habit's sake")
    p.add_argument("image", metavar="IMAGE")
    p.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    options = p.parse_args(argv)
    settings = settings_of(options)
    from shiplap.api.isolation import begin, enter_user_namespace

    if os.geteuid() != 0:
        enter_user_namespace()
    begin(network=options.network == "default")
    from shiplap.api.run import run_image

    lock = threading.Lock()

    def write(stream: int, data: bytes) -> None:
        out = sys.stdout if stream == 1 else sys.stderr
        if out is not None:
            with lock:
                out.buffer.write(data)
                out.buffer.flush()

    with cancelling() as cancel:
        return run_image(
            options.image,
            options.command,
            settings,
            write,
            env=options.env,
            workdir=options.workdir,
            user=options.user,
            entrypoint=options.entrypoint,
            network=options.network,
            volumes=options.volume,
            isolation=options.isolation,
            platform=options.platform,
            cancel=cancel,
        )
