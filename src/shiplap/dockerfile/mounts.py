"""``RUN --mount=key=value,…``: one CSV record, its keys and their rules (reference 2.4.1)."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import parse_uint, quote
from shiplap.dockerfile.suggest import did_you_mean
from shiplap.settings.boolean import parse_bool

KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
_KEYS = (
    *("type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid"),
    *("src", "dst", "destination", "ro", "rw", "readwrite", "env"),
)
_SIZE = r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgtp])?(?:i?b)?)"
_CSV_CODES = {"mounts": "invalid-mount", "devices": "invalid-device"}
_ORDER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


class MountFlag(msgspec.Struct):
    """One ``--mount`` as written, its values expanded; None where a key was not given."""

    kind: str = "bind"
    source_stage: str = ""
    source: str = ""
    target: str = ""
    readonly: bool | None = None
    size: int = 0
    id: str = ""
    sharing: str = ""
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def mount_from(value: str) -> str:
    """The ``from`` of a ``--mount``, needed before variables are known. Raises Fault if it holds one."""
    source = ""
    for field in fields(value):
        key, equals, text = field.partition("=")
        if equals and key.lower() == "from":
            mark = text.find("$")
            if 0 <= mark < len(text) - 1:
                raise Fault(
                    "'from' doesn't support variable expansion, define alias stage instead",
                    code="from-variable",
                    hint="FROM $IMAGE AS alias, with a global ARG, then from=alias",
                    at=field,
                )
            source = text
    return source


def parse_mount(value: str, expand: Callable[[str], str]) -> MountFlag:
    """Read one ``--mount``; ``expand`` resolves variables in its values. Raises Fault."""
    mount = MountFlag()
    for field in fields(value):
        key, equals, text = field.partition("=")
        key = key.lower()
        if not equals:
            _word(mount, key, field)
        else:
            _pair(mount, key, expand(text), field)
    _check(mount)
    return mount


def device_name(value: str) -> str:
    """The device that ``--device=name[,required]`` asks for. Raises Fault."""
    name = ""
    for field in fields(value, "devices"):
        key, equals, text = field.partition("=")
        known = key.lower() if equals or key.lower() == "required" else ""
        if known == "name":
            if name:
                raise Fault(
                    f"device name already set to {name}",
                    code="invalid-device",
                    hint="one device for each --device",
                    at=field,
                )
            name = text
        elif known == "required":
            if equals and parse_bool(text) is None:
                raise Fault(
                    f"invalid value for required: {text}", code="invalid-device", hint="write true or false", at=field
                )
        elif not name:
            name = field
        elif not equals:
            raise Fault(
                f"invalid field '{field}' must be a key=value pair",
                code="invalid-device",
                hint="write --device=name[,required]",
                at=field,
            )
        else:
            meant = did_you_mean(known, ("name", "required"))
            raise Fault(
                f"unexpected key '{known}' in '{field}'{meant}",
                code="invalid-device",
                hint="write --device=name[,required]",
                at=field,
            )
    return name


def _word(mount: MountFlag, key: str, field: str) -> None:
    if key in ("readonly", "ro"):
        mount.readonly = True
    elif key in ("readwrite", "rw"):
        mount.readonly = False
    elif key == "required":
        _only_for(mount, key, "secret", "ssh")
        mount.required = True
    else:
        raise Fault(
            f"invalid field '{field}' must be a key=value pair",
            code="invalid-mount",
            hint="write key=value; readonly, ro, rw, readwrite and required may stand alone",
            at=field,
        )


def _pair(mount: MountFlag, key: str, value: str, field: str) -> None:
    if key == "type":
        if value.lower() not in KINDS:
            raise Fault(
                f"unsupported mount type {quote(value)}{did_you_mean(value, KINDS)}",
                code="invalid-mount",
                hint="one of " + ", ".join(KINDS),
                at=field,
            )
        mount.kind = value.lower()
    elif key == "from":
        mount.source_stage = value
    elif key in ("source", "src"):
        mount.source = value
    elif key in ("target", "dst", "destination"):
        mount.target = value
    elif key in ("readonly", "ro", "readwrite", "rw"):
        mount.readonly = _truth(key, value) == (key in ("readonly", "ro"))
    elif key == "required":
        _only_for(mount, key, "secret", "ssh")
        mount.required = _truth(key, value)
    elif key == "size":
        _only_for(mount, key, "tmpfs")
        mount.size = _bytes(value)
    elif key == "id":
        mount.id = value
    elif key == "sharing":
        if value.lower() not in SHARING:
            raise Fault(
                f"unsupported sharing value {quote(value)}{did_you_mean(value, SHARING)}",
                code="invalid-mount",
                hint="one of " + ", ".join(SHARING),
                at=field,
            )
        mount.sharing = value.lower()
    elif key in ("mode", "uid", "gid"):
        number = parse_uint(value, 8 if key == "mode" else 10, 32)
        if number is None:
            raise Fault(
                f"invalid value {value} for {key}",
                code="invalid-mount",
                hint="write an octal number" if key == "mode" else "write a number",
                at=field,
            )
        setattr(mount, key, number)
    elif key == "env":
        mount.env = value
    else:
        raise Fault(
            f"unexpected key '{key}' in '{field}'{did_you_mean(key, _KEYS)}",
            code="invalid-mount",
            hint="one of " + ", ".join(_KEYS),
            at=field,
        )


def _check(mount: MountFlag) -> None:
    kind = mount.kind
    if kind not in ("secret", "ssh", "cache"):
        for key in ("mode", "uid", "gid"):
            if getattr(mount, key) is not None:
                raise Fault(
                    f"{key} not allowed for {quote(kind)} type mounts",
                    code="invalid-mount",
                    hint=f"{key} is for cache, secret and ssh",
                    at=key,
                )
    if mount.readonly is None:
        mount.readonly = kind not in ("cache", "tmpfs")
    if kind == "secret":
        if mount.source_stage:
            raise Fault(
                "secret mount should not have a from",
                code="invalid-mount",
                hint="a secret is given on the command line, with --secret",
                at="from",
            )
        if mount.sharing:
            raise Fault(
                "secret mount should not define sharing",
                code="invalid-mount",
                hint="sharing is for type=cache",
                at="sharing",
            )
        if not (mount.source or mount.target or mount.id):
            raise Fault("invalid secret mount. one of source, target required", code="invalid-mount", hint="add id=…")
        if mount.source and mount.id:
            raise Fault("both source and id can't be set", code="invalid-mount", hint="keep id")
    if mount.sharing and kind != "cache":
        raise Fault(
            f"invalid cache sharing set for {kind} mount",
            code="invalid-mount",
            hint="sharing is for type=cache, and type= comes first",
            at="sharing",
        )


def _only_for(mount: MountFlag, key: str, *allowed: str) -> None:
    if mount.kind not in allowed:
        raise Fault(
            f"unexpected key '{key}' for mount type '{mount.kind}'",
            code="invalid-mount",
            hint=f"type= has to come first; {key} is for " + " and ".join(allowed),
            at=key,
        )


def _truth(key: str, value: str) -> bool:
    truth = parse_bool(value)
    if truth is None:
        raise Fault(f"invalid value for {key}: {value}", code="invalid-mount", hint="write true or false")
    return truth


def _bytes(value: str) -> int:
    """``docker/go-units`` RAMInBytes: ``64m``, ``1.5GiB``, ``1024``."""
    found = re.fullmatch(_SIZE, value.strip(), re.IGNORECASE)
    if found is None or len(found[1]) > 18:
        raise Fault(f"invalid value for size: {value}", code="invalid-mount", hint="write bytes, or 64m, 1g")
    return int(float(found[1]) * 1024 ** _ORDER[(found[2] or "").lower()])


def fields(record: str, what: str = "mounts") -> list[str]:
    """The fields of one CSV record (RFC 4180, Go's strict reader). Raises Fault."""
    line = record.removesuffix("\n").removesuffix("\r") if record.endswith("\n") else record
    if not line:
        hint = "write --mount=type=…,target=…" if what == "mounts" else "write --device=name[,required]"
        raise Fault(f"failed to parse csv {what}: EOF", code=_CSV_CODES[what], hint=hint)
    out: list[str] = []
    place = 0
    while True:
        if not line.startswith('"', place):
            end = line.find(",", place)
            field = line[place:] if end < 0 else line[place:end]
            bare = field.find('"')
            if bare >= 0:
                raise _csv(what, record, place + bare, 'bare " in non-quoted-field')
            out.append(field)
            if end < 0:
                return out
            place = end + 1
            continue
        parts: list[str] = []
        place += 1
        while True:
            end = line.find('"', place)
            if end < 0:
                raise _csv(what, record, place, 'extraneous or missing " in quoted-field')
            parts.append(line[place:end])
            place = end + 1
            if line.startswith('"', place):
                parts.append('"')
                place += 1
                continue
            break
        out.append("".join(parts))
        if place == len(line):
            return out
        if line[place] != ",":
            raise _csv(what, record, place - 1, 'extraneous or missing " in quoted-field')
        place += 1


def _csv(what: str, record: str, column: int, why: str) -> Fault:
    column = len(record[:column].encode("utf-8", "surrogateescape"))
    return Fault(
        f"failed to parse csv {what}: parse error on line 1, column {column + 1}: {why}",
        code=_CSV_CODES[what],
        hint='quote a whole field, and write "" for a quote in it',
    )
