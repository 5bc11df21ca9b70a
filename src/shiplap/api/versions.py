"""What is told of the commit that the build context has checked out: in provenance, and in labels that one asks for.

Nothing is asked of git unless one of them is wanted. Names and meaning are buildx's (its ``build/git.go``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from shiplap.errors import ContextError
from shiplap.settings import Settings


class Version(NamedTuple):
    """``facts``: ``revision``, ``source``, ``localdir:NAME`` (where each local directory lies in the repository), as
    provenance has them; ``labels`` for the image; ``warning``: why it could not be found out, if it could not.
    """

    facts: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    warning: str = ""


def version_of(
    directory: str,
    dockerfile: str,
    others: Mapping[str, str],
    settings: Settings,
    check: Callable[[], None] = lambda: None,
) -> Version:
    """The version of ``directory``. ``dockerfile``: its path, empty if it is no file of this machine; ``others``:
    directories of named contexts. ``check`` is called often, and raises if the build was cancelled.
    """
    from shiplap.ops.checkout import look

    asked = settings.versions
    try:
        found = look(
            os.path.realpath(directory),
            settings.helper_path,
            dict(asked.environment),
            dirty=asked.dirty,
            check=check,
        )
    except ContextError as error:
        return Version(warning=f"the commit of the build context is not told: {error.message}{_advice(error.hint)}")
    if found is None:
        return Version()
    facts = {"revision": found.revision, "source": found.source}
    labels = {
        "org.opencontainers.image.revision": found.revision,
        "org.opencontainers.image.source": found.source,
        # Where the Dockerfile lies in the repository, by Docker's own name for that.
        "com.docker.image.source.entrypoint": _within(found.root, dockerfile) if dockerfile else "",
    }
    directories = {
        "context": directory,
        "dockerfile": os.path.dirname(os.path.abspath(dockerfile)) if dockerfile else "",
        **others,
    }
    facts.update((f"localdir:{name}", _within(found.root, path)) for name, path in directories.items() if path)
    return Version(
        _given(facts.items()) if asked.told else {},
        _given(labels.items()) if asked.labels else {},
    )


def _within(root: str, path: str) -> str:
    """``path`` from the root of the repository on; empty if it lies elsewhere."""
    directory, name = os.path.split(os.path.abspath(path))
    # A Dockerfile that is a link lies where the link is; a directory is where it leads to.
    found = os.path.realpath(path) if os.path.isdir(path) else os.path.join(os.path.realpath(directory), name)
    relative = os.path.relpath(found, root)
    return relative if not relative.startswith("..") else ""


def _given(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {key: value for key, value in items if value}


def _advice(hint: str | None) -> str:
    return f" ({hint})" if hint else ""
