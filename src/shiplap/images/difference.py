"""How two images differ: by config, by step, by file and by byte. Nothing is unpacked; only layers that differ are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shiplap.images.bytewise import ByteDifference, Side, compare_bytes
from shiplap.images.choose import choose_manifest
from shiplap.images.contents import FileFact, Layers, lay_over, plain_fact
from shiplap.images.place import Source, read_small
from shiplap.oci.config import CONFIG_LIMIT, ImageConfig, parse_config
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor, Manifest, decode_json
from shiplap.oci.platform import Platform

_TIMES = ("mtime", "created")


class Compared(msgspec.Struct, frozen=True):
    """One of the two: what it is called, its manifest's and its config's digest, and its platform."""

    name: str
    digest: Digest
    id: Digest
    platform: str


class ConfigDifference(msgspec.Struct, frozen=True):
    """``path`` as ``config.Env[2]``; None where a side has nothing."""

    path: str
    a: Any
    b: Any


class Step(msgspec.Struct, frozen=True):
    """A step of an image's making; ``layer`` is the digest of its difference before compression, empty if it has none."""

    created_by: str
    created: str
    comment: str
    layer: Digest
    packed: Digest
    size: int


class StepDifference(msgspec.Struct, frozen=True):
    """``number`` counts from 1. ``what``: which fields differ; empty where a side has no such step."""

    number: int
    a: Step | None
    b: Step | None
    what: tuple[str, ...]


class FileDifference(msgspec.Struct, frozen=True):
    """``what``: fields that differ, of kind, mode, owner, size, content, mtime, link, device, xattrs. ``a_step`` and
    ``b_step``: the numbers of the steps that wrote it, 0 where there is no such file."""

    path: str
    a: FileFact | None
    b: FileFact | None
    what: tuple[str, ...]
    a_step: int = 0
    b_step: int = 0
    content: ByteDifference | None = None


class Difference(msgspec.Struct, frozen=True):
    """What ``diff_images`` found. ``same``: same config, same steps, same files. ``identical``: the same bytes throughout;
    what is the same and not identical is only packed in another way."""

    a: Compared
    b: Compared
    config: tuple[ConfigDifference, ...] = ()
    steps: tuple[StepDifference, ...] = ()
    same_steps: int = 0
    """How many steps from the first on are the same."""
    files: tuple[FileDifference, ...] = ()
    layers_only: tuple[int, ...] = ()
    """Numbers of steps whose layers have other bytes though no file tells why: another order, fractions of times."""

    @property
    def identical(self) -> bool:
        return self.a.digest == self.b.digest

    @property
    def same(self) -> bool:
        return not (self.config or self.steps or self.files)


def diff_images(
    a: Source,
    b: Source,
    platform: Platform,
    spool: str,
    *,
    times: bool = True,
    most_contents: int = 20,
    check: Callable[[], None] = lambda: None,
) -> Difference:
    """Compare two images, of indexes the manifests for ``platform``.

    Without ``times`` neither times of files nor of steps count. Of the first ``most_contents`` files with other bytes it is
    found where they differ; for that their bytes are kept a while in a file without a name in ``spool``. Raises ImageError.
    """
    one, other = _Image(a, platform), _Image(b, platform)
    difference = Difference(one.compared, other.compared)
    if one.compared.id == other.compared.id:
        return msgspec.structs.replace(difference, same_steps=len(one.steps))
    steps, same_steps = _steps(one.steps, other.steps, times)
    files: list[FileDifference] = []
    if one.config.diff_ids != other.config.diff_ids:
        files = _files(one, other, times, check)
        files = _with_contents(one, other, files, spool, most_contents, check)
    touched = {step for file in files for step in (file.a_step, file.b_step)}
    silent = [step for step in steps if "layer" in step.what and step.number not in touched]
    if not files:  # what differs in such layers is nothing that a file could tell
        steps = [step for step in steps if step.what != ("layer",)]
    return msgspec.structs.replace(
        difference,
        config=tuple(_config(one.raw_config, other.raw_config, times)),
        steps=tuple(steps),
        same_steps=same_steps,
        files=tuple(files),
        layers_only=tuple(step.number for step in silent),
    )


class _Image:
    def __init__(self, source: Source, platform: Platform) -> None:
        descriptor, _, manifest = choose_manifest(source, platform, *source.root())
        raw = read_small(source, manifest.config, CONFIG_LIMIT)
        self.source = source
        self.manifest: Manifest = manifest
        self.config: ImageConfig = parse_config(raw)
        self.raw_config = decode_json(raw, dict[str, Any], "image config")
        self.compared = Compared(source.title, descriptor.digest, manifest.config.digest, str(self.config.platform))
        self.steps = self._steps()
        self.step_of = [number for number, step in enumerate(self.steps, 1) if step.layer]

    def files(self, layers: Layers) -> dict[str, FileFact]:
        found: dict[str, FileFact] = {}
        for number, (layer, diff_id) in enumerate(zip(self.manifest.layers, self.config.diff_ids, strict=False)):
            lay_over(found, layers.facts(self.source, layer, diff_id), number)
        return found

    def _steps(self) -> list[Step]:
        blobs = list(zip(self.manifest.layers, self.config.diff_ids, strict=False))
        steps = []
        for entry in self.config.history or ():
            layer: tuple[Descriptor, Digest] | None = None
            if not entry.empty_layer and blobs:
                layer = blobs.pop(0)
            steps.append(_step(entry.created_by, entry.created or "", entry.comment, layer))
        return steps + [_step("", "", "", layer) for layer in blobs]


