"""An OCI layout as one value: every descriptor beside what it points to; what no two builders share is taken out."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_NOT_TOLD = {"frontend.caps", "org.opencontainers.image.created"}
"""What BuildKit's client and frontend agree on; a time that only an archive has."""
_SESSION = re.compile(r"sharedkey:localdir:")
"""By what BuildKit's daemon knows a client again that sends it a directory."""


def read_layout(directory: Path, there: Callable[[str], str] = str, exact: bool = False) -> Any:
    """The layout at ``directory``. ``there`` is done to every text: it takes out addresses of this run.

    ``exact``: nothing is taken out; what is there is the same to the byte, digests and times included.
    """

    def blob(digest: str) -> bytes:
        return (directory / "blobs" / digest.replace(":", "/")).read_bytes()

    def descriptor(fields: dict[str, Any]) -> dict[str, Any]:
        told = fields if exact else {**fields, "size": 0}
        told = dict(told)
        kind = fields["mediaType"]
        if "layer" not in kind and "rootfs" not in kind:
            told["content"] = opened(json.loads(blob(fields["digest"])))
        return told

    def opened(value: Any) -> Any:
        if isinstance(value, dict):
            told = {key: opened(item) for key, item in value.items()}
            for key in ("manifests", "layers"):
                if isinstance(value.get(key), list):
                    told[key] = [descriptor(item) for item in value[key]]
            if isinstance(value.get("config"), dict) and "digest" in value["config"]:
                told["config"] = descriptor(value["config"])
            return told
        return [opened(item) for item in value] if isinstance(value, list) else value

    index = json.loads((directory / "index.json").read_text())
    return opened(index) if exact else plain(opened(index), there)


def plain(value: Any, there: Callable[[str], str] = str) -> Any:
    """``value`` without times, digests, sizes of packed layers, and what only one builder has a word for."""
    if isinstance(value, dict):
        told = {there(_DIGEST.sub("sha256:…", key)): plain(item, there) for key, item in value.items()}
        told = {key: item for key, item in told.items() if key not in _NOT_TOLD and not _SESSION.match(key)}
        if str(told.get("local.sharedkeyhint", "")).startswith("context:"):
            told["local.sharedkeyhint"] = "…"
        if "size" in told and "mediaType" in told:
            told["size"] = 0
        for key in ("invocationId", "buildInvocationID", "buildx.build.ref"):
            if key in told:
                told[key] = "…"
        if "filename" in told and "language" in told:
            told["data"] = there(b64decode(value["data"]).decode())
        if isinstance(value.get("digestMapping"), dict) and "digestMapping" in told:
            told["digestMapping"] = sorted(value["digestMapping"].values())
        if isinstance(told.get("locations"), list):
            # BuildKit adds an empty one for each further use of the same source.
            told["locations"] = [item for item in told["locations"] if item]
        if told.get("annotations") == {}:
            del told["annotations"]
        return told
    if isinstance(value, list):
        return [plain(item, there) for item in value]
    if isinstance(value, str):
        if value.startswith("PATH="):
            return "PATH=…"
        return there(_HEX.sub("…", _DIGEST.sub("sha256:…", _TIME.sub("…", value))))
    return value
