"""``shiplap build``: flags and defaults are those of ``docker build`` and ``docker buildx build``."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiplap.api.repeat import answer
from shiplap.cli.again import local_dockerfile, question
from shiplap.cli.ending import cancelling
from shiplap.cli.parsing import Parser, pairs, settings_of, standard_input, write_error
from shiplap.cli.sizes import parse_size
from shiplap.cli.view import progress_mode, view
from shiplap.errors import ExportError, UsageError
from shiplap.settings import Settings
from shiplap.settings.boolean import parse_bool

if TYPE_CHECKING:
    from shiplap.events.facts import Sink

_LOOK = 64 << 10
"""Bytes of a Dockerfile that are looked at before it is read in earnest."""
_EPILOG = """examples:
  shiplap build -t app .                                build ./Dockerfile into the store
  shiplap build --target builder -o out .               stop at a stage, write its files to ./out
  shiplap build -o type=oci,dest=app.tar .              an OCI archive
  shiplap build -t registry.example/app:1 --push .      push it
  tar c . | shiplap build -                             the context on standard input
  shiplap build https://host/repo.git#branch:directory  the context from a git repository
"""


def parser(name: str = "build", what: str = "Build an image from a Dockerfile.") -> Parser:
    """The flags of build; ``what`` the command does with them."""
    p = Parser(name, what, epilog=_EPILOG)
    add = p.add_argument
    add(
        "context",
        metavar="PATH | URL | -",
        help="directory of the build context, a git repository or file by its URL, or - for a tar or a Dockerfile on "
        "standard input",
    )
    add(
        "-f", "--file", metavar="FILE", help="the Dockerfile (default: PATH/Dockerfile); - reads it from standard input"
    )
    add("-t", "--tag", action="append", metavar="NAME", help="name[:tag] of the image; may be repeated")
    add("--target", default="", metavar="STAGE", help="the stage to build (default: the last)")
    add("--build-arg", action="append", metavar="K=V", help="value of an ARG; K alone takes it from the environment")
    add("--label", action="append", metavar="K=V", help="a label of the image")
    add(
        "--annotation",
        action="append",
        metavar="[WHERE:]K=V",
        help="an annotation of the manifest, or WHERE: manifest, index, manifest-descriptor, index-descriptor, each "
        "with [PLATFORM]",
    )
    add(
        "--platform",
        action="append",
        metavar="P[,P]",
        help="os/architecture[/variant] of the result; several make an image for each and an index of them",
    )
    add("--secret", action="append", metavar="id=,src=|env=", help="a secret for RUN --mount=type=secret")
    add("--ssh", action="append", metavar="default|ID[=SOCKET]", help="an agent socket for RUN --mount=type=ssh")
    add(
        "-o",
        "--output",
        action="append",
        metavar="type=,dest=",
        help="where the result goes: type=oci|docker|local|tar|image|registry",
    )
    add("--load", action="store_true", help="give the image to the running Docker or Podman, too, if there is one")
    add("--push", action="store_true", help="push the image to the registry of its name")
    add("--pull", action="store_true", help="ask registries again for base images that the store has")
    add("--no-cache", action="store_true", help="run every step, whatever was built before")
    add("--no-cache-filter", action="append", metavar="STAGE", help="run every step of these stages")
    add("--network", default="default", choices=("default", "none", "host"), help="the network of RUN steps")
    add(
        "--progress",
        default="",
        choices=("auto", "plain", "tty", "quiet", "rawjson", "none"),
        help="how progress is shown",
    )
    add(
        "-q",
        "--quiet",
        action="store_true",
        help="print nothing but the image's id: the digest of its config, or of the index of several",
    )
    add("--iidfile", metavar="FILE", help="write the image's id to FILE, as -q prints it")
    add("--metadata-file", metavar="FILE", help="write what came of the build to FILE, as JSON")
    add("--check", action="store_true", help="say what may be wrong in the Dockerfile, and build nothing")
    add("--call", default="", metavar="WHAT", help="build, check, outline or targets[,format=json]: what to do")
    add(
        "--attest",
        action="append",
        metavar="type=provenance|sbom",
        help="put an attestation beside the image: type=provenance,mode=min|max,version=v1|v0.2 or type=sbom",
    )
    add("--provenance", default="", metavar="true|mode=…", help="as --attest type=provenance")
    add("--sbom", default="", metavar="true", help="as --attest type=sbom")
    add(
        "--reproducible",
        action="store_true",
        help="one digest, whenever and wherever it is built, if the steps do the same: all times are SOURCE_DATE_EPOCH "
        "(default: 1980-01-01)",
    )
    add("--isolation", default="auto", choices=("auto", "oci", "native"), help="how steps are isolated")
    add(
        "--build-context",
        action="append",
        metavar="NAME=VALUE",
        help="a further context: a directory, docker-image://NAME, oci-layout://DIRECTORY[:TAG], a git or http URL, "
        "target:STAGE",
    )
    add("--add-host", action="append", metavar="NAME=IP", help="a line of /etc/hosts for RUN steps")
    add("--shm-size", default="", metavar="SIZE", help="size of /dev/shm in RUN steps")
    add("--ulimit", action="append", metavar="NAME=SOFT[:HARD]", help="a resource limit of RUN steps")
    add("--allow", action="append", metavar="WHAT", help="network.host, security.insecure")
    add(
        "--max-used-space",
        default="",
        metavar="SIZE",
        help="the store may take no more than this: what nobody uses goes first, least recently used before the rest "
        "(default: SHIPLAP_MAX_USED_SPACE, else no limit)",
    )
    add("--builder", default="", help=argparse.SUPPRESS)
    add("--cache-from", action="append", help=argparse.SUPPRESS)
    add("--cache-to", action="append", help=argparse.SUPPRESS)
    return p


def run(name: str, argv: list[str]) -> int:
    """Build."""
    options = parser(name).parse_args(argv)
    settings = settings_of(options)
    called = "check" if options.check else options.call
    if called not in ("", "build"):
        from shiplap.cli.check import call

        return call(called, request_of(options, settings), settings)
    mode = "quiet" if options.quiet else progress_mode(options.progress, settings)
    asked = question(options, settings, mode)
    known = answer(asked) if asked is not None else None
    if known is not None:
        write_error(known.shown[mode])
        return _ended(options, mode, known.result)
    from shiplap.api.isolation import begin, enter_user_namespace

    if os.geteuid() != 0:
        enter_user_namespace()
    if _has_steps(options):
        begin(network=options.network == "default")
    request = request_of(options, settings)
    from shiplap.api.building import build

    with view(mode, settings) as sink, cancelling() as cancel:
        _warn_ignored(options, sink)
        result = build(request, events=sink, cancel=cancel, question=asked)
    return _ended(options, mode, result)


def _has_steps(options: argparse.Namespace) -> bool:
    """Whether a look into the Dockerfile finds a RUN; if it lies elsewhere, or is a pipe that gives it once, nobody looks."""
    dockerfile = local_dockerfile(options)
    if not os.path.isfile(dockerfile):
        return False
    try:
        with open(dockerfile, "rb") as file:
            return re.search(rb"(?im)^[ \t]*RUN[ \t]", file.read(_LOOK)) is not None
    except OSError:
        return False


def _ended(options: argparse.Namespace, mode: str, result: Any) -> int:
    _write_files(options, result)
    if mode == "quiet" and result.digest:
        print(result.config_digest or result.digest)
    elif mode in ("plain", "tty"):
        write_error(summary(result))
    return 0


def request_of(options: argparse.Namespace, settings: Settings) -> Any:
    """The request that the flags make."""
    from shiplap.api.request import Output, Request, Secret

    context_data = dockerfile_data = None
    if options.context == "-" and options.file == "-":
        raise UsageError("the context and the Dockerfile cannot both come on standard input", code="two-from-stdin")
    if options.context == "-":
        context_data = standard_input().read()
    elif options.file == "-":
        dockerfile_data = standard_input().read()
    arguments: dict[str, str | None] = {}
    for text in options.build_arg or ():
        key, equals, value = text.partition("=")
        arguments[key] = value if equals else None
    return Request(
        context=options.context,
        context_data=context_data,
        dockerfile=options.file if options.file != "-" else None,
        dockerfile_data=dockerfile_data,
        target=options.target,
        tags=tuple(options.tag or ()),
        build_args=arguments,
        labels=pairs([t if "=" in t else f"{t}=" for t in options.label or ()], "--label"),
        platform=tuple(options.platform or ()),
        annotations=tuple(options.annotation or ()),
        attests=tuple(_attests(options)),
        reproducible=options.reproducible,
        describe=settings.metadata_provenance if options.metadata_file else "",
        secrets=tuple(Secret.parse(text) for text in options.secret or ()),
        ssh=dict(_ssh(text, settings) for text in options.ssh or ()),
        outputs=tuple(Output.parse(text) for text in options.output or ()),
        push=options.push,
        load=options.load,
        pull=options.pull,
        no_cache=options.no_cache,
        no_cache_filter=tuple(n for text in options.no_cache_filter or () for n in text.split(",")),
        network=options.network,
        isolation=options.isolation,
        build_contexts=pairs(options.build_context, "--build-context"),
        add_hosts=tuple(options.add_host or ()),
        shm_size=_size(options.shm_size),
        ulimits=tuple(options.ulimit or ()),
        allow=tuple(a for text in options.allow or () for a in text.split(",")),
        root=options.root,
        max_used_space=parse_size(options.max_used_space, "--max-used-space"),
    )


def _attests(options: argparse.Namespace) -> list[str]:
    given: list[str] = []
    for kind, value in (("provenance", options.provenance), ("sbom", options.sbom)):
        truth = parse_bool(value)
        if value:
            given.append(f"type={kind}" + {True: "", False: ",disabled=true", None: f",{value}"}[truth])
    return [*given, *(options.attest or ())]  # of two of a type the later counts


def _ssh(text: str, settings: Settings) -> tuple[str, str]:
    name, _, socket = text.partition("=")
    socket = socket or settings.ssh_agent
    if not socket:
        raise UsageError(
            f"--ssh {text}: no agent is running", code="no-ssh-agent", hint="start ssh-agent, or name its socket"
        )
    return name, os.path.abspath(socket)


def _size(text: str) -> int:
    if not text:
        return 0
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([bkmgt]?)(?:i?b)?", text.lower())
    if match is None:
        raise UsageError(f"invalid size {text!r}", code="bad-command-line", hint="write 64m, 1g or a number of bytes")
    return int(float(match.group(1)) * (1 << {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match.group(2)]))


def _warn_ignored(options: argparse.Namespace, sink: Sink) -> None:
    from shiplap.events.facts import Warned

    if options.cache_from or options.cache_to:
        sink(Warned("--cache-from and --cache-to are not supported yet: only the store's own cache is used"))


def _write_files(options: argparse.Namespace, result: Any) -> None:
    """``--iidfile`` (of one image: the digest of its config, as docker's image id) and ``--metadata-file``."""
    if options.iidfile:
        _write(options.iidfile, result.config_digest or result.digest)
    if options.metadata_file:
        import json

        _write(options.metadata_file, json.dumps(_metadata(result), indent=2) + "\n")


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}", code="cannot-write") from None


