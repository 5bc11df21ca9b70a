"""registries.conf, version 2 (containers-registries.conf(5)): prefixes, locations, mirrors, insecure and blocked."""

from __future__ import annotations

import os
import re
from typing import Any

from shiplap.errors import Place, UsageError
from shiplap.settings.network import Mirror, RegistryRule

FILE_LIMIT = 1 << 20
"""Largest configuration file that is read, in bytes."""

_PULLS = ("all", "digest-only", "tag-only")


def read_registries(files: tuple[str, ...], *, required: bool = False) -> tuple[RegistryRule, ...]:
    """Read the main file and the drop-in directories (``*.conf`` by name); the last rule for a prefix wins.

    ``required`` means that the first file was asked for by name and has to exist. Raises UsageError.
    """
    rules: dict[str, RegistryRule] = {}
    for position, path in enumerate(files):
        if os.path.isdir(path):
            names = sorted(name for name in os.listdir(path) if name.endswith(".conf"))
            paths = [os.path.join(path, name) for name in names]
        elif position == 0 and required and not os.path.exists(path):
            raise UsageError(
                "the file that CONTAINERS_REGISTRIES_CONF names does not exist",
                code="registries-conf",
                where=Place(path),
                hint="unset CONTAINERS_REGISTRIES_CONF or write the file",
            )
        else:
            paths = [path]
        for each in paths:
            for rule in _read_file(each):
                rules[rule.prefix] = rule
    return tuple(rules.values())


def _read_file(path: str) -> list[RegistryRule]:
    try:
        with open(path, "rb") as file:
            raw = file.read(FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _wrong(path, error.strerror or "cannot be read") from None
    if len(raw) > FILE_LIMIT:
        raise _wrong(path, f"is larger than {FILE_LIMIT} bytes")

    import tomllib

    try:
        document = tomllib.loads(raw.decode())
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise _wrong(path, f"is not TOML: {error}", int(line.group(1)) if line else None) from None
    except (UnicodeDecodeError, RecursionError):
        raise _wrong(path, "is not TOML in UTF-8") from None
    old = document.get("registries")
    if isinstance(old, dict) and any(
        isinstance(old.get(key), dict) and old[key].get("registries") for key in ("insecure", "block")
    ):
        raise _wrong(path, "is of version 1", hint="write it as version 2: one [[registry]] table a registry")
    tables = document.get("registry", [])
    if not isinstance(tables, list):
        raise _wrong(path, "registry must be an array of tables, [[registry]]")
    return [_rule(path, table) for table in tables]


def _rule(path: str, table: Any) -> RegistryRule:
    if not isinstance(table, dict):
        raise _wrong(path, "registry must be an array of tables, [[registry]]")
    location = _place(path, table, "location")
    prefix = _place(path, table, "prefix") or location
    if not prefix:
        raise _wrong(path, "a [[registry]] has neither prefix nor location")
    wildcard = prefix.startswith("*.")
    if "*" in (prefix[2:] if wildcard else prefix) or (wildcard and ("/" in prefix or len(prefix) < 3)):
        raise _wrong(path, f"prefix {prefix!r} is not of the form *.example.com")
    if "*" in location:
        raise _wrong(path, f"location {location!r} cannot hold a wildcard")
    mirrors = table.get("mirror", [])
    if not isinstance(mirrors, list):
        raise _wrong(path, "mirror must be an array of tables, [[registry.mirror]]")
    only = "digest-only" if _flag(path, table, "mirror-by-digest-only") else "all"
    return RegistryRule(
        prefix=prefix,
        location=location or ("" if wildcard else prefix),
        insecure=_flag(path, table, "insecure"),
        blocked=bool(_flag(path, table, "blocked")),
        mirrors=tuple(_mirror(path, mirror, only) for mirror in mirrors),
    )


def _mirror(path: str, table: Any, only: str) -> Mirror:
    if not isinstance(table, dict):
        raise _wrong(path, "mirror must be an array of tables, [[registry.mirror]]")
    location = _place(path, table, "location")
    if not location or "*" in location:
        raise _wrong(path, "a mirror needs a location without wildcard")
    pull = table.get("pull-from-mirror", only)
    if pull not in _PULLS:
        raise _wrong(path, f"pull-from-mirror is {str(pull)[:40]!r}", hint="use one of " + ", ".join(_PULLS))
    return Mirror(location, _flag(path, table, "insecure"), pull)


def _place(path: str, table: dict[str, Any], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise _wrong(path, f"{key} must be text")
    if "://" in value:
        raise _wrong(path, f"{key} cannot be a URL", hint="leave out http:// or https://")
    if re.search(r"[\s@?#\\]", value):
        # Not shown: what stands before an @ could be a password.
        raise _wrong(path, f"{key} is not host[:port][/path]")
    return value.rstrip("/")


def _flag(path: str, table: dict[str, Any], key: str) -> bool | None:
    value = table.get(key)
    if value is not None and not isinstance(value, bool):
        raise _wrong(path, f"{key} must be true or false")
    return value


def _wrong(path: str, why: str, line: int | None = None, hint: str | None = None) -> UsageError:
    return UsageError(
        f"registries.conf: {why}",
        code="registries-conf",
        where=Place(path, line),
        hint=hint or "see containers-registries.conf(5)",
    )
