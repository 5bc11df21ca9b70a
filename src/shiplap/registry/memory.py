"""A registry in memory, over real HTTP on a loopback port: for tests, ours and our users'; standard library only.

It speaks the distribution specification 1.1 as far as builders use it, asks for Basic or bearer authorisation if told
to, remembers every request, and misbehaves on demand (``Fault``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from shiplap.registry.loopback import Fault, LoopbackServer, Reply, Seen

__all__ = ["Fault", "MemoryRegistry", "Reply", "Repository", "Seen"]


class Repository:
    """What one path holds: blobs by digest, manifests (media type, bytes) by digest, tags."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.tags: dict[str, str] = {}
        self.uploads: dict[str, bytearray] = {}


class MemoryRegistry(LoopbackServer):
    """A running registry; ``with MemoryRegistry() as registry: … registry.host`` (``127.0.0.1:port``).

    ``auth`` is ``""``, ``"basic"`` or ``"token"`` with ``users`` as name -> password; with ``anonymous_pull`` a token
    for reading needs no name. Tokens live ``token_seconds``. ``tls`` makes it speak https. ``referrers`` 0: there is no
    referrers API; else how many entries its pages have.
    """

    def __init__(
        self,
        *,
        auth: str = "",
        users: Mapping[str, str] | None = None,
        anonymous_pull: bool = False,
        token_seconds: float = 300.0,
        realm: str = "",
        tls: ssl.SSLContext | None = None,
        referrers: int = 0,
    ) -> None:
        super().__init__(tls)
        self.referrers = referrers
        self.auth = auth
        self.users = dict(users or {})
        self.anonymous_pull = anonymous_pull
        self.token_seconds = token_seconds
        self.realm = realm
        self.repositories: dict[str, Repository] = {}
        self.identity_tokens: dict[str, str] = {}
        self._tokens: dict[str, tuple[float, set[str]]] = {}

    def __enter__(self) -> MemoryRegistry:
        self.start()
        return self

    def repository(self, path: str) -> Repository:
        with self.lock:
            return self.repositories.setdefault(path, Repository())

    def add_blob(self, path: str, data: bytes) -> str:
        """Put a blob; returns its digest."""
        digest = _sha256(data)
        self.repository(path).blobs[digest] = data
        return digest

    def add_manifest(self, path: str, tag: str, raw: bytes, media_type: str) -> str:
        """Put a manifest, under a tag unless that is ""; returns its digest."""
        digest = _sha256(raw)
        repository = self.repository(path)
        repository.manifests[digest] = (media_type, raw)
        if tag:
            repository.tags[tag] = digest
        return digest

    def expire_tokens(self) -> None:
        """Make every token that was given out invalid at once."""
        with self.lock:
            self._tokens.clear()

    def cut_upload(self, target: str, part: bytes) -> None:
        """Keep what came before the cut, as real registries do, so that the upload can be resumed."""
        session = urlsplit(target).path.rpartition("/")[2]
        with self.lock:
            for repository in self.repositories.values():
                if session in repository.uploads:
                    repository.uploads[session] += part

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The well-behaved answer to a request."""
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        with self.lock:
            if parts.path == "/token":
                return self._token(method, query, headers, body)
            denied = self._denied(method, parts.path, query, headers)
            if denied is not None:
                return denied
            if parts.path in ("/v2", "/v2/"):
                return Reply(200, {"Content-Type": "application/json"}, b"{}")
            for pattern, serve in _ROUTES:
                match = re.fullmatch(pattern, parts.path)
                if match:
                    return serve(self, method, match.group(1), match.group(2), query, headers, body)
        return _error(404, "UNSUPPORTED", "no such endpoint")

    def _denied(self, method: str, path: str, query: dict[str, list[str]], headers: Mapping[str, str]) -> Reply | None:
        if not self.auth:
            return None
        if self.auth == "basic":
            if self._user(headers) is None:
                return _unauthorized('Basic realm="memory"')
            return None
        match = re.fullmatch(r"/v2/(.+?)/(?:blobs|manifests|tags|referrers)/.*", path)
        wanted = set()
        if match:
            verbs = ("pull",) if method in ("GET", "HEAD") and "/uploads/" not in path else ("pull", "push")
            wanted = {f"{match.group(1)}:{verb}" for verb in verbs}
        scheme, _, text = headers.get("authorization", "").partition(" ")
        expires, granted = self._tokens.get(text, (0.0, set())) if scheme == "Bearer" else (0.0, set[str]())
        if expires > time.monotonic() and wanted <= granted:
            return None
        challenge = f'Bearer realm="{self.realm or self.url + "/token"}",service="memory"'
        if match:
            verbs_text = ",".join(sorted(word.rpartition(":")[2] for word in wanted))
            challenge += f',scope="repository:{match.group(1)}:{verbs_text}"'
        return _unauthorized(challenge)

    def _user(self, headers: Mapping[str, str]) -> str | None:
        scheme, _, text = headers.get("authorization", "").partition(" ")
        try:
            name, _, password = base64.b64decode(text).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return name if scheme == "Basic" and self.users.get(name) == password and name in self.users else None

    def _token(self, method: str, query: dict[str, list[str]], headers: Mapping[str, str], body: bytes) -> Reply:
        if method == "POST":
            query = parse_qs(body.decode())
            user = self.identity_tokens.get((query.get("refresh_token") or [""])[0])
        else:
            user = self._user(headers)
        if user is None and ("authorization" in headers or method == "POST" or not self.anonymous_pull):
            return _error(401, "UNAUTHORIZED", "incorrect username or password")
        granted: set[str] = set()
        for scope in " ".join(query.get("scope", [])).split():
            path, _, verbs = scope.removeprefix("repository:").rpartition(":")
            granted |= {f"{path}:{verb}" for verb in verbs.split(",") if user is not None or verb == "pull"}
        text = secrets.token_hex(16)
        self._tokens[text] = (time.monotonic() + self.token_seconds, granted)
        fields = {"token": text, "expires_in": self.token_seconds}
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(fields).encode())

    def _tags(self, _method: str, path: str, _name: str, query: dict[str, list[str]], *_: Any) -> Reply:
        names = sorted(self.repository(path).tags)
        last = (query.get("last") or [""])[0]
        most = int((query.get("n") or ["1000"])[0])
        rest = [name for name in names if name > last]
        headers = {"Content-Type": "application/json"}
        if len(rest) > most:
            headers["Link"] = f'</v2/{path}/tags/list?n={most}&last={rest[most - 1]}>; rel="next"'
        return Reply(200, headers, json.dumps({"name": path, "tags": rest[:most]}).encode())

    def _manifests(
        self, method: str, path: str, name: str, _query: Any, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        repository = self.repository(path)
        if method == "PUT":
            for digest in _named_by(body):
                if digest not in repository.blobs and digest not in repository.manifests:
                    return _error(400, "MANIFEST_BLOB_UNKNOWN", f"unknown to the repository: {digest}")
            digest = self.add_manifest(
                path, "" if ":" in name else name, body, headers.get("content-type", "application/octet-stream")
            )
            stored = {"Location": f"/v2/{path}/manifests/{digest}", "Docker-Content-Digest": digest}
            subject = _fields(body).get("subject")
            if self.referrers and isinstance(subject, dict):
                stored["OCI-Subject"] = str(subject.get("digest"))
            return Reply(201, stored)
        digest = repository.tags.get(name, name)
        if digest not in repository.manifests:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, raw = repository.manifests[digest]
        return Reply(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, raw)

    def _listed(
        self, _method: str, path: str, digest: str, query: dict[str, list[str]], _headers: Any, _body: Any
    ) -> Reply:
        if not self.referrers:
            return _error(404, "UNSUPPORTED", "no such endpoint")
        wanted = (query.get("artifactType") or [""])[0]
        found = []
        for own, (media_type, raw) in self.repository(path).manifests.items():
            fields = _fields(raw)
            subject, config = fields.get("subject"), fields.get("config")
            if isinstance(subject, dict) and subject.get("digest") == digest:
                kind = fields.get("artifactType") or (config or {}).get("mediaType", "")
                entry = {"mediaType": media_type, "digest": own, "size": len(raw), "artifactType": kind}
                found.append(entry | {"annotations": fields.get("annotations") or {}})
        found = [entry for entry in found if wanted in ("", entry["artifactType"])]
        start = int((query.get("start") or ["0"])[0])
        end = start + self.referrers
        headers = {"Content-Type": _INDEX}
        if wanted:
            headers["OCI-Filters-Applied"] = "artifactType"
        if len(found) > end:
            headers["Link"] = f'</v2/{path}/referrers/{digest}?start={end}&artifactType={wanted}>; rel="next"'
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": found[start:end]}
        return Reply(200, headers, json.dumps(index).encode())

    def _blobs(
        self, _method: str, path: str, digest: str, _query: Any, headers: Mapping[str, str], _body: Any
    ) -> Reply:
        data = self.repository(path).blobs.get(digest)
        if data is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        found = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        if wanted:
            start = int(wanted.group(1))
            if start >= len(data):
                return _error(416, "RANGE_INVALID", "range not satisfiable")
            found["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return Reply(206, found, data[start:])
        return Reply(200, found, data)

    def _uploads(
        self,
        method: str,
        path: str,
        session: str,
        query: dict[str, list[str]],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Reply:
        repository = self.repository(path)
        if method == "POST":
            mount, source = (query.get("mount") or [""])[0], (query.get("from") or [""])[0]
            if mount and mount in self.repository(source).blobs:
                repository.blobs[mount] = self.repository(source).blobs[mount]
                return Reply(201, {"Location": f"/v2/{path}/blobs/{mount}", "Docker-Content-Digest": mount})
            session = secrets.token_hex(8)
            repository.uploads[session] = bytearray()
        data = repository.uploads.get(session)
        if data is None:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        place = {"Location": f"/v2/{path}/blobs/uploads/{session}", "Range": f"0-{max(len(data) - 1, 0)}"}
        if method == "POST":
            return Reply(202, place)
        if method == "GET":
            return Reply(204, place)
        if method == "PATCH":
            start = headers.get("content-range", f"{len(data)}-").partition("-")[0]
            if int(start) != len(data):
                return _error(416, "BLOB_UPLOAD_INVALID", "out of order")
        data += body
        if method == "PATCH":
            return Reply(202, {**place, "Range": f"0-{len(data) - 1}"})
        digest = (query.get("digest") or [""])[0]
        del repository.uploads[session]
        if _sha256(bytes(data)) != digest:
            return _error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        repository.blobs[digest] = bytes(data)
        return Reply(201, {"Location": f"/v2/{path}/blobs/{digest}", "Docker-Content-Digest": digest})


_INDEX = "application/vnd.oci.image.index.v1+json"

_ROUTES: tuple[tuple[str, Callable[..., Reply]], ...] = (
    (r"/v2/(.+)/blobs/uploads/([0-9a-f]*)", MemoryRegistry._uploads),
    (r"/v2/(.+)/blobs/([^/]+)", MemoryRegistry._blobs),
    (r"/v2/(.+)/manifests/([^/]+)", MemoryRegistry._manifests),
    (r"/v2/(.+)/tags/(list)", MemoryRegistry._tags),
    (r"/v2/(.+)/referrers/([^/]+)", MemoryRegistry._listed),
)


def _fields(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _named_by(raw: bytes) -> list[str]:
    fields = _fields(raw)
    entries = [fields.get("config"), *(fields.get("layers") or []), *(fields.get("manifests") or [])]
    return [entry["digest"] for entry in entries if isinstance(entry, dict) and "digest" in entry]


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Reply(status, {"Content-Type": "application/json", **(headers or {})}, body)


def _unauthorized(challenge: str) -> Reply:
    return _error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