def _metadata(result: Any) -> dict[str, Any]:
    """What buildx writes, under its names; ``buildx.build.ref`` ends with the name of the build's record."""
    told: dict[str, Any] = {}
    for platform, predicate in result.provenance.items():
        told["buildx.build.provenance" + (f"/{platform}" if "," in result.platform else "")] = predicate
    if result.id:
        told["buildx.build.ref"] = f"default/default/{result.id}"
    if result.digest:
        if result.config_digest:
            told["containerimage.config.digest"] = result.config_digest
        descriptor: dict[str, Any] = {"mediaType": result.media_type, "digest": result.digest, "size": result.size}
        if result.annotations:
            descriptor["annotations"] = dict(result.annotations)
        if result.config_digest:
            descriptor["platform"] = _platform(result.platform)
        told["containerimage.descriptor"] = descriptor
        told["containerimage.digest"] = result.digest
        if result.names:
            told["image.name"] = ",".join(result.names)
    return dict(sorted(told.items()))


def _platform(text: str) -> dict[str, str]:
    system, architecture, variant = (*text.split("/"), "", "")[:3]
    return {"architecture": architecture, "os": system, **({"variant": variant} if variant else {})}


def summary(result: Any) -> str:
    """The last lines of a build."""
    built = [stage.name or f"stage-{stage.index}" for stage in result.stages if stage.needed]
    skipped = [stage.name or f"stage-{stage.index}" for stage in result.stages if not stage.needed]
    lines = [
        "",
        f"built {', '.join(built)}"
        + (f" (skipped {', '.join(skipped)})" if skipped else "")
        + f": {len(result.steps_run)} steps run, {len(result.steps_reused)} reused, {result.seconds:.2f}s",
    ]
    if result.digest:
        from shiplap.events.plain import size_text

        named = f" as {', '.join(result.names)}" if result.names else ""
        lines.append(f"image {result.digest}{named}, {size_text(result.image_size)}")
    lines.extend(f"wrote {path}" for path in result.outputs if path != "-")
    return "\n".join(lines) + "\n"