def _step(created_by: str, created: str, comment: str, layer: tuple[Descriptor, Digest] | None) -> Step:
    if layer is None:
        return Step(created_by, created, comment, "", "", 0)
    return Step(created_by, created, comment, layer[1], layer[0].digest, layer[0].size)


def _steps(a: list[Step], b: list[Step], times: bool) -> tuple[list[StepDifference], int]:
    found = []
    for position in range(max(len(a), len(b))):
        one = a[position] if position < len(a) else None
        other = b[position] if position < len(b) else None
        what: tuple[str, ...] = ()
        if one is not None and other is not None:
            fields = ("created_by", "created", "comment", "layer")
            what = tuple(
                field
                for field in fields
                if getattr(one, field) != getattr(other, field) and (times or field not in _TIMES)
            )
            if not what:
                continue
        found.append(StepDifference(position + 1, one, other, what))
    return found, found[0].number - 1 if found else len(a)


def _files(a: _Image, b: _Image, times: bool, check: Callable[[], None]) -> list[FileDifference]:
    layers = Layers(check)
    one, other = a.files(layers), b.files(layers)
    found = []
    for path in sorted(one.keys() | other.keys()):
        left, right = one.get(path), other.get(path)
        what = _what(left, right, times) if left is not None and right is not None else ()
        if what or left is None or right is None:
            steps = _number(a, left), _number(b, right)
            found.append(FileDifference(path, left, right, what, *steps))
    return found


def _number(image: _Image, fact: FileFact | None) -> int:
    return image.step_of[fact.layer] if fact is not None and fact.layer < len(image.step_of) else 0


def _what(a: FileFact, b: FileFact, times: bool) -> tuple[str, ...]:
    if a is b:
        return ()
    pairs = (
        ("kind", a.kind, b.kind),
        ("mode", a.mode, b.mode),
        ("owner", (a.uid, a.gid), (b.uid, b.gid)),
        ("size", a.size, b.size),
        ("content", a.digest, b.digest),
        ("mtime", a.mtime if times else 0, b.mtime if times else 0),
        ("link", a.link, b.link),
        ("device", a.device, b.device),
        ("xattrs", a.xattrs, b.xattrs),
    )
    return tuple(name for name, left, right in pairs if left != right)


def _with_contents(
    a: _Image, b: _Image, files: list[FileDifference], spool: str, most: int, check: Callable[[], None]
) -> list[FileDifference]:
    pairs = {
        file.path: (file.a, file.b)
        for file in files
        if "content" in file.what and file.a is not None and file.b is not None and file.a.kind == file.b.kind == "file"
    }
    chosen = dict(list(pairs.items())[:most])
    if not chosen:
        return files
    sides = Side(a.source, a.manifest.layers), Side(b.source, b.manifest.layers)
    contents = compare_bytes(*sides, chosen, spool, check)
    return [msgspec.structs.replace(file, content=contents.get(file.path)) for file in files]


def _config(a: dict[str, Any], b: dict[str, Any], times: bool) -> list[ConfigDifference]:
    found: list[ConfigDifference] = []
    left_out = {"history", "rootfs", *(() if times else _TIMES)}
    for key in sorted((a.keys() | b.keys()) - left_out):
        _walk(key, a.get(key), b.get(key), found)
    return found


def _walk(path: str, a: Any, b: Any, found: list[ConfigDifference]) -> None:
    if a == b:
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            _walk(f"{path}.{key}", a.get(key), b.get(key), found)
    elif isinstance(a, list) and isinstance(b, list):
        for position in range(max(len(a), len(b))):
            left, right = (side[position] if position < len(side) else None for side in (a, b))
            _walk(f"{path}[{position}]", left, right, found)
    else:
        found.append(ConfigDifference(path, a, b))


def plain_difference(difference: Difference) -> dict[str, Any]:
    """The difference as plain data, for JSON: bytes as hex, texts that are no UTF-8 with U+FFFD."""

    def content(found: ByteDifference | None) -> dict[str, Any] | None:
        if found is None:
            return None
        fields = {"offset": found.offset, "start": found.start, "a": found.a.hex(), "b": found.b.hex()}
        return fields | ({"lines": list(found.lines), "cut": found.cut} if found.lines else {})

    def step(found: StepDifference) -> dict[str, Any]:
        return {"number": found.number, "what": list(found.what), **_sides(found.a, found.b)}

    files = []
    for file in difference.files:
        change = "added" if file.a is None else "removed" if file.b is None else "changed"
        fields = {"path": file.path, "change": change, "what": list(file.what)}
        sides = {"a": file.a and plain_fact(file.a), "b": file.b and plain_fact(file.b)}
        steps = {"a_step": file.a_step or None, "b_step": file.b_step or None}
        files.append({**fields, **sides, **steps, **({"content": found} if (found := content(file.content)) else {})})
    whole = {
        "same": difference.same,
        "identical": difference.identical,
        **_sides(difference.a, difference.b),
        "config": [msgspec.to_builtins(each) for each in difference.config],
        "same_steps": difference.same_steps,
        "steps": [step(each) for each in difference.steps],
        "files": files,
        "layers_only": list(difference.layers_only),
    }
    return _readable(whole)  # type: ignore[no-any-return]


def _sides(a: msgspec.Struct | None, b: msgspec.Struct | None) -> dict[str, Any]:
    return {"a": msgspec.to_builtins(a), "b": msgspec.to_builtins(b)}


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return value
