"""Paths of images, as text: Go's ``path.Join``, and how BuildKit makes destinations absolute. No file is touched."""

from __future__ import annotations

from shiplap.dockerfile.fault import Fault
from shiplap.trees.patterns import clean


def without_nul(text: str, what: str) -> str:
    """``text``, if no path or argument would end early at a NUL byte. Raises Fault."""
    if "\0" in text:
        raise Fault(f"{what} holds a NUL byte", code="nul-byte", hint="take it out, or keep it in a file")
    return text


def join(*parts: str) -> str:
    """Go's ``path.Join``: empty parts are left out, the result is clean."""
    kept = [part for part in parts if part]
    return clean("/".join(kept)) if kept else ""


def normalize(parent: str, path: str, *, keep_slash: bool) -> str:
    """``path`` made absolute from ``parent``: an absolute one stays as it is, a relative one is joined and cleaned.

    ``keep_slash``: a trailing ``/`` or ``/.`` survives, for it says "directory" (BuildKit util/system, NormalizePath).
    """
    base = parent or "/"
    without_nul(path, "path")
    if not base.startswith("/"):
        base = join("/", base)
    result = path or base
    if not result.startswith("/"):
        result = join(base, result)
    if keep_slash:
        if path.endswith("/") and not result.endswith("/"):
            result += "/"
        elif path.endswith("/."):
            result += "." if result == "/" else "/."
    return result


def destination(cwd: str, path: str) -> str:
    """Where COPY puts things: absolute and clean, with a trailing ``/`` or ``/.`` kept."""
    if path.startswith("/"):
        made = normalize("/", path, keep_slash=True)
    else:
        made = normalize(cwd, "./" if path in (".", "") else path, keep_slash=True)
    tidy = clean(made)
    if made.endswith("/."):
        return "/." if tidy == "/" else tidy + "/."
    return tidy + "/" if made.endswith("/") and tidy != "/" else tidy
