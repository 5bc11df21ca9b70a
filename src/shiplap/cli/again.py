"""Whether a command line asks for what may have been built before, and for what exactly."""

from __future__ import annotations

import argparse
import json
import os

from shiplap import __version__
from shiplap.api.repeat import Question
from shiplap.settings import Settings

_NOT_AGAIN = (
    "no_cache",
    "no_cache_filter",
    "pull",
    "push",
    "load",
    "build_context",
    "provenance",
    "sbom",
    "attest",
    "cache_from",
    "cache_to",
)
"""Flags with which a build always takes the long way: they ask others, or ask for more than a result."""
_NO_MATTER = {"quiet", "progress", "iidfile", "root", "context", "file", "secret", "ssh", "builder"}
"""Flags that change nothing of the result. Values of secrets are in no cache key either."""


def question(options: argparse.Namespace, settings: Settings, mode: str) -> Question | None:
    """What ``shiplap build`` was asked, if that can be answered from a record."""
    given = vars(options)
    if mode == "rawjson" or any(given.get(flag) for flag in _NOT_AGAIN):
        return None
    dockerfile = local_dockerfile(options)
    if not dockerfile:
        return None
    outputs = [_repeatable(text) for text in options.output or ()]
    if not all(outputs):
        return None
    context = os.path.realpath(options.context)
    arguments = {text: os.environ.get(text) for text in options.build_arg or () if "=" not in text}
    version = _version(options, settings, context)
    if version is None:
        return None
    asked = {
        "version": __version__,
        "user": os.geteuid(),
        "options": {name: value for name, value in given.items() if name not in _NO_MATTER and value},
        "named": options.file,
        "where": os.getcwd() if options.file or outputs else "",
        "environment": arguments,
        "settings": [
            settings.default_platform,
            settings.docker_buildkit,
            settings.source_date_epoch,
            settings.metadata_provenance if options.metadata_file else "",
        ],
        "commit": version,
    }
    files = (dockerfile, f"{dockerfile}.dockerignore", os.path.join(context, ".dockerignore"))
    if not os.path.isfile(dockerfile):
        return None
    return Question(json.dumps(asked, sort_keys=True, default=str), settings.root, context, files)


def local_dockerfile(options: argparse.Namespace) -> str:
    """Absolute path of the Dockerfile in or for a directory of this machine; empty if either comes from elsewhere."""
    if "-" in (options.file, options.context) or not os.path.isdir(options.context):
        return ""
    context = os.path.realpath(options.context)
    return os.path.join(context, "Dockerfile") if options.file is None else os.path.abspath(options.file)


def _version(options: argparse.Namespace, settings: Settings, context: str) -> dict[str, str] | None:
    """What git says of the context, if the metadata file is to tell it; None if a build has to find out and warn.

    A commit changes no file that a build looks at.
    """
    if settings.versions.labels:
        return None
    if not (options.metadata_file and settings.metadata_provenance and settings.versions.told):
        return {}
    from shiplap.api.versions import version_of

    found = version_of(context, options.file or os.path.join(context, "Dockerfile"), {}, settings)
    return dict(found.facts) if not found.warning else None


def _repeatable(text: str) -> bool:
    """Whether an ``--output`` is a file or the store."""
    fields = dict(field.partition("=")[::2] for field in text.split(","))
    kind, dest = fields.get("type"), fields.get("dest", "")
    if '"' in text or "push" in fields or fields.get("tar"):
        return False
    return kind in ("image", "cacheonly") or (kind in ("oci", "docker") and dest not in ("", "-"))
