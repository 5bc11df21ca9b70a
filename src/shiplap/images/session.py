"""What a command about images has at hand: places by location, and the store, the registry client and the files they need."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from shiplap.errors import UsageError
from shiplap.events.facts import Sink
from shiplap.images.files import Boxed, BoxSource, DirectoryBox, open_tar
from shiplap.images.location import DOCKER_ARCHIVE, ENGINE, LAYOUT, OCI_ARCHIVE, REGISTRY, Location
from shiplap.images.place import Source, Target
from shiplap.images.remote import RegistrySource, RegistryTarget
from shiplap.images.stored import StoreSource, StoreTarget
from shiplap.oci.platform import Platform
from shiplap.registry.client import Registry
from shiplap.settings import Settings
from shiplap.store.store import Store


class Session:
    """Opens places; a context manager that closes all it opened. The store and the registry client are made once."""

    def __init__(self, settings: Settings, sink: Sink = lambda fact: None) -> None:
        self.settings = settings
        self._sink = sink
        self._open = ExitStack()
        self._store: Store | None = None
        self._registry: Registry | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._open.__exit__(kind, *rest)  # type: ignore[arg-type]

    @property
    def store(self) -> Store:
        """The store of the settings, in use until the session ends."""
        if self._store is None:
            self._store = self._open.enter_context(Store(Path(self.settings.root)))
            self._open.enter_context(self._store.in_use())
        return self._store

    @property
    def registry(self) -> Registry:
        if self._registry is None:
            self._registry = self._open.enter_context(Registry(self.settings.network(), self._sink))
        return self._registry

    def boxed(self, location: Location) -> Boxed:
        """All images of a layout or archive. Raises UsageError (cannot-read), ImageError."""
        if location.transport == LAYOUT:
            directory = Path(location.path)
            if not directory.is_dir():
                raise UsageError(f"cannot read {location.path}: it is no directory", code="cannot-read")
            return Boxed(DirectoryBox(directory))
        box = open_tar(location.path, self.spool)
        self._open.callback(box.close)
        return Boxed(box)

    @property
    def spool(self) -> str:
        """The directory for files without names, on the disk of the store if there is one."""
        temporary = Path(self.settings.root, "tmp")
        return str(temporary) if temporary.is_dir() else self.settings.temporary

    def source(self, location: Location) -> Source:
        """The image at ``location``. Whether it is there is known when its root is asked for."""
        if location.transport == REGISTRY:
            return RegistrySource(self.registry, location.name)
        if location.transport in (LAYOUT, OCI_ARCHIVE, DOCKER_ARCHIVE):
            boxed = self.boxed(location)
            return BoxSource(boxed, boxed.find(location.name, location.digest))
        if location.transport == ENGINE:
            from shiplap.images.engine import engine_archive

            box = self._open.enter_context(engine_archive(self.settings.engines(), location.name, self.spool))
            boxed = Boxed(box)
            return BoxSource(boxed, boxed.find(location.name if len(boxed.images) > 1 else ""))
        return StoreSource(self.store, location.name)

    def target(self, location: Location, platform: Platform | None = None) -> Target:
        """Where to put an image. ``platform``: which one an archive for docker names."""
        if location.digest:
            raise UsageError("an image cannot be put under a digest", code="bad-location", hint="write :TAG instead")
        if location.transport == REGISTRY:
            return RegistryTarget(self.registry, location.name)
        if location.transport == ENGINE:
            from shiplap.images.engine import EngineTarget

            return EngineTarget(self.settings.engines(), location.name, platform)
        if location.transport in (OCI_ARCHIVE, DOCKER_ARCHIVE, LAYOUT):
            from shiplap.images.written import ArchiveTarget, LayoutTarget

            if location.transport == LAYOUT:
                return LayoutTarget(location.path, location.name)
            return ArchiveTarget(location.path, location.name, location.transport == DOCKER_ARCHIVE, platform)
        return StoreTarget(self.store, location.name)
