"""JSON files of docker's: config.json, contexts."""

from __future__ import annotations

import os
from typing import Any

from shiplap.errors import Place, UsageError

FILE_LIMIT = 1 << 20


def read_json(path: str) -> dict[str, Any]:
    """The object in a JSON file, empty if the file is missing or empty. Raises UsageError with the line."""
    try:
        with open(path, "rb") as file:
            raw = file.read(FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise wrong(path, error.strerror or "cannot be read") from None
    if len(raw) > FILE_LIMIT:
        raise wrong(path, f"is larger than {FILE_LIMIT} bytes")
    if not raw.strip():
        return {}

    import json

    try:
        document = json.loads(raw)
    except json.JSONDecodeError as error:
        raise wrong(path, f"is not JSON: {error.msg}", error.lineno) from None
    except (ValueError, RecursionError):
        raise wrong(path, "is not JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise wrong(path, "is not a JSON object", 1)
    return document


def wrong(path: str, why: str, line: int | None = None) -> UsageError:
    """The error of such a file."""
    return UsageError(
        f"{os.path.basename(path)}: {why}",
        code="auth-file",
        where=Place(path, line),
        hint="repair the file, or remove it and log in again with: shiplap login HOST",
    )
