"""Who may do what: challenges answered with Basic, or with bearer tokens kept for each scope until they expire.

Distribution specification, token.md and oauth.md. Where a registry may send us for a token is decided in ``_realm``:
credentials are worth stealing, and the realm is the registry's word alone.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec
import urllib3.exceptions as wire

from shiplap.errors import RegistryError
from shiplap.oci.addresses import bare
from shiplap.oci.manifest import prepare
from shiplap.registry.address import Reach
from shiplap.registry.challenge import Challenge, parse_challenges
from shiplap.registry.connection import Answer, Connections, Origin, join_url, split_url
from shiplap.registry.failure import ERROR_LIMIT, Redactor, refused, unreachable
from shiplap.registry.limits import asked_wait
from shiplap.registry.patience import TRANSIENT, Patience, TryAgain
from shiplap.settings import Credential, Network

TOKEN_LIMIT = 1 << 20
"""Most bytes of a token answer."""

EARLY = 10.0
"""A token is renewed this many seconds before it expires, or after half of its life if that is later."""

Scopes = tuple[str, ...]


class Site(NamedTuple):
    """A registry as it is reached: ``host`` is its name in settings and messages, ``path`` the repository there."""

    host: str
    path: str
    origin: Origin
    verify: bool = True
    mirror: bool = False


class _Token(NamedTuple):
    text: str
    expires: float


class _TokenBody(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: float | None = None


class Authority:
    """Finds the ``Authorization`` header for a request to a registry. Thread-safe: one fetch a token, others wait.

    ``offline``: ask for an identity token too, to be kept instead of the password; it is in ``identity_token`` if one came.
    """

    def __init__(
        self,
        network: Network,
        connections: Connections,
        patience: Patience,
        redactor: Redactor,
        *,
        offline: bool = False,
    ) -> None:
        self.identity_token = ""
        self._offline = offline
        self._network = network
        self._connections = connections
        self._patience = patience
        self._redactor = redactor
        self._challenges: dict[Origin, Challenge] = {}
        self._headers: dict[tuple[Origin, str, Scopes], _Token] = {}
        self._credentials: dict[tuple[str, str], Credential | None] = {}
        self._locks: dict[object, threading.Lock] = {}
        self._lock = threading.Lock()

    def header(self, site: Site, scopes: Scopes) -> str | None:
        """What to send with a request for ``scopes``; None if the registry has not asked for anything yet."""
        challenge = self._challenges.get(site.origin)
        if challenge is None:
            return None
        return self._obtain(site, scopes, challenge, rejected=None)

    def login(self, site: Site) -> str:
        """The name that requests to ``site`` were made by, as far as any was asked for; "" if by nobody's."""
        found = self._credentials.get((site.host, site.path))
        if found is None:
            return ""
        return found.username or "the holder of a token"

    def renew(self, site: Site, scopes: Scopes, header: str, rejected: str | None) -> bool:
        """After a 401: get what ``WWW-Authenticate`` (``header``) asks for. False if there is nothing more to try."""
        offers = parse_challenges(header)
        for scheme in ("bearer", "basic"):
            for challenge in offers:
                if challenge.scheme == scheme:
                    self._challenges[site.origin] = challenge
                    fresh = self._obtain(site, scopes, challenge, rejected)
                    return fresh is not None and fresh != rejected
        return False

    def _obtain(self, site: Site, scopes: Scopes, challenge: Challenge, rejected: str | None) -> str | None:
        key = (site.origin, site.path, scopes)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            known = self._headers.get(key)
            if known is not None and known.text != rejected and known.expires > time.monotonic():
                return known.text
            credential = self._credential(site)
            if challenge.scheme == "basic":
                if credential is None or not credential.username:
                    return None
                fresh = _Token(_basic(credential), float("inf"))
            elif credential is not None and credential.registry_token:
                fresh = _Token(f"Bearer {credential.registry_token}", float("inf"))
            else:
                fresh = self._fetch_token(site, scopes, challenge, credential)
            self._redactor.hide(fresh.text.partition(" ")[2])
            self._headers[key] = fresh
            return fresh.text

    def _credential(self, site: Site) -> Credential | None:
        key = (site.host, site.path)
        with self._lock:
            lock = self._locks.setdefault(site.host, threading.Lock())
        # One at a time: a helper may ask its user something.
        with lock:
            if key not in self._credentials:
                found = self._network.credentials(site.host, site.path)
                if found is not None:
                    self._redactor.hide(*found.secrets())
                self._credentials[key] = found
            return self._credentials[key]

    def _fetch_token(self, site: Site, scopes: Scopes, challenge: Challenge, credential: Credential | None) -> _Token:
        realm = challenge.get("realm")
        self._realm(realm, site)
        asked = tuple(word for word in challenge.get("scope").split()[:10] if _SCOPE.fullmatch(word))
        query = [("service", challenge.get("service"))] if challenge.get("service") else []
        query += [("scope", scope) for scope in dict.fromkeys((*scopes, *asked))]
        fetched = time.monotonic()
        if credential is not None and credential.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": challenge.get("service"),
                "client_id": "shiplap",
                "scope": " ".join(value for name, value in query if name == "scope"),
                "refresh_token": credential.identity_token,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            raw = self._ask(site, "POST", realm, headers, urlencode(form).encode())
        else:
            if self._offline and credential is not None and credential.username:
                query += [("account", credential.username), ("client_id", "shiplap"), ("offline_token", "true")]
            separator = "&" if "?" in realm else "?"
            url = realm.partition("#")[0] + (separator + urlencode(query) if query else "")
            headers = {"Authorization": _basic(credential)} if credential is not None and credential.username else {}
            raw = self._ask(site, "GET", url, headers, None)
        try:
            body = msgspec.json.decode(raw, type=_TokenBody, strict=False)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            body = _TokenBody()
        text = body.token or body.access_token or ""
        if not re.fullmatch(r"[\x21-\x7e]+", text):
            raise RegistryError(f"{bare(realm)} gave no usable token for {site.host}", code="token")
        if self._offline and body.refresh_token:
            self._redactor.hide(body.refresh_token)
            self.identity_token = body.refresh_token
        # Without a word about it a token lives for 60 seconds (token.md, "expires_in").
        life = body.expires_in or 60.0
        return _Token(f"Bearer {text}", fetched + max(life - EARLY, life / 2))

    def _ask(self, site: Site, method: str, url: str, headers: dict[str, str], body: bytes | None) -> bytes:
        home = split_url(url)[0]

        def once() -> bytes:
            at = url
            for _ in range(10):
                limit = self._realm(at, site)
                own = split_url(at)[0] == home
                sent = headers if own else {}
                verify = site.verify if split_url(at)[0] == site.origin else True
                try:
                    with self._connections.exchange(method, at, sent, body, limit=limit, verify=verify) as answer:
                        if answer.status in (301, 302, 303, 307, 308) and method == "GET":
                            at = join_url(at, answer.headers.get("Location", ""))
                            answer.discard()
                            continue
                        return self._token_body(site, answer)
                except (wire.HTTPError, OSError) as error:
                    failure, transient = unreachable(error, method, at, site.host)
                    if transient:
                        raise TryAgain(failure) from None
                    raise failure from None
            raise RegistryError(f"{bare(url)}: too many redirects", code="redirects")

        return self._patience.insist(once)

    def _token_body(self, site: Site, answer: Answer) -> bytes:
        if answer.status == 200:
            raw = answer.read(TOKEN_LIMIT)
            if len(raw) > TOKEN_LIMIT:
                raise RegistryError(f"{bare(answer.url)}: token answer over {TOKEN_LIMIT} bytes", code="too-large")
            return raw
        raw = answer.read(ERROR_LIMIT)
        login = self.login(site)
        failure = refused(
            answer.method, answer.url, answer.status, raw, self._redactor, site.host, answer.headers, login
        )
        if answer.status in TRANSIENT:
            raise TryAgain(failure, asked_wait(answer.headers))
        raise failure

    def _realm(self, url: str, site: Site) -> Reach:
        """How close a token server at ``url`` may be to us; raises if it may not be asked at all."""
        try:
            origin, _ = split_url(url)
        except RegistryError:
            raise _bad_realm(url, site, "is not an http(s) address") from None
        if origin == site.origin or self._network.insecure_host(f"{origin.host}:{origin.port}"):
            return Reach.LINK
        if origin.scheme != "https":
            raise _bad_realm(url, site, "is not https")
        # A registry of a private network may have its token server there; nobody else may send us inside.
        return min(self._connections.reach(site.origin), Reach.PRIVATE)


_SCOPE = re.compile(r"[a-z]+(\([a-z]+\))?:[A-Za-z0-9._/:*-]{1,300}:[a-z*,]{1,50}")


def _basic(credential: Credential) -> str:
    return "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()


def _bad_realm(url: str, site: Site, why: str) -> RegistryError:
    return RegistryError(
        f"{site.host} asks to fetch a token from {bare(url)}, which {why}",
        code="forbidden-realm",
        hint="if that is meant, name the token server's host:port in registries.conf with insecure = true",
    )


prepare(_TokenBody)
