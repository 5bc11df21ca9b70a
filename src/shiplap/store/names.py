"""Where the name of an image is kept, for those who must not wait for ``images.py`` to be imported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def name_file(name: str) -> str:
    """What the file of an image's name is called."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def named_digest(root: str, name: str) -> str:
    """The digest that ``name`` means in the store at ``root``; ``""`` if none. Raises OSError, ValueError."""
    found = json.loads(Path(root, "names", name_file(name)).read_bytes())
    return str(found.get("digest", "")) if found.get("name") == name else ""
