"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from shiplap.errors import ExportError


class replacing:
    """Writes a file aside and renames it over ``path`` if all went well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> BinaryIO:
        try:
            self._file = self._aside.open("wb")
        except OSError as error:
            raise ExportError(f"cannot write {self._path}: {error.strerror}", code="cannot-write") from None
        return self._file

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            self._aside.rename(self._path)
        else:
            self._aside.unlink(missing_ok=True)
