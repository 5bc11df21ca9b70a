"""Names of builders, for scripts written for docker buildx. There is nothing behind a name: whoever builds is the builder.

They lie in the store, in ``builders.json``, which is replaced as a whole.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from shiplap.errors import StoreError
from shiplap.settings import Settings
from shiplap.store.locks import locked

DEFAULT = "default"
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9._-]*")
"""buildx's rule."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A machine of a builder, as it was described to ``create``."""

    name: str
    endpoint: str = ""
    platforms: tuple[str, ...] = ()


class Builder(msgspec.Struct, frozen=True, kw_only=True):
    """A builder by name. ``made``: when, in seconds since 1970."""

    name: str
    driver: str = "docker-container"
    nodes: tuple[Node, ...] = ()
    made: float = 0.0


class _File(msgspec.Struct, frozen=True):
    current: str = DEFAULT
    builders: tuple[Builder, ...] = ()


_decoder = msgspec.json.Decoder(_File)  # at import, where only one thread can be


class Builders:
    """The names that are kept. Every change is on disk when it returns, and is seen by other processes."""

    def __init__(self, settings: Settings) -> None:
        self._path = Path(settings.root) / "builders.json"

    def all(self) -> tuple[Builder, ...]:
        """All of them, by name; last the one that is always there."""
        return (*sorted(self._read().builders, key=lambda builder: builder.name), self._default())

    def current(self) -> str:
        """The name of the one that is used where none is named."""
        return self._read().current

    def find(self, name: str = "") -> Builder:
        """A builder; without a name the current one. Raises StoreError (no-builder)."""
        held = self._read()
        name = (name or held.current).lower()
        found = {builder.name: builder for builder in (*held.builders, self._default())}.get(name)
        if found is None:
            raise StoreError(f'no builder "{name}" found', code="no-builder", hint="shiplap buildx ls")
        return found

    def create(
        self, name: str, driver: str, node: str, endpoint: str, platforms: tuple[str, ...], *, append: bool = False
    ) -> Builder:
        """Keep a new name (one is made up if it is empty), or a further node of a builder. Raises StoreError."""
        name = self._checked(name) if name else f"builder-{secrets.token_hex(3)}"

        def with_it(held: _File) -> _File:
            there = next((builder for builder in held.builders if builder.name == name), None)
            nodes = there.nodes if there is not None else ()
            if there is not None and not append and node not in [each.name for each in nodes]:
                raise StoreError(
                    f'existing instance for "{name}" but no append mode, specify the node name to make changes',
                    code="builder-exists",
                    hint=f"shiplap buildx rm {name}, or --append",
                )
            called = node or f"{name}{len(nodes)}"
            builder = Builder(
                name=name,
                driver=driver or (there.driver if there is not None else "docker-container"),
                nodes=(
                    *(each for each in nodes if each.name != called),
                    Node(name=called, endpoint=endpoint, platforms=platforms),
                ),
                made=time.time(),
            )
            return _File(held.current, (*(each for each in held.builders if each.name != name), builder))

        self._change(with_it)
        return self.find(name)

    def leave(self, name: str, node: str) -> Builder:
        """Forget a node of a builder. Raises StoreError (no-builder)."""
        self.find(name)

        def without(held: _File) -> _File:
            kept = [
                builder
                if builder.name != name.lower()
                else msgspec.structs.replace(builder, nodes=tuple(each for each in builder.nodes if each.name != node))
                for builder in held.builders
            ]
            return _File(held.current, tuple(kept))

        self._change(without)
        return self.find(name)

    def use(self, name: str) -> None:
        """Make a builder the current one. Raises StoreError (no-builder)."""
        chosen = self.find(name).name
        self._change(lambda held: _File(chosen, held.builders))

    def remove(self, name: str) -> None:
        """Forget a builder; the one that is always there then is current. Raises StoreError."""
        builder = self.find(name)
        if builder.name == DEFAULT:
            raise StoreError("the builder default is always there", code="builder-stays", hint="shiplap buildx ls")

        def without(held: _File) -> _File:
            kept = tuple(each for each in held.builders if each.name != builder.name)
            return _File(DEFAULT if held.current == builder.name else held.current, kept)

        self._change(without)

    def _checked(self, name: str) -> str:
        if not _NAME.fullmatch(name) or name.lower() == DEFAULT:
            what = f"{name} is a reserved name" if name.lower() == DEFAULT else f"invalid name {name!r}"
            hint = "a letter, then letters, digits, dots, dashes and underscores"
            raise StoreError(f"{what}: it cannot name a builder", code="builder-name", hint=hint)
        return name.lower()

    def _default(self) -> Builder:
        return Builder(name=DEFAULT, driver="shiplap", nodes=(Node(name=DEFAULT, endpoint=DEFAULT),))

    def _read(self) -> _File:
        try:
            return _decoder.decode(self._path.read_bytes())
        except FileNotFoundError:
            return _File()
        except (OSError, msgspec.MsgspecError) as error:
            hint = f"rm {self._path} forgets all names of builders, and nothing else"
            raise StoreError(f"cannot read {self._path}: {error}", code="builders-damaged", hint=hint) from None

    def _change(self, change: Callable[[_File], _File]) -> None:
        aside = self._path.with_name(f"builders.json.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(f"{self._path}.lock", remove=True):
                aside.write_bytes(msgspec.json.encode(change(self._read())))
                aside.replace(self._path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise StoreError(f"cannot write {self._path}: {error.strerror}", code="cannot-write") from None
